//! Request parameters as Prometheus takes them: query string and form together.

use std::sync::LazyLock;
use std::time::Duration;

use axum::RequestExt as _;
use axum::extract::{FromRequest, Request};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use jiff::civil::DateTime;
use regex::Regex;

use crate::model::{Matcher, Timestamp, duration};
use crate::promql;
use crate::web::error::ApiError;

/// The time that Prometheus prints for "from the beginning".
const MIN_TIME: &str = "-292273086-05-16T16:47:06Z";
/// And for "to the end".
const MAX_TIME: &str = "292277025-08-18T07:12:54.999999999Z";

/// What a form says that it is.
const FORM: &str = "application/x-www-form-urlencoded";

type Pairs = Vec<(String, String)>;

/// The parameters of a request; those of the form come first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Params(Pairs);

impl<S: Send + Sync> FromRequest<S> for Params {
    type Rejection = Response;

    async fn from_request(request: Request, _: &S) -> Result<Params, Response> {
        let refused = |err: ApiError| err.into_response();
        let in_uri = request.uri().query().unwrap_or_default();
        let mut in_uri = pairs_of(in_uri.as_bytes()).map_err(refused)?;
        let is_form = request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split(';').next())
            .is_some_and(|kind| kind.trim().eq_ignore_ascii_case(FORM));
        let mut pairs = Vec::new();
        if request.method() == Method::POST && is_form {
            let form = request.extract::<Bytes, _>().await;
            let form = form.map_err(|err| match err.status() {
                StatusCode::PAYLOAD_TOO_LARGE => err.into_response(),
                _ => refused(malformed(&err)),
            })?;
            pairs = pairs_of(&form).map_err(refused)?;
        }
        pairs.append(&mut in_uri);
        Ok(Params(pairs))
    }
}

/// The pairs of a query string or a form. What is no escape and what comes to no text is
/// refused: read in some other way it would be another query.
fn pairs_of(encoded: &[u8]) -> Result<Pairs, ApiError> {
    check_escapes(encoded).map_err(|err| malformed(&err))?;
    Ok(form_urlencoded::parse(encoded).into_owned().collect())
}

fn check_escapes(encoded: &[u8]) -> Result<(), String> {
    let mut parts = encoded.split(|byte| *byte == b'%');
    let mut text = parts.next().unwrap_or_default().to_vec();
    for part in parts {
        let digits = part
            .first_chunk()
            .filter(|d| d.iter().all(u8::is_ascii_hexdigit));
        let Some(digits @ [_, _]) = digits else {
            let shown = String::from_utf8_lossy(&part[..part.len().min(2)]);
            return Err(format!("invalid URL escape \"%{shown}\""));
        };
        let digit = |at: usize| char::from(digits[at]).to_digit(16);
        let value = digit(0).zip(digit(1)).map(|(high, low)| high * 16 + low);
        text.extend(value.and_then(|value| u8::try_from(value).ok()));
        text.extend_from_slice(&part[2..]);
    }
    let checked = std::str::from_utf8(&text);
    checked.map(drop).map_err(|_| "not UTF-8".to_owned())
}

fn malformed(err: &dyn std::fmt::Display) -> ApiError {
    ApiError::bad_data(format!("error parsing form values: {err}"))
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
                .ok_or_else(|| ApiError::parameter(name, no_time(name, text))),
        }
    }

    /// A time that must be there, as `query_range` wants it, with its words.
    ///
    /// # Errors
    /// When it is neither seconds nor RFC 3339.
    pub fn required_time(&self, name: &str) -> Result<Timestamp, ApiError> {
        let text = self.get(name);
        parse_time(text).ok_or_else(|| ApiError::parameter(name, cannot_be_a_timestamp(text)))
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

    /// A limit of the lists of metadata: none when it is not there or negative, nothing
    /// when it is 0.
    ///
    /// # Errors
    /// When it is not a number.
    pub fn entries(&self, name: &str) -> Result<usize, ApiError> {
        match self.get(name) {
            "" => Ok(usize::MAX),
            text => match text.parse::<i64>() {
                Ok(limit) => Ok(usize::try_from(limit).unwrap_or(usize::MAX)),
                Err(_) => Err(ApiError::bad_data(format!("{name} must be a number"))),
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
                let selector = promql::parse_selector(text);
                selector
                    .map(|s| s.matchers)
                    .map_err(|err| match err.message.as_str() {
                        promql::MATCHES_ALL => {
                            let message = "match[] must contain at least one non-empty matcher";
                            ApiError::parameter("match[]", message)
                        }
                        _ => ApiError::parse("match[]", &err),
                    })
            })
            .collect()
    }
}

fn no_time(name: &str, text: &str) -> String {
    let message = cannot_be_a_timestamp(text);
    format!("Invalid time value for '{name}': {message}")
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
    rfc3339_ms(text).map(Timestamp::from_ms)
}

/// RFC 3339 to the letter, as scripts that run here are to run elsewhere too; up to the
/// end of the year 9999, which people write for "for ever".
fn rfc3339_ms(text: &str) -> Option<i64> {
    static SHAPE: LazyLock<Regex> = LazyLock::new(|| {
        let date = "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-5][0-9](?:[.][0-9]+)?";
        let shape = format!("^({date})(?:Z|([+-][0-9]{{2}}):([0-9]{{2}}))$");
        Regex::new(&shape).expect("BUG: the shape of times")
    });
    let parts = SHAPE.captures(text)?;
    let local: DateTime = parts[1].parse().ok()?;
    let since = local.duration_since(DateTime::constant(1970, 1, 1, 0, 0, 0, 0));
    let offset_ms = match (parts.get(2), parts.get(3)) {
        (Some(hours), Some(minutes)) => {
            let (hours, minutes) = (hours.as_str(), minutes.as_str());
            let sign = if hours.starts_with('-') { -1 } else { 1 };
            let hours: i64 = hours.parse().ok().filter(|h: &i64| h.abs() < 24)?;
            let minutes: i64 = minutes.parse().ok().filter(|m| *m < 60)?;
            (hours * 60 + sign * minutes) * 60_000
        }
        _ => 0,
    };
    Some(i64::try_from(since.as_millis()).ok()? - offset_ms)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "checked to be far within the range"
)]
fn parse_duration_ms(text: &str) -> Option<i64> {
    if let Ok(secs) = text.parse::<f64>() {
        // As in Prometheus: whole nanoseconds, then whole milliseconds.
        let ns = secs * 1e9;
        return (ns.abs() < 9.2e18).then_some(ns as i64 / 1_000_000);
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
            ("9999-12-31T23:59:59Z", Some(253_402_300_799_000)),
            ("2015-07-01T20:10:51-00:30", Some(1_435_783_251_000)),
            ("2015-07-01T20:10Z", None),
            ("2015-07-01 20:10:51Z", None),
            ("2015-07-01T20:10:60Z", None),
            ("2015-02-30T20:10:51Z", None),
            ("2015-07-01T20:10:51+0200", None),
            ("2015-07-01T20:10:51+02:60", None),
            ("2015-07-01T20:10:51", None),
        ] {
            assert_eq!(parse_time(text).map(Timestamp::as_ms), want, "{text}");
        }
    }

    #[test]
    fn what_is_no_escape_is_refused() {
        let check = |text: &str, want: Result<(), &str>| {
            let found = check_escapes(text.as_bytes());
            assert_eq!(found, want.map_err(str::to_owned), "{text}");
        };
        check("query=up%20%2F%c3%a4&x=%25", Ok(()));
        check("query=up%4", Err("invalid URL escape \"%4\""));
        check("query=up%zz", Err("invalid URL escape \"%zz\""));
        check("%", Err("invalid URL escape \"%\""));
        check("query=%FF", Err("not UTF-8"));
        check("query=%c3&x=%a4", Err("not UTF-8"));
    }

    #[test]
    fn durations_are_seconds_or_units() {
        for (text, want) in [
            ("15", Some(15_000)),
            ("0.5", Some(500)),
            ("0.0015", Some(1)),
            ("0.29", Some(290)),
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
            params.time("time").unwrap_err().message,
            "invalid parameter \"time\": Invalid time value for 'time': \
             cannot parse \"bar\" to a valid timestamp"
        );
        assert_eq!(
            params.limit().unwrap_err().message,
            "invalid parameter \"limit\": strconv.Atoi: parsing \"x\": invalid syntax"
        );
        assert_eq!(
            params.entries("limit").unwrap_err().message,
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
        let entries = |text| params_of_limit(text).entries("limit").ok();
        assert_eq!(entries("0"), Some(0));
        assert_eq!(entries("-1"), Some(usize::MAX));
    }

    fn params_of_limit(text: &str) -> Params {
        params(&[("limit", text)])
    }
}
