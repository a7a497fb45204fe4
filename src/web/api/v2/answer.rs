//! Answers and errors in the form of Alertmanager's API.

use std::borrow::Cow;

use axum::Json;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::alerting::SilenceError;
use crate::store;
use crate::web::api::json;

/// An error; semantic ones are a bare text, others carry a code.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Error {
    /// The request makes no sense.
    Bad(String),
    /// The body is not JSON of the wanted form.
    Unparsed(&'static str, String),
    /// The body lacks something: the code of the validator, and its message.
    Invalid(u16, String),
    /// A body of another type than JSON.
    MediaType(String),
    /// There is no such thing, with a text or without.
    NotFound(&'static str),
    /// No or a wrong token.
    Auth,
    /// Too many read as much at once.
    Busy,
    /// Our fault.
    Internal,
}

#[derive(Serialize)]
struct Coded<'a> {
    code: u16,
    message: &'a str,
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let coded = |status: StatusCode, code, message: &str| {
            (status, Json(Coded { code, message })).into_response()
        };
        match self {
            Error::Bad(text) => text_line(StatusCode::BAD_REQUEST, &text),
            Error::Unparsed(what, why) => {
                let text = format!("parsing {what} body from \"\" failed, because {why}");
                coded(StatusCode::BAD_REQUEST, 400, &text)
            }
            Error::Invalid(code, text) => coded(StatusCode::UNPROCESSABLE_ENTITY, code, &text),
            Error::MediaType(given) => {
                let text = format!(
                    "unsupported media type {given:?}, only [application/json] are allowed"
                );
                coded(StatusCode::UNSUPPORTED_MEDIA_TYPE, 415, &text)
            }
            Error::NotFound("") => StatusCode::NOT_FOUND.into_response(),
            Error::NotFound(text) => text_line(StatusCode::NOT_FOUND, text),
            Error::Auth => {
                let text = "a token is needed";
                coded(StatusCode::UNAUTHORIZED, 401, text)
            }
            Error::Busy => {
                let text = "too many read all alerts at once";
                text_line(StatusCode::SERVICE_UNAVAILABLE, text)
            }
            Error::Internal => {
                let text = "the store cannot be read or written";
                text_line(StatusCode::INTERNAL_SERVER_ERROR, text)
            }
        }
    }
}

/// A text of JSON, a line of its own.
fn text_line(status: StatusCode, text: &str) -> Response {
    let mut body = Vec::new();
    json::string(&mut body, text);
    body.push(b'\n');
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

impl From<store::Error> for Error {
    fn from(err: store::Error) -> Error {
        tracing::error!(error = %err, "request failed");
        Error::Internal
    }
}

impl From<SilenceError> for Error {
    fn from(err: SilenceError) -> Error {
        match err {
            SilenceError::NotFound => Error::NotFound("silence not found"),
            SilenceError::Store(err) => err.into(),
            other => Error::Bad(other.to_string()),
        }
    }
}

/// A body of JSON; `what` names it in errors. As in Go's decoder text behind the first
/// value says nothing.
///
/// # Errors
/// When there is none, when it is not JSON, or not of the wanted form.
pub(super) fn parsed<T: serde::de::DeserializeOwned>(
    what: &'static str,
    headers: &axum::http::HeaderMap,
    body: &[u8],
) -> Result<T, Error> {
    if body.trim_ascii().is_empty() {
        return Err(Error::Invalid(602, format!("{what} in body is required")));
    }
    let given = headers.get(header::CONTENT_TYPE);
    let given = given.and_then(|value| value.to_str().ok()).unwrap_or("");
    let kind = given.split(';').next().unwrap_or("").trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(Error::MediaType(given.to_owned()));
    }
    let body = whole(body);
    let mut values = serde_json::Deserializer::from_slice(&body);
    T::deserialize(&mut values).map_err(|err| Error::Unparsed(what, err.to_string()))
}

/// A body with U+FFFD for each byte that is no UTF-8, as Go's decoder reads it.
fn whole(body: &[u8]) -> Cow<'_, [u8]> {
    if std::str::from_utf8(body).is_ok() {
        return Cow::Borrowed(body);
    }
    let mut text = String::with_capacity(body.len() + 64);
    for chunk in body.utf8_chunks() {
        text.push_str(chunk.valid());
        for _ in chunk.invalid() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    Cow::Owned(text.into_bytes())
}

/// The answer to a path of no route: as Go's router, where the path that is meant is.
pub async fn unknown_path(uri: Uri) -> Response {
    let meant = cleaned(uri.path());
    if meant == uri.path() {
        let message = &format!("path {meant} was not found");
        return (StatusCode::NOT_FOUND, Json(Coded { code: 404, message })).into_response();
    }
    let query = uri
        .query()
        .map_or(String::new(), |query| format!("?{query}"));
    let place = [(header::LOCATION, format!("{meant}{query}"))];
    (StatusCode::MOVED_PERMANENTLY, place).into_response()
}

/// A path without empty parts, `.` and `..`. The root of the API ends with a slash.
fn cleaned(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let ends_open = path.ends_with('/') || parts == ["api", "v2"];
    let end = if ends_open && !parts.is_empty() {
        "/"
    } else {
        ""
    };
    format!("/{}{end}", parts.join("/"))
}

/// A flag of the query string as Alertmanager reads it: what is not yes is no.
pub(super) fn flag(text: Option<&str>) -> bool {
    let yes = [
        "true", "1", "yes", "ok", "y", "on", "selected", "checked", "t", "enabled",
    ];
    text.is_none_or(|text| yes.contains(&text.to_lowercase().as_str()))
}
