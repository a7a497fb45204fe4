//! `/api/v1/rules/backtest`: what a rule file would have done over stored history.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;

use super::json;
use super::params::Params;
use crate::alerting::Plans;
use crate::config::Config;
use crate::model::Timestamp;
use crate::rules::backtest;
use crate::rules::{self, file};
use crate::web::Context;
use crate::web::error::ApiError;

/// The file that rules are taken to stand in when none is named.
const FILE: &str = "backtest.yml";

/// Takes the text of a rule file as `rules`, its path as `file` (groups run at
/// slots that hang on it), `start` and `end`; and, to change by what the configured
/// routes tell, `group_by[]`, `group_wait`, `group_interval`, `repeat_interval`.
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
    let plans = plans(&config, &params)?;
    let store = context.store.clone();
    let run = context.gate.run(config.query.timeout.get(), move |cancel| {
        backtest::run(&store, groups, &settings, &plans, (start, end), cancel)
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

/// The times of the routes, or those that are asked for.
fn plans(config: &Config, params: &Params) -> Result<Plans, ApiError> {
    let time = |name: &str| match params.duration_ms(name) {
        Ok(asked) => Ok(asked.map(|ms| Duration::from_millis(ms.max(0).unsigned_abs()))),
        Err(err) => Err(ApiError::parameter(name, err)),
    };
    let by: Vec<String> = params.all("group_by[]").map(str::to_owned).collect();
    let wait = time("group_wait")?;
    let interval = time("group_interval")?;
    let repeat = time("repeat_interval")?;
    let mut plans = Plans::of(config);
    for plan in &mut plans.all {
        if !by.is_empty() {
            plan.group_by.clone_from(&by);
        }
        plan.group_wait = wait.unwrap_or(plan.group_wait);
        plan.group_interval = interval.unwrap_or(plan.group_interval);
        plan.repeat_interval = repeat.unwrap_or(plan.repeat_interval);
    }
    Ok(plans)
}
