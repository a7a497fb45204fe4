//! Character classes and escapes of RE2.

/// The classes that a letter after a backslash names, ASCII as in RE2.
const PERL: [(char, &str); 3] = [('d', "0-9"), ('s', "\\t\\n\\x0C\\r "), ('w', "0-9A-Za-z_")];

/// The names that may stand in `[[:name:]]`.
const POSIX: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct",
    "space", "upper", "word", "xdigit",
];

type Step<T> = Result<T, String>;

/// A whole class from its opening bracket on, in Rust's syntax, and its length.
pub(super) fn bracketed(text: &str) -> Step<(String, usize)> {
    let mut out = "[".to_owned();
    let mut at = 1;
    if text[at..].starts_with('^') {
        out.push('^');
        at += 1;
    }
    // Searched for once: `[[:[:[:...` must not take a look at the end for each.
    let last_name_end = text.rfind(":]").unwrap_or(0);
    let mut first = true;
    loop {
        let rest = &text[at..];
        if rest.is_empty() {
            return Err(format!("missing closing ]: `{text}`"));
        }
        if rest.starts_with(']') && !first {
            break;
        }
        first = false;
        if at < last_name_end
            && let Some((class, len)) = named(rest)?
        {
            out.push_str(&class);
            at += len;
            continue;
        }
        if let Some((class, len)) = escaped(rest)? {
            out.push_str(&class);
            at += len;
            continue;
        }
        let (low, len) = member(rest, text)?;
        at += len;
        let mut high = low;
        if let Some(after) = text[at..].strip_prefix('-')
            && !after.is_empty()
            && !after.starts_with(']')
        {
            let (to, len) = member(after, text)?;
            at += "-".len() + len;
            high = to;
            if high < low {
                let range = &rest[..rest.len() - text[at..].len()];
                return Err(format!("invalid character class range: `{range}`"));
            }
        }
        let code = |c: char| format!("\\x{{{:X}}}", u32::from(c));
        out.push_str(&code(low));
        if high != low {
            out.push('-');
            out.push_str(&code(high));
        }
    }
    out.push(']');
    Ok((out, at + 1))
}

/// `[:alpha:]` or `[:^alpha:]`, if that is what comes.
fn named(text: &str) -> Step<Option<(String, usize)>> {
    let Some((name, _)) = text
        .strip_prefix("[:")
        .and_then(|rest| rest.split_once(":]"))
    else {
        return Ok(None);
    };
    let whole = format!("[:{name}:]");
    let plain = name.strip_prefix('^').unwrap_or(name);
    if !POSIX.contains(&plain) {
        return Err(format!("invalid character class range: `{whole}`"));
    }
    let len = whole.len();
    Ok(Some((whole, len)))
}

/// `\d` and its like, `\pL`, `\p{Greek}`: what may stand in a class, and its length.
pub(super) fn escaped(text: &str) -> Step<Option<(String, usize)>> {
    let mut chars = text.chars();
    if chars.next() != Some('\\') {
        return Ok(None);
    }
    let Some(letter) = chars.next() else {
        return Ok(None);
    };
    let lower = letter.to_ascii_lowercase();
    if let Some((_, class)) = PERL.iter().find(|(name, _)| *name == lower) {
        let text = if letter == lower {
            (*class).to_owned()
        } else {
            format!("[^{class}]")
        };
        return Ok(Some((text, 2)));
    }
    if lower != 'p' {
        return Ok(None);
    }
    let invalid = |end: usize| format!("invalid character class range: `{}`", &text[..end]);
    let Some(next) = chars.next() else {
        return Err(invalid(text.len()));
    };
    let (name, len) = if next == '{' {
        let Some(end) = text.find('}') else {
            return Err(invalid(text.len()));
        };
        (&text["\\p{".len()..end], end + 1)
    } else {
        (&text[2..2 + next.len_utf8()], 2 + next.len_utf8())
    };
    let (negated, name) = match name.strip_prefix('^') {
        Some(name) => (letter == 'p', name),
        None => (letter == 'P', name),
    };
    let word = |b: u8| b == b'_' || b.is_ascii_alphabetic();
    if name.is_empty() || !name.bytes().all(word) {
        return Err(invalid(len));
    }
    let class = format!("\\{}{{{name}}}", if negated { 'P' } else { 'p' });
    if regex::Regex::new(&class).is_err() {
        return Err(invalid(len));
    }
    Ok(Some((class, len)))
}

/// A single character of a class.
fn member(text: &str, class: &str) -> Step<(char, usize)> {
    match text.chars().next() {
        None => Err(format!("missing closing ]: `{class}`")),
        Some('\\') => character(text),
        Some(c) => Ok((c, c.len_utf8())),
    }
}

/// The single character that an escape sequence stands for, and its length.
pub(super) fn character(text: &str) -> Step<(char, usize)> {
    let rest = &text[1..];
    let Some(c) = rest.chars().next() else {
        return Err("trailing backslash at end of expression: ``".to_owned());
    };
    let invalid = |len: usize| {
        let end = (0..=len.min(text.len())).rev();
        let end = end.filter(|at| text.is_char_boundary(*at)).max();
        let text = &text[..end.unwrap_or_default()];
        Err(format!("invalid escape sequence: `{text}`"))
    };
    let octal_digits = |rest: &str| {
        let digits = rest.bytes().take(3);
        digits.take_while(|b| matches!(b, b'0'..=b'7')).count()
    };
    let plain = match c {
        'a' => '\x07',
        'f' => '\x0C',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0B',
        'x' => return hexadecimal(text).map_or_else(invalid, Ok),
        // One digit alone would be a reference to a group, of which there are none.
        '1'..='7' if octal_digits(rest) == 1 => return invalid(2),
        '0'..='7' => {
            let digits = octal_digits(rest);
            let code = u32::from_str_radix(&rest[..digits], 8).ok();
            let c = code.and_then(char::from_u32);
            return c.map_or_else(|| invalid(2), |c| Ok((c, 1 + digits)));
        }
        c if c.is_ascii() && !c.is_ascii_alphanumeric() => c,
        c => return invalid(1 + c.len_utf8()),
    };
    Ok((plain, 1 + c.len_utf8()))
}

/// `\x7F` or `\x{10FFFF}`; how much of it was read when it is neither.
fn hexadecimal(text: &str) -> Result<(char, usize), usize> {
    let rest = &text[2..];
    let (digits, len) = match rest.strip_prefix('{') {
        Some(braced) => {
            let Some((digits, _)) = braced.split_once('}') else {
                return Err(text.len());
            };
            (digits, "\\x{}".len() + digits.len())
        }
        None => (rest.get(..2).unwrap_or_default(), 4),
    };
    let all = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let code = u32::from_str_radix(digits, 16).ok().filter(|_| all);
    let c = code.and_then(char::from_u32);
    c.map(|c| (c, len)).ok_or(len)
}
