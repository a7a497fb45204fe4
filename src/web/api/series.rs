//! `/api/v1/series`, `/labels`, `/label/{name}/values`: what there is to ask for.

use axum::extract::{Path, State};
use axum::response::Response;

use super::json;
use super::params::Params;
use crate::model::{Matcher, Timestamp};
use crate::store::Store;
use crate::web::Context;
use crate::web::error::ApiError;

/// What is asked about: which series, in which time, how many results.
struct Scope {
    selectors: Vec<Vec<Matcher>>,
    start: Timestamp,
    end: Timestamp,
    limit: usize,
}

/// The label sets of matching series.
pub async fn series(State(context): State<Context>, params: Params) -> Result<Response, ApiError> {
    let scope = Scope::new(&params)?;
    if scope.selectors.is_empty() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    answer(&context, scope, json::labels, |store, scope| {
        store.series(&scope.selectors, scope.start, scope.end, scope.one_more())
    })
    .await
}

/// The label names of matching series.
pub async fn names(State(context): State<Context>, params: Params) -> Result<Response, ApiError> {
    let scope = Scope::new(&params)?;
    let write = |out: &mut Vec<u8>, name: &String| json::html_safe_string(out, name);
    answer(&context, scope, write, |store, scope| {
        store.label_names(&scope.selectors, scope.start, scope.end, scope.one_more())
    })
    .await
}

/// The values of a label in matching series.
pub async fn values(
    State(context): State<Context>,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let name = decoded(&name)?;
    let scope = Scope::new(&params)?;
    let write = |out: &mut Vec<u8>, value: &String| json::html_safe_string(out, value);
    answer(&context, scope, write, move |store, scope| {
        let Scope { selectors, .. } = scope;
        store.label_values(&name, selectors, scope.start, scope.end, scope.one_more())
    })
    .await
}

impl Scope {
    fn new(params: &Params) -> Result<Scope, ApiError> {
        let limit = params.limit()?;
        let start = params.time("start")?.unwrap_or(Timestamp::MIN);
        let end = params.time("end")?.unwrap_or(Timestamp::MAX);
        Ok(Scope {
            selectors: params.selectors()?,
            start,
            end,
            limit,
        })
    }

    /// One result above the limit shows that there are more.
    fn one_more(&self) -> usize {
        self.limit.saturating_add(1)
    }
}

/// Reads on the blocking pool and writes the results as an array.
async fn answer<T: 'static>(
    context: &Context,
    scope: Scope,
    write: impl Fn(&mut Vec<u8>, &T) + Send + 'static,
    read: impl FnOnce(&Store, &Scope) -> Result<Vec<T>, crate::promql::QueryError> + Send + 'static,
) -> Result<Response, ApiError> {
    let store = context.store.clone();
    let timeout = context.config().query.timeout.get();
    let run = context.lists.run(timeout, move |_| {
        let mut results = read(&store, &scope)?;
        let mut warnings = Vec::new();
        if results.len() > scope.limit {
            results.truncate(scope.limit);
            warnings.push("results truncated due to limit".to_owned());
        }
        Ok(json::success(&warnings, &[], |out| {
            json::array(out, &results, |out, one| write(out, one));
        }))
    });
    run.await?.map(json::respond)
}

/// A label name of the path. Names with other characters than letters, digits and `_`
/// may come escaped as `U__name_2e_x`, as Prometheus 3 takes them.
fn decoded(name: &str) -> Result<String, ApiError> {
    let Some(escaped) = name.strip_prefix("U__") else {
        return Ok(name.to_owned());
    };
    let invalid = || ApiError::bad_data(format!("invalid label name: {name:?}"));
    let mut out = String::new();
    let mut rest = escaped;
    while let Some((plain, after)) = rest.split_once('_') {
        out.push_str(plain);
        if let Some(after) = after.strip_prefix('_') {
            out.push('_');
            rest = after;
            continue;
        }
        let (code, after) = after.split_once('_').ok_or_else(invalid)?;
        let code = u32::from_str_radix(code, 16).ok().and_then(char::from_u32);
        out.push(code.ok_or_else(invalid)?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_names_are_decoded() {
        for (text, want) in [
            ("job", Some("job")),
            ("__name__", Some("__name__")),
            ("U__http_2e_status", Some("http.status")),
            ("U__a__b", Some("a_b")),
            ("U__x_zz_", None),
            ("U__x_2e", None),
        ] {
            assert_eq!(decoded(text).ok().as_deref(), want, "{text}");
        }
    }
}
