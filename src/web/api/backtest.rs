//! `/api/v1/rules/backtest`: what a rule file would have done over stored history.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;

use super::json;
use super::params::Params;
use crate::config::Config;
use crate::model::Timestamp;
use crate::rules::backtest::{self, Plan};
use crate::rules::{self, file};
use crate::web::Context;
use crate::web::error::ApiError;

/// The file that rules are taken to stand in when none is named.
const FILE: &str = "backtest.yml";

/// Takes the text of a rule file as `rules`, its path as `file` (groups run at
/// slots that hang on it), `start` and `end`; and, to change what notifications
/// are counted by, `group_by[]`, `group_wait`, `group_interval`, `repeat_interval`.
pub async fn backtest(
    State(context): State<Context>,
    params: Params,
) -> Result<Response, ApiError> {
    let config = context.config();
    let (start, end) = span(&params)?;
    let name = match params.get("file") {
        "" => FILE,
        name => name,
    };
    let parsed = file::parse_lenient(name, params.get("rules"), rules::defaults(&config));
    let parsed = parsed.map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        ApiError::bad_data(lines.join("\n"))
    })?;
    let groups = parsed.groups.into_iter().map(Arc::new).collect();
    let settings = rules::settings(&config);
    let plan = plan(&config, &params)?;
    let store = context.store.clone();
    let run = context.gate.run(config.query.timeout.get(), move |cancel| {
        backtest::run(&store, groups, &settings, &plan, (start, end), cancel)
    });
    let report = run
        .await?
        .map_err(|err| ApiError::bad_data(err.to_string()))?;
    let report = serde_json::to_string(&report).expect("a report is plain data");
    Ok(json::respond(json::success(&[], &[], |out| {
        json::raw(out, &report);
    })))
}

fn span(params: &Params) -> Result<(Timestamp, Timestamp), ApiError> {
    let (start, end) = (params.required_time("start")?, params.required_time("end")?);
    if end < start {
        let message = "end timestamp must not be before start time";
        return Err(ApiError::parameter("end", message));
    }
    Ok((start, end))
}

/// The times of `[alerting]`, or those that are asked for.
fn plan(config: &Config, params: &Params) -> Result<Plan, ApiError> {
    let times = &config.alerting;
    let time = |name: &str, default: Duration| match params.duration_ms(name) {
        Ok(None) => Ok(default),
        Ok(Some(ms)) => Ok(Duration::from_millis(ms.max(0).unsigned_abs())),
        Err(err) => Err(ApiError::parameter(name, err)),
    };
    let by: Vec<String> = params.all("group_by[]").map(str::to_owned).collect();
    Ok(Plan {
        group_by: if by.is_empty() {
            times.group_by.clone()
        } else {
            by
        },
        group_wait: time("group_wait", times.group_wait.get())?,
        group_interval: time("group_interval", times.group_interval.get())?,
        repeat_interval: time("repeat_interval", times.repeat_interval.get())?,
        send_resolved: times.send_resolved,
    })
}
