//! Text to tokens, as Go's `text/template/parse` cuts it.

/// What a token is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Text,
    Left,
    Right,
    Space,
    Field,
    Variable,
    Identifier,
    Keyword,
    Bool,
    Number,
    Char,
    Str,
    Raw,
    Pipe,
    LeftParen,
    RightParen,
    Declare,
    Assign,
    Comma,
    Dot,
    /// A printable character that has no meaning.
    Other,
    End,
}

/// A piece of the text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    pub(super) text: &'a str,
    /// Byte offset in the text.
    pub(super) pos: usize,
}

/// What is wrong, and where.
#[derive(Debug)]
pub(super) struct LexError {
    pub(super) pos: usize,
    pub(super) message: String,
}

const KEYWORDS: [&str; 11] = [
    "block", "break", "continue", "define", "else", "end", "if", "nil", "range", "template", "with",
];

/// Cuts the whole text into tokens; the last one is [`Kind::End`].
///
/// # Errors
/// With the first thing that cannot be a token.
pub(super) fn tokens(text: &str) -> Result<Vec<Token<'_>>, LexError> {
    let mut lexer = Lexer {
        text,
        pos: 0,
        parens: 0,
        out: Vec::new(),
    };
    lexer.run()?;
    Ok(lexer.out)
}

struct Lexer<'a> {
    text: &'a str,
    pos: usize,
    parens: usize,
    out: Vec<Token<'a>>,
}

impl<'a> Lexer<'a> {
    fn run(&mut self) -> Result<(), LexError> {
        while let Some(at) = self.rest().find("{{") {
            let trim = is_left_trim(&self.rest()[at + 2..]);
            let end = self.pos + at;
            let whole = &self.text[self.pos..end];
            let kept = if trim {
                whole.trim_end_matches(is_space)
            } else {
                whole
            };
            if !kept.is_empty() {
                self.push(Kind::Text, self.pos, self.pos + kept.len());
            }
            self.pos = end;
            self.delimited(trim)?;
        }
        if self.pos < self.text.len() {
            self.push(Kind::Text, self.pos, self.text.len());
        }
        self.push(Kind::End, self.text.len(), self.text.len());
        Ok(())
    }

    /// An action or a comment with its delimiters.
    fn delimited(&mut self, trim: bool) -> Result<(), LexError> {
        let open = self.pos;
        let after = open + if trim { 4 } else { 2 };
        if self.text[after..].starts_with("/*") {
            return self.comment(after);
        }
        self.push(Kind::Left, open, open + 2);
        self.pos = after;
        self.parens = 0;
        while !self.at_right()? {
            self.token()?;
        }
        Ok(())
    }

    fn comment(&mut self, start: usize) -> Result<(), LexError> {
        let Some(len) = self.text[start..].find("*/") else {
            return self.fail(start, "unclosed comment");
        };
        self.pos = start + len + 2;
        match right_delimiter(self.rest()) {
            Some((len, trim)) => self.close(len, trim),
            None => return self.fail(start, "comment ends before closing delimiter"),
        }
        Ok(())
    }

    /// Takes a closing delimiter, if there is one.
    fn at_right(&mut self) -> Result<bool, LexError> {
        let Some((len, trim)) = right_delimiter(self.rest()) else {
            return Ok(false);
        };
        if self.parens > 0 {
            return self.fail(self.pos, "unclosed left paren");
        }
        let at = self.pos + len - 2;
        self.push(Kind::Right, at, at + 2);
        self.close(len, trim);
        Ok(true)
    }

    fn close(&mut self, len: usize, trim: bool) {
        self.pos += len;
        if trim {
            let rest = self.rest();
            self.pos += rest.len() - rest.trim_start_matches(is_space).len();
        }
    }

    fn token(&mut self) -> Result<(), LexError> {
        let start = self.pos;
        let Some(c) = self.rest().chars().next() else {
            return self.fail(start, "unclosed action");
        };
        let next = self.rest()[c.len_utf8()..].chars().next();
        match c {
            c if is_space(c) => self.spaces(),
            '=' => self.single(Kind::Assign),
            ':' if next == Some('=') => {
                self.pos += 2;
                self.push(Kind::Declare, start, self.pos);
            }
            ':' => return self.fail(start, "expected :="),
            '|' => self.single(Kind::Pipe),
            ',' => self.single(Kind::Comma),
            '"' => return self.quoted('"', Kind::Str, "unterminated quoted string"),
            '\'' => return self.quoted('\'', Kind::Char, "unterminated character constant"),
            '`' => return self.raw(),
            '(' => {
                self.parens += 1;
                self.single(Kind::LeftParen);
            }
            ')' => {
                self.parens = self.parens.saturating_sub(1);
                self.single(Kind::RightParen);
            }
            '$' => return self.word(Kind::Variable),
            '.' if !next.is_some_and(|c| c.is_ascii_digit()) => return self.word(Kind::Field),
            '+' | '-' | '.' | '0'..='9' => return self.number(),
            c if is_alphanumeric(c) => return self.identifier(),
            ' '..='~' => self.single(Kind::Other),
            c => {
                let text = format!("unrecognized character in action: {}", code_point(c));
                return self.fail(start, &text);
            }
        }
        Ok(())
    }

    fn single(&mut self, kind: Kind) {
        self.push(kind, self.pos, self.pos + 1);
        self.pos += 1;
    }

    fn spaces(&mut self) {
        let start = self.pos;
        while self.rest().starts_with(is_space) && right_delimiter(self.rest()).is_none() {
            self.pos += 1;
        }
        self.push(Kind::Space, start, self.pos);
    }

    fn quoted(&mut self, quote: char, kind: Kind, unterminated: &str) -> Result<(), LexError> {
        let start = self.pos;
        let mut escaped = false;
        for (at, c) in self.rest().char_indices().skip(1) {
            match c {
                '\n' => break,
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                c if c == quote => {
                    self.pos = start + at + 1;
                    self.push(kind, start, self.pos);
                    return Ok(());
                }
                _ => {}
            }
        }
        self.fail(start, unterminated)
    }

    fn raw(&mut self) -> Result<(), LexError> {
        let start = self.pos;
        let Some(len) = self.rest()[1..].find('`') else {
            return self.fail(start, "unterminated raw quoted string");
        };
        self.pos = start + len + 2;
        self.push(Kind::Raw, start, self.pos);
        Ok(())
    }

    /// `.name`, `.`, `$name` or `$`.
    fn word(&mut self, kind: Kind) -> Result<(), LexError> {
        let start = self.pos;
        self.pos += 1;
        let len = self.alphanumerics();
        self.pos += len;
        self.terminated()?;
        let kind = if kind == Kind::Field && len == 0 {
            Kind::Dot
        } else {
            kind
        };
        self.push(kind, start, self.pos);
        Ok(())
    }

    fn identifier(&mut self) -> Result<(), LexError> {
        let start = self.pos;
        self.pos += self.alphanumerics();
        self.terminated()?;
        let kind = match &self.text[start..self.pos] {
            "true" | "false" => Kind::Bool,
            word if KEYWORDS.contains(&word) => Kind::Keyword,
            _ => Kind::Identifier,
        };
        self.push(kind, start, self.pos);
        Ok(())
    }

    fn number(&mut self) -> Result<(), LexError> {
        let start = self.pos;
        let rest = self.rest();
        let sign = usize::from(rest.starts_with(['+', '-']));
        let body = &rest[sign..];
        let hex = body.starts_with("0x") || body.starts_with("0X");
        let mut len = sign;
        let mut previous = ' ';
        for c in body.chars() {
            let exponent = if hex { "pP" } else { "eE" };
            let signed = matches!(c, '+' | '-') && exponent.contains(previous);
            if !(signed || c == '.' || is_alphanumeric(c)) {
                break;
            }
            len += c.len_utf8();
            previous = c;
        }
        self.pos += len;
        let text = &self.text[start..self.pos];
        let letters = if hex { "abcdefABCDEFxXpP" } else { "eEoObB" };
        let shaped = |c: char| c.is_ascii_digit() || "._+-".contains(c) || letters.contains(c);
        if !text.contains(|c: char| c.is_ascii_digit()) || !text.chars().all(shaped) {
            return self.fail(start, &format!("bad number syntax: {text:?}"));
        }
        self.push(Kind::Number, start, self.pos);
        Ok(())
    }

    fn alphanumerics(&self) -> usize {
        let rest = self.rest();
        rest.find(|c| !is_alphanumeric(c)).unwrap_or(rest.len())
    }

    /// A word must be followed by something that ends it.
    fn terminated(&mut self) -> Result<(), LexError> {
        let rest = self.rest();
        match rest.chars().next() {
            None | Some('.' | ',' | '|' | ':' | ')' | '(') => Ok(()),
            Some(c) if is_space(c) || rest.starts_with("}}") => Ok(()),
            Some(c) => self.fail(self.pos, &format!("bad character {}", code_point(c))),
        }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.pos..]
    }

    fn push(&mut self, kind: Kind, start: usize, end: usize) {
        self.out.push(Token {
            kind,
            text: &self.text[start..end],
            pos: start,
        });
    }

    fn fail<T>(&self, pos: usize, message: &str) -> Result<T, LexError> {
        Err(LexError {
            pos,
            message: message.to_owned(),
        })
    }
}

/// A number constant: as integer, when it is one, and as float.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Number {
    Int(i64),
    Float(f64),
}

/// Reads a number constant; `None` when the text is none.
pub(super) fn number_value(text: &str) -> Option<Number> {
    let (negative, body) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if !body.starts_with(|c: char| c.is_ascii_digit() || c == '.') || bad_underscores(body) {
        return None;
    }
    let plain = body.replace('_', "");
    let lower = plain.to_ascii_lowercase();
    let radix = |digits: &str, radix: u32| {
        let value = i128::from(u64::from_str_radix(digits, radix).ok()?);
        i64::try_from(if negative { -value } else { value })
            .ok()
            .map(Number::Int)
    };
    match lower.get(..2) {
        Some("0x") => return radix(&lower[2..], 16),
        Some("0o") => return radix(&lower[2..], 8),
        Some("0b") => return radix(&lower[2..], 2),
        _ => {}
    }
    if lower.contains(['.', 'e']) {
        let value: f64 = lower.parse().ok()?;
        return value
            .is_finite()
            .then_some(Number::Float(if negative { -value } else { value }));
    }
    if lower.len() > 1 && lower.starts_with('0') {
        return radix(&lower, 8);
    }
    radix(&lower, 10)
}

/// Underscores may only stand between digits or after a base prefix.
fn bad_underscores(body: &str) -> bool {
    body.starts_with('_') || body.ends_with('_') || body.contains("__")
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn is_alphanumeric(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// `- ` directly behind `{{`.
fn is_left_trim(after: &str) -> bool {
    let mut chars = after.chars();
    chars.next() == Some('-') && chars.next().is_some_and(is_space)
}

/// The length of the closing delimiter that `rest` starts with, and whether it trims.
fn right_delimiter(rest: &str) -> Option<(usize, bool)> {
    if rest.starts_with("}}") {
        return Some((2, false));
    }
    let marked = rest.starts_with(is_space) && rest[1..].starts_with("-}}");
    marked.then_some((4, true))
}

/// `U+0040 '@'`, as Go's `%#U`.
fn code_point(c: char) -> String {
    format!("U+{:04X} '{c}'", u32::from(c))
}
