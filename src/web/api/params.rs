//! Request parameters as Prometheus takes them: query string and form together.

use std::time::Duration;

use axum::extract::{FromRequest, Query, Request};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::{Form, RequestExt as _};

use crate::model::{Matcher, Timestamp, duration};
use crate::promql;
use crate::web::error::ApiError;

/// The time that Prometheus prints for "from the beginning".
const MIN_TIME: &str = "-292273086-05-16T16:47:06Z";
/// And for "to the end".
const MAX_TIME: &str = "292277025-08-18T07:12:54.999999999Z";

type Pairs = Vec<(String, String)>;

/// The parameters of a request; those of the form come first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Params(Pairs);

impl<S: Send + Sync> FromRequest<S> for Params {
    type Rejection = Response;

    async fn from_request(request: Request, _: &S) -> Result<Params, Response> {
        let Query(in_uri) =
            Query::<Pairs>::try_from_uri(request.uri()).map_err(|err| malformed(&err))?;
        let is_form = request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.starts_with("application/x-www-form-urlencoded"));
        let mut pairs = Vec::new();
        if request.method() == Method::POST && is_form {
            let form = request.extract::<Form<Pairs>, _>().await;
            Form(pairs) = form.map_err(|err| match err.status() {
                StatusCode::PAYLOAD_TOO_LARGE => err.into_response(),
                _ => malformed(&err),
            })?;
        }
        pairs.extend(in_uri);
        Ok(Params(pairs))
    }
}

fn malformed(err: &dyn std::fmt::Display) -> Response {
    ApiError::bad_data(format!("error parsing form values: {err}")).into_response()
}

impl Params {
    /// The first value of a parameter; the empty text when it is not there.
    pub fn get(&self, name: &str) -> &str {
        self.0
            .iter()
            .find(|(n, _)| n == name)
            .map_or("", |(_, value)| value.as_str())
    }

    /// All values of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// A time, when the parameter is there.
    ///
    /// # Errors
    /// When it is neither seconds nor RFC 3339.
    pub fn time(&self, name: &str) -> Result<Option<Timestamp>, ApiError> {
        match self.get(name) {
            "" => Ok(None),
            text => parse_time(text)
                .map(Some)
                .ok_or_else(|| ApiError::parameter(name, cannot_be_a_timestamp(text))),
        }
    }

    /// A time that must be there, as `query_range` wants it.
    ///
    /// # Errors
    /// When it is neither seconds nor RFC 3339.
    pub fn required_time(&self, name: &str) -> Result<Timestamp, ApiError> {
        let text = self.get(name);
        parse_time(text).ok_or_else(|| ApiError::parameter(name, cannot_be_a_timestamp(text)))
    }

    /// `time` of an instant query, whose error is worded differently.
    ///
    /// # Errors
    /// When it is neither seconds nor RFC 3339.
    pub fn evaluation_time(&self, now: Timestamp) -> Result<Timestamp, ApiError> {
        match self.get("time") {
            "" => Ok(now),
            text => parse_time(text).ok_or_else(|| {
                let message = cannot_be_a_timestamp(text);
                ApiError::parameter("time", format!("Invalid time value for 'time': {message}"))
            }),
        }
    }

    /// A duration: seconds or as in Prometheus; `None` when the parameter is not there.
    ///
    /// # Errors
    /// With the text that is neither.
    pub fn duration_ms(&self, name: &str) -> Result<Option<i64>, String> {
        match self.get(name) {
            "" => Ok(None),
            text => parse_duration_ms(text)
                .map(Some)
                .ok_or_else(|| format!("cannot parse {text:?} to a valid duration")),
        }
    }

    /// `limit`; no limit when it is not there or 0.
    ///
    /// # Errors
    /// When it is not a number.
    pub fn limit(&self) -> Result<usize, ApiError> {
        match self.get("limit") {
            "" | "0" => Ok(usize::MAX),
            text => match text.parse::<i64>() {
                Ok(limit) => usize::try_from(limit)
                    .map_err(|_| ApiError::parameter("limit", "limit must be non-negative")),
                Err(_) => {
                    let message = format!("strconv.Atoi: parsing {text:?}: invalid syntax");
                    Err(ApiError::parameter("limit", message))
                }
            },
        }
    }

    /// `limit` of the lists of metadata: no limit when it is not there or negative,
    /// nothing when it is 0.
    ///
    /// # Errors
    /// When it is not a number.
    pub fn entries(&self) -> Result<usize, ApiError> {
        match self.get("limit") {
            "" => Ok(usize::MAX),
            text => match text.parse::<i64>() {
                Ok(limit) => Ok(usize::try_from(limit).unwrap_or(usize::MAX)),
                Err(_) => Err(ApiError::bad_data("limit must be a number")),
            },
        }
    }

    /// The selectors of `match[]`.
    ///
    /// # Errors
    /// With the place in the first that does not parse.
    pub fn selectors(&self) -> Result<Vec<Vec<Matcher>>, ApiError> {
        self.all("match[]")
            .map(|text| {
                promql::parse_selector(text)
                    .map(|selector| selector.matchers)
                    .map_err(|err| ApiError::parse("match[]", &err))
            })
            .collect()
    }
}

fn cannot_be_a_timestamp(text: &str) -> String {
    format!("cannot parse {text:?} to a valid timestamp")
}

/// Seconds since the epoch with a fraction, or RFC 3339.
fn parse_time(text: &str) -> Option<Timestamp> {
    if let Ok(secs) = text.parse::<f64>() {
        return secs.is_finite().then(|| Timestamp::from_secs_f64(secs));
    }
    match text {
        MIN_TIME => return Some(Timestamp::MIN),
        MAX_TIME => return Some(Timestamp::MAX),
        _ => {}
    }
    let time: jiff::Timestamp = text.parse().ok()?;
    Some(Timestamp::from_ms(time.as_millisecond()))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "checked to be far within the range"
)]
fn parse_duration_ms(text: &str) -> Option<i64> {
    if let Ok(secs) = text.parse::<f64>() {
        let ms = (secs * 1000.0).round();
        return (ms.abs() < 9e15).then_some(ms as i64);
    }
    i64::try_from(duration::parse_ms(text).ok()?).ok()
}

/// Milliseconds as a duration, when they are more than none.
pub fn positive(ms: i64) -> Option<Duration> {
    u64::try_from(ms)
        .ok()
        .filter(|ms| *ms > 0)
        .map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(pairs: &[(&str, &str)]) -> Params {
        Params(
            pairs
                .iter()
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
                .collect(),
        )
    }

    #[test]
    fn times_are_seconds_or_rfc3339() {
        for (text, want) in [
            ("0", Some(0)),
            ("1700000000.25", Some(1_700_000_000_250)),
            ("-1.5", Some(-1_500)),
            ("1e3", Some(1_000_000)),
            ("2015-07-01T20:10:51.781Z", Some(1_435_781_451_781)),
            ("2015-06-03T13:21:58.555+02:00", Some(1_433_330_518_555)),
            (MIN_TIME, Some(i64::MIN)),
            (MAX_TIME, Some(i64::MAX)),
            ("", None),
            ("foo", None),
            ("NaN", None),
            ("30s", None),
            ("2015-07-01", None),
        ] {
            assert_eq!(parse_time(text).map(Timestamp::as_ms), want, "{text}");
        }
    }

    #[test]
    fn durations_are_seconds_or_units() {
        for (text, want) in [
            ("15", Some(15_000)),
            ("0.5", Some(500)),
            ("-1", Some(-1_000)),
            ("1m30s", Some(90_000)),
            ("1e30", None),
            ("x", None),
            ("NaN", None),
            ("-5s", None),
        ] {
            assert_eq!(parse_duration_ms(text), want, "{text}");
        }
    }

    #[test]
    fn errors_are_worded_as_in_prometheus() {
        let params = params(&[("start", "foo"), ("time", "bar"), ("limit", "x")]);
        assert_eq!(
            params.required_time("start").unwrap_err().message,
            "invalid parameter \"start\": cannot parse \"foo\" to a valid timestamp"
        );
        assert_eq!(
            params.required_time("end").unwrap_err().message,
            "invalid parameter \"end\": cannot parse \"\" to a valid timestamp"
        );
        assert_eq!(
            params.evaluation_time(Timestamp::MIN).unwrap_err().message,
            "invalid parameter \"time\": Invalid time value for 'time': \
             cannot parse \"bar\" to a valid timestamp"
        );
        assert_eq!(
            params.limit().unwrap_err().message,
            "invalid parameter \"limit\": strconv.Atoi: parsing \"x\": invalid syntax"
        );
        assert_eq!(
            params.entries().unwrap_err().message,
            "limit must be a number"
        );
    }

    #[test]
    fn a_limit_is_not_negative_and_nothing_is_no_limit() {
        let limit = |text| params_of_limit(text).limit().ok();
        assert_eq!(limit("0"), Some(usize::MAX));
        assert_eq!(limit("2"), Some(2));
        assert_eq!(limit("-1"), None);
        // Lists of metadata have their own way.
        let entries = |text| params_of_limit(text).entries().ok();
        assert_eq!(entries("0"), Some(0));
        assert_eq!(entries("-1"), Some(usize::MAX));
    }

    fn params_of_limit(text: &str) -> Params {
        params(&[("limit", text)])
    }
}
