//! A mail as it goes over the wire: header lines and two renderings of one text.
//!
//! Everything is ASCII and no line is long, so any server takes it. Header values and
//! bodies are encoded as Go encodes them for Alertmanager; a value that is not
//! printable ASCII, such as one with a line break from a label, becomes encoded words,
//! so nothing can add a header. Unlike there, encoded words stand in lines of their own,
//! and long ASCII values are folded in the same way: a line above 998 bytes is refused.

/// The longest line of a body.
const LINE_MAX: usize = 76;
/// The longest content of an encoded word in UTF-8.
const WORD_MAX: usize = 63;
/// A longer header value is folded.
const VALUE_MAX: usize = 900;
/// The most recipients of one mail.
const ADDRESSES_MAX: usize = 100;
/// The longest address.
const ADDRESS_BYTES_MAX: usize = 254;

/// What a mail is made of.
pub(super) struct Parts<'a> {
    /// Names are tokens; values are anything.
    pub(super) headers: Vec<(&'a str, String)>,
    /// Unique, and no part of the texts.
    pub(super) id: &'a str,
    pub(super) domain: &'a str,
    /// As RFC 1123 writes it.
    pub(super) date: String,
    pub(super) text: Option<String>,
    pub(super) html: Option<String>,
}

/// The whole mail.
pub(super) fn mail(parts: &Parts<'_>) -> Vec<u8> {
    let mut out = String::new();
    for (name, value) in &parts.headers {
        out.push_str(&format!("{name}: {}\r\n", header_value(value)));
    }
    let is_set = |wanted: &str| {
        let mut names = parts.headers.iter();
        names.any(|(name, _)| name.eq_ignore_ascii_case(wanted))
    };
    if !is_set("Message-Id") {
        out.push_str(&format!("Message-Id: <{}@{}>\r\n", parts.id, parts.domain));
    }
    let (boundary, date) = (parts.id, &parts.date);
    out.push_str(&format!(
        "Date: {date}\r\nContent-Type: multipart/alternative;  boundary={boundary}\r\n\
         MIME-Version: 1.0\r\n\r\n"
    ));
    let mut is_first = true;
    for (kind, text) in [("plain", &parts.text), ("html", &parts.html)] {
        let Some(text) = text else { continue };
        if !std::mem::take(&mut is_first) {
            out.push_str("\r\n");
        }
        out.push_str(&format!(
            "--{boundary}\r\nContent-Transfer-Encoding: quoted-printable\r\n\
             Content-Type: text/{kind}; charset=UTF-8\r\n\r\n{}",
            quoted_printable(text)
        ));
    }
    out.push_str(&format!("\r\n--{boundary}--\r\n"));
    out.into_bytes()
}

/// A header's value in one or more lines.
pub(super) fn header_value(value: &str) -> String {
    let is_plain = |b: u8| b == b'\t' || (b' '..=b'~').contains(&b);
    if value.bytes().all(is_plain) && value.len() <= VALUE_MAX {
        return value.to_owned();
    }
    let mut out = String::from("=?utf-8?q?");
    let mut length = 0;
    for c in value.chars() {
        let (mut utf8, is_literal) = ([0; 4], matches!(c, ' '..='~') && !"=?_".contains(c));
        let bytes = c.encode_utf8(&mut utf8).as_bytes();
        let size = if is_literal { 1 } else { 3 * bytes.len() };
        if length + size > WORD_MAX {
            out.push_str("?=\r\n =?utf-8?q?");
            length = 0;
        }
        length += size;
        match c {
            ' ' => out.push('_'),
            c if is_literal => out.push(c),
            _ => bytes
                .iter()
                .for_each(|b| out.push_str(&format!("={b:02X}"))),
        }
    }
    out.push_str("?=");
    out
}

/// A text in short lines of ASCII; lines end in CRLF.
pub(super) fn quoted_printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    let lines: Vec<&str> = text.split('\n').collect();
    let last = lines.len() - 1;
    for (i, line) in lines.iter().enumerate() {
        // A lone carriage return ends a line too.
        let ended = line.strip_suffix('\r').filter(|_| i < last);
        let mut pieces = ended.unwrap_or(line).split('\r').peekable();
        while let Some(piece) = pieces.next() {
            quote_line(piece, &mut out);
            if i < last || pieces.peek().is_some() {
                out.push_str("\r\n");
            }
        }
    }
    out
}

fn quote_line(line: &str, out: &mut String) {
    let mut length = 0;
    for (i, byte) in line.bytes().enumerate() {
        // A space at the end would be lost on the way.
        let is_space = matches!(byte, b' ' | b'\t');
        let is_literal = match byte {
            _ if is_space => i + 1 < line.len(),
            b'!'..=b'~' => byte != b'=',
            _ => false,
        };
        let size = if is_literal { 1 } else { 3 };
        if length + size > LINE_MAX - 1 {
            out.push_str("=\r\n");
            length = 0;
        }
        length += size;
        if is_literal {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("={byte:02X}"));
        }
    }
}

/// The addresses of a list such as `a@b, "C, D" <c@d>`.
///
/// # Errors
/// With what is none. Nothing that could end a command is an address.
pub(super) fn addresses(list: &str) -> Result<Vec<String>, String> {
    let mut all = Vec::new();
    for entry in entries(list) {
        let entry = entry.trim();
        if entry.is_empty() {
            continue;
        }
        let address = match entry.rsplit_once('<') {
            Some((_, rest)) => rest
                .strip_suffix('>')
                .ok_or_else(|| format!("mail: unclosed angle-addr in {entry:?}"))?,
            None => entry,
        };
        check_address(address)?;
        all.push(address.to_owned());
    }
    match all.len() {
        0 => Err("mail: no address".to_owned()),
        1..=ADDRESSES_MAX => Ok(all),
        many => Err(format!("mail: {many} addresses, at most {ADDRESSES_MAX}")),
    }
}

/// Parts between commas that stand neither in quotes nor in `<>`.
fn entries(list: &str) -> Vec<&str> {
    let (mut quoted, mut angled, mut escaped) = (false, false, false);
    list.split(|c| {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '<' if !quoted => angled = true,
            '>' if !quoted => angled = false,
            _ => {}
        }
        c == ',' && !quoted && !angled
    })
    .collect()
}

fn check_address(address: &str) -> Result<(), String> {
    let is_bad = |c: char| c.is_control() || c.is_whitespace() || "<>()[]\\,;:\"".contains(c);
    let is_one = match address.rsplit_once('@') {
        Some((user, domain)) => !user.is_empty() && !domain.is_empty() && !user.contains('@'),
        None => false,
    };
    if is_one && address.len() <= ADDRESS_BYTES_MAX && !address.contains(is_bad) {
        return Ok(());
    }
    Err(format!("mail: {address:?} is not an address"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn header_values_are_encoded_when_they_have_to_be() {
        let check = |value: &str, want: &str| assert_eq!(header_value(value), want);
        check("[FIRING:1] Hot (page)", "[FIRING:1] Hot (page)");
        check("", "");
        check("Käse", "=?utf-8?q?K=C3=A4se?=");
        check("a = b\n", "=?utf-8?q?a_=3D_b=0A?=");
        check(
            "x\r\nBcc: evil@example.com",
            "=?utf-8?q?x=0D=0ABcc:_evil@example.com?=",
        );
        // A character is not torn apart: 10 of 6 bytes, and 3 more do not fit.
        let long = "ä".repeat(11);
        let want = format!("=?utf-8?q?{}?=\r\n =?utf-8?q?=C3=A4?=", "=C3=A4".repeat(10));
        check(&long, &want);
        let folded = header_value(&"x".repeat(5_000));
        assert!(
            folded.split("\r\n").all(|line| line.len() <= 76),
            "{folded}"
        );
    }

    #[test]
    fn bodies_are_quoted_as_go_does() {
        let check = |text: &str, want: &str| assert_eq!(quoted_printable(text), want);
        check("", "");
        check("a=b\n.\nc", "a=3Db\r\n.\r\nc");
        check("end \nend\t\r\nend ", "end=20\r\nend=09\r\nend=20");
        check("ä", "=C3=A4");
        check("\n\n", "\r\n\r\n");
        check(
            &"x".repeat(80),
            &format!("{}=\r\n{}", "x".repeat(75), "x".repeat(5)),
        );
        let long = format!("{}ä", "x".repeat(71));
        check(&long, &format!("{}=C3=\r\n=A4", "x".repeat(71)));
    }

    #[test]
    fn lists_of_addresses_are_taken_apart() {
        let check = |list: &str, want: &[&str]| {
            assert_eq!(addresses(list).unwrap(), want, "{list}");
        };
        check("a@b", &["a@b"]);
        check("a@b, c@d,", &["a@b", "c@d"]);
        check("\"X, Y\" <a@b>, Z <c@d>", &["a@b", "c@d"]);
        for bad in [
            "",
            "a",
            "@b",
            "a@",
            "a@b c@d",
            "a@b>\r\nRCPT TO:<c@d",
            "<a@b",
            "x@a@b",
        ] {
            assert!(addresses(bad).is_err(), "{bad:?} was taken");
        }
        assert!(addresses(&"a@b,".repeat(101)).is_err());
    }

    /// Undoes [`quoted_printable`].
    fn unquoted(text: &str) -> Vec<u8> {
        let joined = text.replace("=\r\n", "");
        let mut bytes = joined.bytes();
        let mut out = Vec::new();
        while let Some(byte) = bytes.next() {
            if byte != b'=' {
                out.push(byte);
                continue;
            }
            let hex = [bytes.next().unwrap(), bytes.next().unwrap()];
            let hex = std::str::from_utf8(&hex).unwrap();
            out.push(u8::from_str_radix(hex, 16).unwrap());
        }
        out
    }

    proptest! {
        #[test]
        fn any_body_comes_back_and_no_line_is_long(text in "(?s)[^\r]{0,300}") {
            let quoted = quoted_printable(&text);
            let is_fit = |line: &str| line.len() <= LINE_MAX && line.is_ascii();
            prop_assert!(quoted.split("\r\n").all(is_fit));
            let want = text.replace('\n', "\r\n");
            prop_assert_eq!(unquoted(&quoted), want.as_bytes());
        }

        #[test]
        fn no_value_adds_a_header(value in any::<String>()) {
            let shown = header_value(&value);
            for line in shown.split("\r\n").skip(1) {
                prop_assert!(line.starts_with(' '));
            }
            prop_assert!(!shown.replace("\r\n ", "").contains(['\r', '\n']));
        }

        #[test]
        fn no_address_ends_a_command(list in any::<String>()) {
            for address in addresses(&list).unwrap_or_default() {
                prop_assert!(!address.contains(['\r', '\n', ' ', '<', '>']));
            }
        }
    }
}
