//! What a sender is told: a status, and a line of text that it can log.

use axum::http::StatusCode;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::response::{IntoResponse, Response};

use super::super::caller::{BodyFault, Denied};
use super::collect::Refused;
use crate::telemetry::metrics::{PushReason, Reason};

/// Why a request was not stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Failure {
    status: StatusCode,
    what: String,
}

impl Failure {
    fn new(status: StatusCode, what: &str) -> Failure {
        let what = what.to_owned();
        Failure { status, what }
    }

    /// It cannot be read, and never will be.
    pub(super) fn bad(what: &str) -> Failure {
        Failure::new(StatusCode::BAD_REQUEST, what)
    }

    /// It is too large.
    pub(super) fn too_large(what: &str) -> Failure {
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, what)
    }

    /// It is of a form that we do not speak.
    pub(super) fn unsupported(what: &str) -> Failure {
        Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, what)
    }

    /// It came too soon.
    pub(super) fn too_soon(what: &str) -> Failure {
        Failure::new(StatusCode::TOO_MANY_REQUESTS, what)
    }

    /// It shall come again.
    pub(super) fn again(what: &str) -> Failure {
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, what)
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Failure {
        match denied {
            Denied::Bound(_) => Failure::new(
                StatusCode::FORBIDDEN,
                "the token is bound to another tenant",
            ),
            Denied::Unauthorized => Failure::new(
                StatusCode::UNAUTHORIZED,
                "a bearer token of this tenant or of the operator is needed",
            ),
        }
    }
}

impl From<BodyFault> for Failure {
    fn from(fault: BodyFault) -> Failure {
        let status = match fault {
            BodyFault::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            BodyFault::Broken => StatusCode::BAD_REQUEST,
            BodyFault::Late => StatusCode::REQUEST_TIMEOUT,
        };
        Failure::new(status, fault.as_str())
    }
}

/// Why a tenant may not push now.
impl From<Reason> for Failure {
    fn from(reason: Reason) -> Failure {
        match reason {
            Reason::Quota => Failure::new(
                StatusCode::TOO_MANY_REQUESTS,
                "the tenant is over its messages per second",
            ),
            _ => Failure::new(StatusCode::FORBIDDEN, "the tenant is switched off"),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.what + "\n").into_response();
        let header = match self.status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => (RETRY_AFTER, "1"),
            StatusCode::UNAUTHORIZED => (WWW_AUTHENTICATE, "Bearer"),
            _ => return response,
        };
        let value = axum::http::HeaderValue::from_static(header.1);
        response.headers_mut().insert(header.0, value);
        response
    }
}

/// The answer to a request that was read: 204, or 400 when samples of it are
/// refused. Exemplars that were left out are no reason to complain.
pub(super) fn stored(refused: &Refused) -> Response {
    let reasons: Vec<String> = refused
        .iter()
        .filter(|(reason, _)| *reason != PushReason::Exemplar)
        .map(|(reason, count)| format!("{count} {}", reason.as_str()))
        .collect();
    if reasons.is_empty() {
        return StatusCode::NO_CONTENT.into_response();
    }
    let reasons = reasons.join(", ");
    let text = format!("some samples were refused ({reasons}), all others are stored\n");
    (StatusCode::BAD_REQUEST, text).into_response()
}
