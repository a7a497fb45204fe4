//! The dead letter of a refused message.

use ring::digest;

use super::decode::Refused;
use super::topic::TOPIC_BYTES_MAX;
use super::{Message, Origin};
use crate::model::delivery::{DEAD_LETTER_DETAIL_BYTES_MAX, DEAD_LETTER_PAYLOAD_BYTES_MAX};
use crate::model::{DeadLetter, Timestamp};

/// Stands before the 64 digits of a hash.
const HASH_NOTE: &str = "; payload cut, sha256 ";

/// What is kept of a message. A payload that is too long is cut, and its SHA-256
/// stands in the detail.
pub(super) fn dead_letter(
    origin: &Origin,
    message: &Message,
    tenant: &str,
    refused: &Refused,
    now: Timestamp,
) -> DeadLetter {
    let payload = &message.payload;
    let kept = payload.len().min(DEAD_LETTER_PAYLOAD_BYTES_MAX);
    let mut detail = refused.detail.clone();
    if kept < payload.len() {
        cut(
            &mut detail,
            DEAD_LETTER_DETAIL_BYTES_MAX - HASH_NOTE.len() - 64,
        );
        detail.push_str(HASH_NOTE);
        for byte in digest::digest(&digest::SHA256, payload).as_ref() {
            detail.push_str(&format!("{byte:02x}"));
        }
    }
    cut(&mut detail, DEAD_LETTER_DETAIL_BYTES_MAX);
    let mut topic = message.topic.clone();
    cut(&mut topic, TOPIC_BYTES_MAX);
    DeadLetter {
        source: origin.source.clone(),
        topic,
        tenant_id: tenant.to_owned(),
        received_at: now,
        reason: refused.reason.as_str().to_owned(),
        detail,
        attempts: message.delivered,
        payload_bytes: payload.len() as u64,
        payload: payload[..kept].to_vec(),
    }
}

/// Shortens a text to at most `max` bytes, between characters.
fn cut(text: &mut String, max: usize) {
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Reason;

    fn letter(payload: Vec<u8>, detail: &str) -> DeadLetter {
        let origin = Origin {
            source: "mqtt:a".into(),
            kind: "mqtt",
            historical: false,
        };
        let message = Message {
            topic: "t".into(),
            payload: payload.into(),
            stamp: Timestamp::from_ms(1),
            delivered: 3,
            tenant: None,
            state: Vec::new(),
        };
        let refused = Refused::new(Reason::Parse, detail);
        dead_letter(&origin, &message, "a", &refused, Timestamp::from_ms(2))
    }

    #[test]
    fn a_small_payload_is_kept_whole() {
        let kept = letter(b"{".to_vec(), "bad");
        assert_eq!(
            (kept.payload.as_slice(), kept.payload_bytes),
            (&b"{"[..], 1)
        );
        assert_eq!(
            (kept.detail.as_str(), kept.reason.as_str()),
            ("bad", "parse")
        );
        assert_eq!((kept.attempts, kept.received_at.as_ms()), (3, 2));
    }

    #[test]
    fn a_large_payload_is_cut_and_hashed() {
        let kept = letter(vec![b'x'; 20 << 20], &"ü".repeat(300));
        assert_eq!(kept.payload.len(), DEAD_LETTER_PAYLOAD_BYTES_MAX);
        assert_eq!(kept.payload_bytes, 20 << 20);
        assert!(kept.detail.len() <= DEAD_LETTER_DETAIL_BYTES_MAX);
        let hash = kept.detail.rsplit(' ').next().unwrap();
        assert_eq!(hash.len(), 64, "{}", kept.detail);
    }
}
