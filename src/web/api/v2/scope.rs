//! Whose alerts a request may see and change.

use axum::extract::{FromRef, FromRequestParts};
use axum::http::request::Parts;

use super::answer::Error;
use crate::model::tenant::TENANT_LABEL;
use crate::model::{Labels, Matcher};
use crate::web::Front;

/// Who asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Scope {
    /// The operator: everything.
    Operator,
    /// A tenant by its own token: what carries its `tenant_id`.
    Tenant(String),
}

impl Scope {
    /// Whether an alert with these labels is theirs.
    pub fn covers(&self, labels: &Labels) -> bool {
        match self {
            Scope::Operator => true,
            Scope::Tenant(id) => labels.value(TENANT_LABEL) == id,
        }
    }

    /// The name under which silences are kept; empty for the operator.
    pub fn tenant(&self) -> &str {
        match self {
            Scope::Operator => "",
            Scope::Tenant(id) => id,
        }
    }

    /// The condition that a tenant's alerts fulfil.
    pub fn matcher(&self) -> Option<Matcher> {
        match self {
            Scope::Operator => None,
            Scope::Tenant(id) => Some(Matcher::equal(TENANT_LABEL, id)),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Scope
where
    Front: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Scope, Error> {
        let front = Front::from_ref(state);
        front.access().scope(&parts.headers).ok_or(Error::Auth)
    }
}
