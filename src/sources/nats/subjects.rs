//! Which subjects a consumer has to filter.
//!
//! A consumer without a filter is cheap for the server: it hands out the next
//! message of the stream. With a wildcard filter, nats-server can fall into
//! searching its whole message block for each message: measured with 2.9, 20
//! messages a second from a stream of 300,000; nats-io/nats-server#7014 and #7852
//! report the same of 2.11 and 2.12. So where the wanted subjects are all that the
//! stream has, nothing is filtered.

/// The filters that leave exactly the `wanted` subjects of a stream that has
/// `stored`: none when it has nothing else.
pub(super) fn filters(wanted: &[String], stored: &[String]) -> Vec<String> {
    let all = stored
        .iter()
        .all(|subject| wanted.iter().any(|filter| covers(filter, subject)));
    // A mirror names no subjects of its own.
    if all && !stored.is_empty() {
        return Vec::new();
    }
    wanted.to_vec()
}

/// Whether `filter` takes every message that `subject`, perhaps with wildcards itself, can have.
fn covers(filter: &str, subject: &str) -> bool {
    let mut subject = subject.split('.');
    for token in filter.split('.') {
        let Some(other) = subject.next() else {
            return false;
        };
        match token {
            ">" => return true,
            "*" if other != ">" => {}
            _ if token == other => {}
            _ => return false,
        }
    }
    subject.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_covers_what_it_takes_whole() {
        for (filter, subject, want) in [
            (">", "a", true),
            (">", "a.>", true),
            ("a.>", "a.>", true),
            ("a.>", "a.b.*", true),
            ("a.>", "a", false),
            ("a.>", ">", false),
            ("a.*", "a.b", true),
            ("a.*", "a.>", false),
            ("a.b", "a.*", false),
            ("a.b", "a.b", true),
            ("a.b", "a.b.c", false),
        ] {
            assert_eq!(covers(filter, subject), want, "{filter} {subject}");
        }
    }

    #[test]
    fn only_a_stream_of_nothing_else_needs_no_filter() {
        let list = |texts: &[&str]| texts.iter().map(|&t| t.to_owned()).collect::<Vec<_>>();
        let check = |wanted: &[&str], stored: &[&str], want: &[&str]| {
            assert_eq!(filters(&list(wanted), &list(stored)), list(want));
        };
        check(&["tenants.>"], &["tenants.>"], &[]);
        check(&["a.>", "b.>"], &["a.x", "b.*"], &[]);
        check(&["a.>"], &["a.>", "b"], &["a.>"]);
        check(&["a.>"], &[], &["a.>"]);
    }
}
