//! `/api/v1/targets`: our sources, in the form in which Prometheus shows its targets.

use std::collections::BTreeSet;

use axum::extract::State;
use axum::response::Response;

use super::json::{self, Object};
use super::params::Params;
use super::status::known_metadata;
use crate::model::Labels;
use crate::promql;
use crate::sources::{SourceState, SourceView};
use crate::web::Context;
use crate::web::error::ApiError;

/// The sources as active targets; nothing is ever dropped. Prometheus takes an
/// unknown `state` for one that no target has, which hides a typo.
pub async fn targets(State(context): State<Context>, params: Params) -> Result<Response, ApiError> {
    let state = params.get("state");
    let sources = match state.to_ascii_lowercase().as_str() {
        "" | "any" | "active" => context.board.list(),
        "dropped" => Vec::new(),
        _ => {
            let message = format!("not supported value {state:?}, must be active, dropped or any");
            return Err(ApiError::parameter("state", message));
        }
    };
    let pool = params.get("scrapePool");
    let wanted = |source: &&SourceView| pool.is_empty() || source.kind == pool;
    Ok(json::respond(json::success(&[], &[], |out| {
        let mut data = Object::new(out);
        json::array(
            data.field("activeTargets"),
            sources.iter().filter(wanted),
            write_source,
        );
        json::raw(data.field("droppedTargets"), "[]");
        json::raw(data.field("droppedTargetCounts"), "{}");
        data.end();
    })))
}

/// The kinds of sources, under which their targets stand.
pub async fn scrape_pools(State(context): State<Context>) -> Response {
    let pools: BTreeSet<&str> = context.board.list().iter().map(|s| s.kind).collect();
    json::respond(json::success(&[], &[], |out| {
        let mut data = Object::new(out);
        json::array(data.field("scrapePools"), pools, |out, pool: &str| {
            json::string(out, pool);
        });
        data.end();
    }))
}

/// What sources told about metrics. Which source told it is not kept, so that every
/// metric stands under the whole server; `match_target` that does not match it
/// leaves nothing.
pub async fn metadata(
    State(context): State<Context>,
    params: Params,
) -> Result<Response, ApiError> {
    let limit = params.entries("limit")?;
    let wanted = params.get("metric").to_owned();
    let target = Labels::from_pairs([("job", "pulse")]);
    let matchers = match params.get("match_target") {
        "" => Vec::new(),
        text => {
            promql::parse_selector(text)
                .map_err(|err| ApiError::parse("match_target", &err))?
                .matchers
        }
    };
    let matches = matchers.iter().all(|m| m.matches_labels(&target));
    let store = context.store.clone();
    let timeout = context.config().query.timeout.get();
    let run = context.lists.run(timeout, move |_| {
        let limit = if matches { limit } else { 0 };
        let known = known_metadata(&store, &wanted, limit)?;
        Ok::<_, ApiError>(json::success(&[], &[], |out| {
            json::array(out, known, |out, (metric, metadata)| {
                let mut object = Object::new(out);
                object.pairs("target", target.iter());
                if wanted.is_empty() {
                    object.text("metric", &metric);
                }
                object
                    .text("type", &metadata.kind)
                    .text("help", &metadata.help)
                    .text("unit", &metadata.unit)
                    .end();
            });
        }))
    });
    run.await?.map(json::respond)
}

fn write_source(out: &mut Vec<u8>, source: &SourceView) {
    let (health, error) = match &source.state {
        SourceState::Connecting => ("unknown", ""),
        SourceState::Up => ("up", ""),
        SourceState::Down(error) => ("down", error.as_str()),
    };
    let discovered = [("__address__", source.url.as_str()), ("job", &source.name)];
    let labels = [("instance", source.url.as_str()), ("job", &source.name)];
    let last = source
        .last_message
        .map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |t| t.to_rfc3339());
    Object::new(out)
        .pairs("discoveredLabels", discovered)
        .pairs("labels", labels)
        .text("scrapePool", source.kind)
        .text("scrapeUrl", &source.url)
        .text("globalUrl", &source.url)
        .text("lastError", error)
        .text("lastScrape", &last)
        .number("lastScrapeDuration", 0.0)
        .text("health", health)
        .text("scrapeInterval", "0s")
        .text("scrapeTimeout", "0s")
        .end();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    #[test]
    fn a_source_that_is_down_shows_its_error() {
        let source = SourceView {
            name: "broker".to_owned(),
            kind: "mqtt",
            url: "mqtt://h:1883".to_owned(),
            guarantee: "at least once",
            state: SourceState::Down("refused".to_owned()),
            since: Timestamp::from_ms(0),
            last_message: None,
            messages: 0,
            connects: 0,
        };
        let mut out = Vec::new();
        write_source(&mut out, &source);
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["health"], "down");
        assert_eq!(value["lastError"], "refused");
        assert_eq!(value["labels"]["job"], "broker");
        assert_eq!(value["scrapePool"], "mqtt");
    }
}
