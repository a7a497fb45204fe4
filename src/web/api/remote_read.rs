//! `/api/v1/read`: raw samples for a Prometheus that reads from us.
//!
//! An answer is whole in memory before its first byte goes out, also one that is
//! streamed: series have to be sorted, the store gives them in its own order, and a
//! mistake or a limit is told by a status rather than by a stream that ends early.
//! Chunks take a tenth of what samples take.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use hashbrown::HashMap;

use crate::codec::remote_read::{self, AnswerKind, QueryResult};
use crate::codec::remote_write;
use crate::codec::streamed::{self, ChunkedResult};
use crate::model::{HistogramSample, Labels, MatchOp, Matcher, Sample, Timestamp};
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
    let request =
        remote_read::request(&message).map_err(|err| ApiError::bad_data(err.to_string()))?;
    if request.queries.len() > QUERIES_MAX {
        let message = format!("more than {QUERIES_MAX} queries in one request");
        return Err(ApiError::bad_data(message));
    }
    let timeout = context.config().query.timeout.get();
    let reader = Reader {
        context: context.clone(),
        external: external_labels(&context),
    };
    let run = context
        .lists
        .run(timeout, move |cancel| match request.kind {
            AnswerKind::Samples => reader.samples(request.queries, cancel),
            AnswerKind::Chunks => reader.chunks(request.queries, cancel),
        });
    run.await?
}

/// What every series of ours has besides its own labels.
pub(super) fn external_labels(context: &Context) -> Labels {
    Labels::from_pairs(context.config().global.external_labels.iter())
}

struct Reader {
    context: Context,
    external: Labels,
}

/// What is done with a series of the question with this number; says how many bytes its
/// answer has then.
type Take<'a> = dyn FnMut(usize, &Labels, &[Sample], &[HistogramSample]) -> usize + Send + 'a;

/// The same for one question.
type TakeOne<'a> = dyn FnMut(&Labels, &[Sample], &[HistogramSample]) -> usize + Send + 'a;

impl Reader {
    fn samples(
        &self,
        queries: Vec<remote_read::Query>,
        cancel: &Cancel,
    ) -> Result<Response, ApiError> {
        let mut results: Vec<QueryResult> = Vec::new();
        results.resize_with(queries.len(), QueryResult::default);
        self.answers(queries, cancel, &mut |at, labels, samples, native| {
            results[at].push(labels, samples, native);
            results[at].size()
        })?;
        let headers = [
            (header::CONTENT_TYPE, "application/x-protobuf"),
            (header::CONTENT_ENCODING, "snappy"),
        ];
        Ok((headers, remote_read::answer(&results)).into_response())
    }

    fn chunks(
        &self,
        queries: Vec<remote_read::Query>,
        cancel: &Cancel,
    ) -> Result<Response, ApiError> {
        let mut results: Vec<_> = (0..queries.len()).map(ChunkedResult::new).collect();
        self.answers(queries, cancel, &mut |at, labels, samples, native| {
            results[at].push(labels, samples, native);
            results[at].size()
        })?;
        let pieces = results.into_iter().flat_map(ChunkedResult::into_pieces);
        let pieces = pieces.map(|piece| Ok::<_, std::convert::Infallible>(Bytes::from(piece)));
        let body = Body::from_stream(futures_util::stream::iter(pieces));
        let headers = [(header::CONTENT_TYPE, streamed::CONTENT_TYPE)];
        Ok((headers, body).into_response())
    }

    /// Answers the questions in their order, all together within [`ANSWER_BYTES_MAX`].
    fn answers(
        &self,
        queries: Vec<remote_read::Query>,
        cancel: &Cancel,
        take: &mut Take<'_>,
    ) -> Result<(), ApiError> {
        let mut room = ANSWER_BYTES_MAX;
        for (at, query) in queries.into_iter().enumerate() {
            let mut size = 0;
            self.each(query, room, cancel, &mut |labels, samples, native| {
                size = take(at, labels, samples, native);
                size
            })?;
            room -= size.min(room);
        }
        Ok(())
    }

    /// Hands over the series of a question, each once, in any order, until the answer
    /// has more bytes than there is room for.
    fn each(
        &self,
        mut query: remote_read::Query,
        room: usize,
        cancel: &Cancel,
        take: &mut TakeOne<'_>,
    ) -> Result<(), ApiError> {
        query.matchers.retain(|m| !self.is_external(m));
        let options = &self.context.engine.options;
        let hints = SelectHints {
            reduce: None,
            any_times: false,
            at_hand: false,
            gaps: None,
            series_max: options.series_max,
            samples_max: options.samples_max,
            newest_only: false,
            cancel: cancel.clone(),
        };
        let (start, end) = (
            Timestamp::from_ms(query.start),
            Timestamp::from_ms(query.end),
        );
        let mut full = false;
        let mut push = |labels: &Labels, samples: &[Sample], native: &[HistogramSample]| {
            full = take(&with_external(labels, &self.external), samples, native) > room;
            if full {
                return Err(QueryError::TooManySamples);
            }
            Ok(())
        };
        let store = &self.context.store;
        let native = store.histograms(start, end, &query.matchers, &hints)?;
        let native = native.into_iter().map(|one| (one.labels, one.samples));
        let mut native: HashMap<Labels, Vec<HistogramSample>> = native.collect();
        let read = store.for_each(
            start,
            end,
            &query.matchers,
            &hints,
            &mut [&mut |labels, samples| {
                // The end of a series of histograms is a float.
                let native = native.remove(labels).unwrap_or_default();
                push(labels, samples, &native)
            }],
        );
        let mut rest = || {
            native
                .iter()
                .try_for_each(|(labels, all)| push(labels, &[], all))
        };
        let read = read.and_then(|()| rest());
        if full {
            let message = format!("the answer is larger than {ANSWER_BYTES_MAX} bytes");
            return Err(EvalError::Execution(message).into());
        }
        Ok(read?)
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
