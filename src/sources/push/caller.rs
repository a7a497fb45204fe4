//! Who pushes over HTTP, and the body of what is pushed.
//!
//! Who may push: a tenant's own token, for that tenant only; the operator's
//! token, for everything; and everyone, where neither is configured.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use subtle::ConstantTimeEq as _;

use crate::ingest::Ingest;
use crate::model::TenantId;

/// How long the client may take to send the body.
const BODY_WAIT: Duration = Duration::from_secs(30);

/// Who asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Caller {
    /// Whoever has this tenant's token.
    Tenant(TenantId),
    /// Whoever has the operator's token.
    Operator,
    /// Somebody without a credential, where the operator has no token.
    Anyone,
}

/// Why nobody is let in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Denied {
    /// The token is bound to this tenant, and another one was named.
    Bound(TenantId),
    /// There is no token, or a wrong one.
    Unauthorized,
}

/// Judges the credential of a request that pushes for `tenant`, or for no tenant
/// in particular.
pub(super) fn caller(
    ingest: &Ingest,
    operator_token: Option<&Arc<str>>,
    tenant: Option<&TenantId>,
    headers: &HeaderMap,
) -> Result<Caller, Denied> {
    let token = token(headers);
    let bound = token.as_deref().and_then(|t| ingest.tenant_of_token(t));
    if let Some(bound) = bound {
        return match tenant {
            Some(tenant) if *tenant != bound => Err(Denied::Bound(bound)),
            _ => Ok(Caller::Tenant(bound)),
        };
    }
    match operator_token {
        Some(wanted) => {
            let given = token.unwrap_or_default();
            let is_it = bool::from(wanted.as_bytes().ct_eq(given.as_bytes()));
            is_it.then_some(Caller::Operator)
        }
        None => {
            let is_held = tenant.is_some_and(|tenant| ingest.has_token(tenant));
            (!is_held).then_some(Caller::Anyone)
        }
    }
    .ok_or(Denied::Unauthorized)
}

/// The token of `Bearer TOKEN`, or the password of basic authentication.
fn token(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(BASE64.decode(rest.trim()).ok()?).ok()?;
    pair.split_once(':')
        .map(|(_, password)| password.to_owned())
}

/// Why there is no body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BodyFault {
    /// It is larger than allowed.
    TooLarge,
    /// It broke off, or cannot be unpacked.
    Broken,
    /// It did not come in time.
    Late,
}

impl BodyFault {
    /// What the client is told.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            BodyFault::TooLarge => "the body is larger than server.body_max",
            BodyFault::Broken => "the body cannot be read",
            BodyFault::Late => "the body did not come within 30 s",
        }
    }
}

/// Reads a body of at most `bytes_max` bytes within 30 s.
pub(super) async fn read_body(body: Body, bytes_max: usize) -> Result<Bytes, BodyFault> {
    let limited = Limited::new(body, bytes_max);
    match tokio::time::timeout(BODY_WAIT, limited.collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(err)) if is_too_large(&*err) => Err(BodyFault::TooLarge),
        Ok(Err(_)) => Err(BodyFault::Broken),
        Err(_) => Err(BodyFault::Late),
    }
}

fn is_too_large(err: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(err);
    while let Some(err) = cause {
        if err.is::<LengthLimitError>() {
            return true;
        }
        cause = err.source();
    }
    false
}
