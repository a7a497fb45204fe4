//! Whose data it is.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A tenant's name: 1 to 128 characters of `[A-Za-z0-9._:-]`.
///
/// The label that carries it is always `tenant_id`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TenantId(Arc<str>);

/// The label that names a series' tenant.
pub const TENANT_LABEL: &str = "tenant_id";

/// The tenant of messages whose topic or path names none.
pub const DEFAULT_TENANT: &str = "default";

/// Whether `text` may stand as a tenant, a device or another topic-made label value.
pub fn is_valid_name(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-'))
}

/// Whether we give this name out ourselves, as in `__overflow__`: nobody else may send
/// under it, nor can it be configured.
pub fn is_reserved(name: &str) -> bool {
    name.starts_with("__")
}

/// A name that is not 1 to 128 characters of `[A-Za-z0-9._:-]`.
#[derive(Debug, thiserror::Error)]
#[error("expected 1 to 128 characters of [A-Za-z0-9._:-]")]
pub struct InvalidTenant;

impl TenantId {
    /// Checks and takes a tenant name.
    ///
    /// # Errors
    /// When the name is empty, too long or has other characters.
    pub fn new(name: &str) -> Result<TenantId, InvalidTenant> {
        if is_valid_name(name) {
            Ok(TenantId(Arc::from(name)))
        } else {
            Err(InvalidTenant)
        }
    }

    /// The tenant `default`.
    pub fn default_tenant() -> TenantId {
        TenantId(Arc::from(DEFAULT_TENANT))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for TenantId {
    type Error = InvalidTenant;

    fn try_from(name: String) -> Result<TenantId, InvalidTenant> {
        TenantId::new(&name)
    }
}

impl From<TenantId> for String {
    fn from(id: TenantId) -> String {
        id.0.to_string()
    }
}

impl std::borrow::Borrow<str> for TenantId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_could_be_injected() {
        for bad in ["", "a b", "a/b", "a\"b", "ä", &"x".repeat(129)] {
            assert!(TenantId::new(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "Acme-1.b:c_d", &"x".repeat(128)] {
            assert!(TenantId::new(good).is_ok(), "{good:?}");
        }
    }
}
