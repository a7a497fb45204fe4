//! Go's quoted texts, read and written.

/// Undoes the quotes and escapes of a Go string or character constant.
pub(super) fn unquote(quoted: &str) -> Option<String> {
    let body = quoted.get(1..quoted.len().checked_sub(1)?)?;
    let mut bytes = Vec::with_capacity(body.len());
    let mut rest = body.chars();
    while let Some(c) = rest.next() {
        let mut utf8 = [0; 4];
        if c != '\\' {
            bytes.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes());
            continue;
        }
        match rest.next()? {
            'a' => bytes.push(7),
            'b' => bytes.push(8),
            'f' => bytes.push(12),
            'n' => bytes.push(b'\n'),
            'r' => bytes.push(b'\r'),
            't' => bytes.push(b'\t'),
            'v' => bytes.push(11),
            c @ ('\\' | '\'' | '"') => bytes.push(u8::try_from(c).ok()?),
            'x' => bytes.push(u8::try_from(digits(&mut rest, 2, 16)?).ok()?),
            'u' => push_char(&mut bytes, digits(&mut rest, 4, 16)?)?,
            'U' => push_char(&mut bytes, digits(&mut rest, 8, 16)?)?,
            first @ '0'..='7' => {
                let high = first.to_digit(8)? * 64;
                bytes.push(u8::try_from(high + digits(&mut rest, 2, 8)?).ok()?);
            }
            _ => return None,
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn digits(rest: &mut std::str::Chars<'_>, count: usize, radix: u32) -> Option<u32> {
    (0..count).try_fold(0u32, |sum, _| {
        let digit = rest.next()?.to_digit(radix)?;
        sum.checked_mul(radix)?.checked_add(digit)
    })
}

fn push_char(bytes: &mut Vec<u8>, code: u32) -> Option<()> {
    let mut utf8 = [0; 4];
    let text = char::from_u32(code)?.encode_utf8(&mut utf8);
    bytes.extend_from_slice(text.as_bytes());
    Some(())
}

/// As Go's `strconv.Quote`.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
