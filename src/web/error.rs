//! Errors of the API in Prometheus' form: `{"status":"error","errorType":..,"error":..}`.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::api::json;
use super::context::GateError;
use crate::promql::{EvalError, ParseError, QueryError};
use crate::store;

/// Prometheus' kinds of errors, each with its status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorType {
    /// The request is wrong.
    BadData,
    /// The query makes no sense on this data, or is too large.
    Execution,
    /// The client gave up.
    Canceled,
    /// The time ran out.
    Timeout,
    /// Our fault.
    Internal,
    /// There is no such thing.
    NotFound,
    /// Not at this moment, or switched off.
    Unavailable,
    /// Who asks has not shown that they may.
    Unauthorized,
}

impl ErrorType {
    fn as_str(self) -> &'static str {
        match self {
            ErrorType::BadData => "bad_data",
            ErrorType::Execution => "execution",
            ErrorType::Canceled => "canceled",
            ErrorType::Timeout => "timeout",
            ErrorType::Internal => "internal",
            ErrorType::NotFound => "not_found",
            ErrorType::Unavailable => "unavailable",
            ErrorType::Unauthorized => "unauthorized",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            ErrorType::BadData => StatusCode::BAD_REQUEST,
            ErrorType::Execution => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorType::Canceled | ErrorType::Timeout | ErrorType::Unavailable => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            ErrorType::Unauthorized => StatusCode::UNAUTHORIZED,
            ErrorType::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            ErrorType::NotFound => StatusCode::NOT_FOUND,
        }
    }
}

/// An error that the API answers with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ApiError {
    /// Decides the status.
    pub kind: ErrorType,
    /// In Prometheus' words where it has them.
    pub message: String,
}

impl ApiError {
    /// The request is wrong.
    pub fn bad_data(message: impl Into<String>) -> ApiError {
        ApiError {
            kind: ErrorType::BadData,
            message: message.into(),
        }
    }

    /// A parameter of the request is wrong.
    pub fn parameter(name: &str, message: impl std::fmt::Display) -> ApiError {
        ApiError::bad_data(format!("invalid parameter \"{name}\": {message}"))
    }

    /// A query or a selector in a parameter does not parse.
    pub fn parse(name: &str, err: &ParseError) -> ApiError {
        ApiError::parameter(name, err)
    }

    /// It cannot be done at this moment, or is switched off.
    pub fn unavailable(message: impl Into<String>) -> ApiError {
        ApiError::new(ErrorType::Unavailable, message)
    }

    /// Who asks has not shown that they may.
    pub fn unauthorized(message: impl Into<String>) -> ApiError {
        ApiError::new(ErrorType::Unauthorized, message)
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> ApiError {
        ApiError::new(ErrorType::NotFound, message)
    }

    fn new(kind: ErrorType, message: impl Into<String>) -> ApiError {
        ApiError {
            kind,
            message: message.into(),
        }
    }
}

impl From<GateError> for ApiError {
    fn from(err: GateError) -> ApiError {
        match err {
            GateError::Busy => ApiError::new(ErrorType::Timeout, "query timed out in query queue"),
            GateError::TimedOut => ApiError::new(
                ErrorType::Timeout,
                "query timed out in expression evaluation",
            ),
            GateError::Failed => ApiError::new(ErrorType::Internal, err.to_string()),
        }
    }
}

impl From<EvalError> for ApiError {
    fn from(err: EvalError) -> ApiError {
        match err {
            EvalError::Query(err) => err.into(),
            EvalError::Type(_) => ApiError::bad_data(err.to_string()),
            EvalError::Length(_) => ApiError::parameter("query", err),
            other => ApiError::new(ErrorType::Execution, other.to_string()),
        }
    }
}

impl From<QueryError> for ApiError {
    fn from(err: QueryError) -> ApiError {
        let kind = match &err {
            QueryError::TooManySeries(_) | QueryError::TooManySamples => ErrorType::Execution,
            QueryError::Cancelled => ErrorType::Canceled,
            QueryError::NotAtHand | QueryError::Store(_) => ErrorType::Internal,
        };
        logged(kind, &err);
        ApiError::new(kind, err.to_string())
    }
}

impl From<store::Error> for ApiError {
    fn from(err: store::Error) -> ApiError {
        logged(ErrorType::Internal, &err);
        ApiError::new(ErrorType::Internal, err.to_string())
    }
}

/// What is our fault is logged with its cause; the client sees no file names.
fn logged(kind: ErrorType, err: &dyn std::error::Error) {
    if kind == ErrorType::Internal {
        let cause = err.source().map(ToString::to_string);
        tracing::error!(error = %err, cause, "request failed");
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut body = Vec::new();
        body.extend_from_slice(b"{\"status\":\"error\",\"errorType\":\"");
        body.extend_from_slice(self.kind.as_str().as_bytes());
        body.extend_from_slice(b"\",\"error\":");
        json::html_safe_string(&mut body, &self.message);
        body.push(b'}');
        let headers = [(header::CONTENT_TYPE, "application/json")];
        (self.kind.status(), headers, body).into_response()
    }
}
