//! `/api/v1/read`: raw samples for a Prometheus that reads from us.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};

use crate::codec::remote_read::{self, QueryResult};
use crate::codec::remote_write;
use crate::model::{Labels, MatchOp, Matcher, Timestamp};
use crate::promql::queryable::{QueryError, SelectHints};
use crate::promql::{EvalError, Queryable as _};
use crate::web::Context;
use crate::web::context::Cancel;
use crate::web::error::ApiError;

/// A question unpacks to no more than this.
const REQUEST_BYTES_MAX: usize = 1 << 20;
/// Questions of one request.
const QUERIES_MAX: usize = 100;
/// An answer is built in memory and may not take more than this.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Answers with the samples as they are stored. External labels belong to every
/// series: they are added to what goes out and taken off what is asked for.
pub async fn read(State(context): State<Context>, body: Bytes) -> Result<Response, ApiError> {
    let mut message = Vec::new();
    remote_write::unpack(&body, REQUEST_BYTES_MAX, &mut message)
        .map_err(|err| ApiError::bad_data(err.to_string()))?;
    let queries =
        remote_read::queries(&message).map_err(|err| ApiError::bad_data(err.to_string()))?;
    if queries.len() > QUERIES_MAX {
        let message = format!("more than {QUERIES_MAX} queries in one request");
        return Err(ApiError::bad_data(message));
    }
    let timeout = context.config().query.timeout.get();
    let reader = Reader {
        context: context.clone(),
        external: external_labels(&context),
    };
    let run = context.gate.run(timeout, move |cancel| {
        let mut results = Vec::with_capacity(queries.len());
        let mut room = ANSWER_BYTES_MAX;
        for query in queries {
            let result = reader.result(query, room, cancel)?;
            room -= result.size().min(room);
            results.push(result);
        }
        Ok::<_, ApiError>(remote_read::answer(&results))
    });
    let headers = [
        (header::CONTENT_TYPE, "application/x-protobuf"),
        (header::CONTENT_ENCODING, "snappy"),
    ];
    run.await?.map(|block| (headers, block).into_response())
}

/// What every series of ours has besides its own labels.
pub(super) fn external_labels(context: &Context) -> Labels {
    Labels::from_pairs(context.config().global.external_labels.iter())
}

struct Reader {
    context: Context,
    external: Labels,
}

impl Reader {
    fn result(
        &self,
        mut query: remote_read::Query,
        room: usize,
        cancel: &Cancel,
    ) -> Result<QueryResult, ApiError> {
        query.matchers.retain(|m| !self.is_external(m));
        let options = &self.context.engine.options;
        let hints = SelectHints {
            series_max: options.series_max,
            samples_max: options.samples_max,
            newest_only: false,
            cancel: cancel.clone(),
        };
        let mut result = QueryResult::default();
        let mut full = false;
        let (start, end) = (
            Timestamp::from_ms(query.start),
            Timestamp::from_ms(query.end),
        );
        let store = &self.context.store;
        for series in store.histograms(start, end, &query.matchers, &hints)? {
            let labels = with_external(&series.labels, &self.external);
            result.push(&labels, &[], &series.samples);
            full |= result.size() > room;
        }
        let read = store.for_each(
            start,
            end,
            &query.matchers,
            &hints,
            &mut [&mut |labels, samples| {
                result.push(&with_external(labels, &self.external), samples, &[]);
                full |= result.size() > room;
                if full {
                    return Err(QueryError::TooManySamples);
                }
                Ok(())
            }],
        );
        if full {
            let message = format!("the answer is larger than {ANSWER_BYTES_MAX} bytes");
            return Err(EvalError::Execution(message).into());
        }
        read?;
        Ok(result)
    }

    /// Whether a condition asks for an external label that all series have.
    fn is_external(&self, m: &Matcher) -> bool {
        m.op == MatchOp::Equal && !m.value.is_empty() && self.external.value(&m.name) == m.value
    }
}

/// A series' labels with the external ones that it does not have itself.
pub(super) fn with_external(labels: &Labels, external: &Labels) -> Labels {
    let mut missing = external
        .iter()
        .filter(|(name, _)| labels.value(name).is_empty())
        .peekable();
    if missing.peek().is_none() {
        return labels.clone();
    }
    let mut builder = labels.to_builder();
    for (name, value) in missing {
        builder.set(name, value);
    }
    builder.build()
}
