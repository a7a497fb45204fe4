//! Type, help and unit of metrics, as `/api/v1/metadata` shows them.
//!
//! Rows of `Table::Metadata`: the metric's name to this as JSON. Every source
//! that learns of types writes here; the last one to differ wins.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::store::{StateOp, Table};

/// What is known of a metric besides its samples.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Metadata {
    /// `counter`, `gauge`, `histogram`, `summary` or `unknown`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it is, for people.
    pub help: String,
    /// The base unit, or nothing.
    pub unit: String,
}

impl Metadata {
    /// Writes the row of this metric.
    pub fn put(&self, metric: &str) -> StateOp {
        StateOp::Put {
            table: Table::Metadata,
            key: Bytes::copy_from_slice(metric.as_bytes()),
            value: serde_json::to_vec(self).expect("plain data").into(),
        }
    }

    /// Reads a row; `None` when it is of no use.
    pub fn decode(key: &[u8], value: &[u8]) -> Option<(String, Metadata)> {
        let metric = String::from_utf8(key.to_vec()).ok()?;
        Some((metric, serde_json::from_slice(value).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_comes_back() {
        let metadata = Metadata {
            kind: "gauge".to_owned(),
            help: "Whether it is up.".to_owned(),
            unit: String::new(),
        };
        let StateOp::Put { key, value, .. } = metadata.put("up") else {
            panic!("a put");
        };
        let back = Metadata::decode(&key, &value);
        assert_eq!(back, Some(("up".to_owned(), metadata)));
        assert_eq!(Metadata::decode(b"up", b"{"), None);
    }
}
