//! Which texts Go takes for a URI of a request: Alertmanager checks `generatorURL` so.

/// Whether the text is a path or has a scheme, has no control characters, and its
/// authority and path are well-formed.
pub(super) fn is_valid(text: &str) -> bool {
    if text == "*" {
        return true;
    }
    if text.is_empty() || text.bytes().any(|b| b.is_ascii_control()) {
        return false;
    }
    let Some((has_scheme, rest)) = split_scheme(text) else {
        return false;
    };
    let rest = rest.split('?').next().unwrap_or_default();
    if !rest.starts_with('/') {
        return has_scheme;
    }
    let path = match rest.strip_prefix("//").filter(|_| has_scheme) {
        None => rest,
        Some(rest) => {
            let end = rest.find('/').unwrap_or(rest.len());
            let (authority, path) = rest.split_at(end);
            if !is_authority(authority) {
                return false;
            }
            path
        }
    };
    is_escaped(path, 0)
}

/// Whether there is a scheme, and what follows it; `None` when only its colon is there.
fn split_scheme(text: &str) -> Option<(bool, &str)> {
    let is_inside = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
    let end = text.bytes().position(|b| !is_inside(b));
    match end {
        Some(0) if text.starts_with(':') => None,
        Some(end) if text.as_bytes()[0].is_ascii_alphabetic() => {
            let after = text[end..].strip_prefix(':');
            Some(after.map_or((false, text), |rest| (true, rest)))
        }
        _ => Some((false, text)),
    }
}

fn is_authority(text: &str) -> bool {
    match text.rsplit_once('@') {
        None => is_host(text),
        Some((user, host)) => {
            let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&b);
            user.bytes().all(is_plain) && is_escaped(user, 0) && is_host(host)
        }
    }
}

fn is_host(text: &str) -> bool {
    let host = if text.starts_with('[') {
        let Some((host, port)) = text.rsplit_once(']') else {
            return false;
        };
        if !is_port(port) {
            return false;
        }
        // After the percent sign of a zone more is allowed.
        host.split("%25").next().unwrap_or_default()
    } else if let Some(at) = text.rfind(':') {
        if !is_port(&text[at..]) {
            return false;
        }
        &text[..at]
    } else {
        text
    };
    // Only what is not ASCII may be escaped in it, and the percent sign itself.
    let is_plain = |b: u8| !b.is_ascii() || !b" #\\^`{|}@/".contains(&b);
    host.bytes().all(is_plain) && is_escaped(&host.replace("%25", ""), 8)
}

/// Nothing, or a colon with digits.
fn is_port(text: &str) -> bool {
    let digits = text.strip_prefix(':');
    text.is_empty() || digits.is_some_and(|text| text.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether two hexadecimal digits follow each percent sign, the first at least `high_min`.
fn is_escaped(text: &str, high_min: u32) -> bool {
    text.split('%').skip(1).all(|rest| {
        let mut digits = rest.chars().map(|c| c.to_digit(16));
        let (high, low) = (digits.next().flatten(), digits.next().flatten());
        low.is_some() && high.is_some_and(|high| high >= high_min)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_takes_is_valid() {
        for text in [
            "http://prometheus:9090/graph?g0.expr=up&g0.tab=1",
            "http://[::1]:9090/",
            "http://[fe80::1%25eth0]/",
            "http://user:pass@x:80/",
            "http://x/%C3%BC#f",
            "http://x/a b",
            "http://",
            "http:///p",
            "http://x:",
            "http://\u{fc}.example/",
            "//x",
            "/graph?g0.expr=%zz",
            "mailto:x",
            "x:y",
            "*",
        ] {
            assert!(is_valid(text), "{text:?}");
        }
    }

    #[test]
    fn what_go_refuses_is_not() {
        for text in [
            "",
            "x",
            "a b",
            "::bad",
            ":",
            "://",
            "rel/x",
            "?q=1",
            "#f",
            "1http://x",
            "ht tp://x",
            "http://[::1",
            "http://[::1]x/",
            "http://a b/",
            "http://a%20b/",
            "http://x:port/",
            "http://us er@x/",
            "http://x/%zz",
            "http://x/%4",
            "%zz",
            "http://x/\n",
            "\u{7f}",
        ] {
            assert!(!is_valid(text), "{text:?}");
        }
    }
}
