//! Topics and subjects made of templates, in which values are only words.
//!
//! A label's value comes from a device. Percent signs make one level of it, whatever
//! it holds: no slash or dot adds a level, nothing is a wildcard, and two values never
//! become the same word. Non-ASCII letters are encoded as well.

/// A longer topic is refused.
const BYTES_MAX: usize = 1_024;

/// A value as one level of an MQTT topic or one token of a NATS subject.
pub(super) fn word(value: &str) -> String {
    if value.is_empty() {
        // NATS has no empty tokens.
        return "%".to_owned();
    }
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'-' | b'_' => out.push(char::from(byte)),
            b if b.is_ascii_alphanumeric() => out.push(char::from(b)),
            b => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

/// Checks an expanded MQTT topic.
///
/// # Errors
/// With what is wrong.
pub(super) fn check_topic(topic: &str) -> Result<(), String> {
    let is_bad = |c: char| c.is_control() || c == '+' || c == '#';
    if topic.is_empty() || topic.len() > BYTES_MAX || topic.contains(is_bad) {
        return Err(format!("{topic:?} is not a topic to publish to"));
    }
    Ok(())
}

/// Checks an expanded NATS subject.
///
/// # Errors
/// With what is wrong.
pub(super) fn check_subject(subject: &str) -> Result<(), String> {
    let is_bad = |c: char| c.is_control() || c.is_whitespace() || c == '*' || c == '>';
    let has_empty = subject.split('.').any(str::is_empty);
    if has_empty || subject.len() > BYTES_MAX || subject.contains(is_bad) {
        return Err(format!("{subject:?} is not a subject to publish to"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_value_stays_one_word() {
        let check = |value: &str, want: &str| assert_eq!(word(value), want);
        check("relay-1_a", "relay-1_a");
        check("a/b", "a%2Fb");
        check("a.b", "a%2Eb");
        check("+", "%2B");
        check("#", "%23");
        check("*", "%2A");
        check(">", "%3E");
        check("$SYS", "%24SYS");
        check("100%", "100%25");
        check("ä b", "%C3%A4%20b");
        check("", "%");
    }

    #[test]
    fn what_cannot_be_published_to_is_refused() {
        for topic in ["", "a/+", "a/#", "a\0", &"x".repeat(1_025)] {
            assert!(check_topic(topic).is_err(), "{topic}");
        }
        for subject in ["", "a..b", ".a", "a.*", "a.>", "a b", &"x".repeat(1_025)] {
            assert!(check_subject(subject).is_err(), "{subject}");
        }
        assert_eq!(check_topic("alerts/a b/c"), Ok(()));
        assert_eq!(check_subject("alerts.a/b.c"), Ok(()));
    }

    proptest! {
        #[test]
        fn any_value_is_one_level_and_no_two_are_alike(a in any::<String>(), b in any::<String>()) {
            let (topic, subject) = (format!("x/{}", word(&a)), format!("x.{}", word(&a)));
            prop_assert_eq!(topic.split('/').count(), 2);
            prop_assert_eq!(subject.split('.').count(), 2);
            prop_assert!(check_topic(&word(&a)).is_ok() || a.len() > 300);
            prop_assert!(check_subject(&word(&a)).is_ok() || a.len() > 300);
            prop_assert_eq!(a == b, word(&a) == word(&b));
        }
    }
}
