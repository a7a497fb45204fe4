//! Text to tokens, in one pass.
//!
//! The lexer knows two contexts, as Prometheus' does: inside braces every word
//! is a label name, and inside brackets a colon separates the step. The first
//! thing that is no token ends the list with an error token, so that whatever
//! is wrong earlier in the text is reported first.

use super::ast::{AggregateOp, BinaryOp, Span};

/// What a token is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Token {
    /// The end of the text.
    End,
    /// The text goes wrong here; the message is [`Lexed::error`].
    Error,
    /// A word that may be a label name.
    Identifier,
    /// A word with a colon, which only a metric's name may have.
    MetricIdentifier,
    /// A number, `inf` and `nan` included.
    Number,
    /// A duration such as `1h30m`.
    Duration,
    /// A quoted text, still with its quotes.
    String,
    /// A word with a meaning.
    Keyword(Keyword),
    /// `sum` and its like.
    Aggregator(AggregateOp),
    /// `+`, `and`, `==` and their like.
    Operator(BinaryOp),
    /// `=`
    Assign,
    /// `=~`
    RegexEqual,
    /// `!~`
    RegexNotEqual,
    /// `@`
    At,
    /// `,`
    Comma,
    /// `:` in brackets
    Colon,
    /// `(`
    LeftParen,
    /// `)`
    RightParen,
    /// `{`
    LeftBrace,
    /// `}`
    RightBrace,
    /// `[`
    LeftBracket,
    /// `]`
    RightBracket,
}

/// The words with a meaning that are neither operators nor aggregations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Keyword {
    Bool,
    By,
    End,
    GroupLeft,
    GroupRight,
    Ignoring,
    Offset,
    On,
    Start,
    Without,
}

/// A token and where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lexeme {
    pub(super) token: Token,
    pub(super) span: Span,
}

/// All tokens of a text; the last is `End` or `Error`.
pub(super) struct Lexed {
    pub(super) lexemes: Vec<Lexeme>,
    /// What is wrong when the last token is `Error`.
    pub(super) error: String,
}

/// Splits a text into tokens. Linear in its length.
pub(super) fn lex(text: &str) -> Lexed {
    let mut lexer = Lexer {
        text,
        at: 0,
        place: Span {
            line: 1,
            column: 1,
            ..Span::default()
        },
        lexemes: Vec::with_capacity(text.len() / 4 + 1),
        in_braces: false,
        in_brackets: false,
        parens: 0,
    };
    let error = match lexer.run() {
        Ok(()) => String::new(),
        Err(message) => {
            // An error points at what was read of the bad token.
            lexer.push(Token::Error);
            message
        }
    };
    Lexed {
        lexemes: lexer.lexemes,
        error,
    }
}

struct Lexer<'a> {
    text: &'a str,
    /// Where the next character stands.
    at: usize,
    /// Where the current token began.
    place: Span,
    lexemes: Vec<Lexeme>,
    in_braces: bool,
    in_brackets: bool,
    parens: usize,
}

type Step = Result<(), String>;

impl Lexer<'_> {
    fn run(&mut self) -> Step {
        loop {
            self.skip_blank();
            let Some(c) = self.peek() else {
                return self.finish();
            };
            if self.in_braces {
                self.in_braces(c)?;
            } else {
                self.outside(c)?;
            }
        }
    }

    /// The text has ended: nothing may be open.
    fn finish(&mut self) -> Step {
        if self.in_braces {
            return Err("unexpected end of input inside braces".to_owned());
        }
        if self.in_brackets {
            return Err("unclosed left bracket".to_owned());
        }
        if self.parens > 0 {
            return Err("unclosed left parenthesis".to_owned());
        }
        self.push(Token::End);
        Ok(())
    }

    fn in_braces(&mut self, c: char) -> Step {
        match c {
            'a'..='z' | 'A'..='Z' | '_' => {
                self.take_while(|c| c == '_' || c.is_ascii_alphanumeric());
                self.push(Token::Identifier);
            }
            ',' => self.take(1, Token::Comma),
            '"' | '\'' | '`' => self.string(c)?,
            '=' if self.second() == Some('~') => self.take(2, Token::RegexEqual),
            '=' => self.take(1, Token::Assign),
            '!' => match self.second() {
                Some('~') => self.take(2, Token::RegexNotEqual),
                Some('=') => self.take(2, Token::Operator(BinaryOp::NotEqual)),
                Some(c) => {
                    return self.fail(format!(
                        "unexpected character after '!' inside braces: {c:?}"
                    ));
                }
                None => return self.fail("unexpected end of input inside braces".to_owned()),
            },
            '{' => return self.fail("unexpected left brace '{'".to_owned()),
            '}' => {
                self.in_braces = false;
                self.take(1, Token::RightBrace);
            }
            c => return self.fail(format!("unexpected character inside braces: {c:?}")),
        }
        Ok(())
    }

    fn outside(&mut self, c: char) -> Step {
        match c {
            'a'..='z' | 'A'..='Z' | '_' => self.word(),
            ':' if self.in_brackets => self.take(1, Token::Colon),
            ':' => self.word(),
            '0'..='9' => self.number()?,
            '.' if self.second().is_some_and(|c| c.is_ascii_digit()) => self.number()?,
            '"' | '\'' | '`' => self.string(c)?,
            ',' => self.take(1, Token::Comma),
            '@' => self.take(1, Token::At),
            '+' => self.take(1, Token::Operator(BinaryOp::Add)),
            '-' => self.take(1, Token::Operator(BinaryOp::Sub)),
            '*' => self.take(1, Token::Operator(BinaryOp::Mul)),
            '/' => self.take(1, Token::Operator(BinaryOp::Div)),
            '%' => self.take(1, Token::Operator(BinaryOp::Mod)),
            '^' => self.take(1, Token::Operator(BinaryOp::Pow)),
            '=' | '!' | '<' | '>' => self.comparison(c)?,
            _ => self.bracket(c)?,
        }
        Ok(())
    }

    fn comparison(&mut self, c: char) -> Step {
        let (token, len) = match (c, self.second()) {
            ('=', Some('=')) => (Token::Operator(BinaryOp::Equal), 2),
            ('!', Some('=')) => (Token::Operator(BinaryOp::NotEqual), 2),
            ('<', Some('=')) => (Token::Operator(BinaryOp::LessEqual), 2),
            ('>', Some('=')) => (Token::Operator(BinaryOp::GreaterEqual), 2),
            ('<', Some('/')) => (Token::Operator(BinaryOp::TrimUpper), 2),
            ('>', Some('/')) => (Token::Operator(BinaryOp::TrimLower), 2),
            ('<', _) => (Token::Operator(BinaryOp::Less), 1),
            ('>', _) => (Token::Operator(BinaryOp::Greater), 1),
            ('=', Some('~')) => return self.fail("unexpected character after '=': '~'".to_owned()),
            ('=', _) => (Token::Assign, 1),
            (_, Some(next)) => {
                return self.fail(format!("unexpected character after '!': {next:?}"));
            }
            (_, None) => return self.fail("unexpected end of input after '!'".to_owned()),
        };
        self.take(len, token);
        Ok(())
    }

    fn bracket(&mut self, c: char) -> Step {
        match c {
            '(' => {
                self.parens += 1;
                self.take(1, Token::LeftParen);
            }
            ')' if self.parens == 0 => {
                return self.fail("unexpected right parenthesis ')'".to_owned());
            }
            ')' => {
                self.parens -= 1;
                self.take(1, Token::RightParen);
            }
            '{' => {
                self.in_braces = true;
                self.take(1, Token::LeftBrace);
            }
            '[' if self.in_brackets => return self.fail("unexpected left bracket '['".to_owned()),
            '[' => {
                self.in_brackets = true;
                self.take(1, Token::LeftBracket);
            }
            ']' if !self.in_brackets => {
                return self.fail("unexpected right bracket ']'".to_owned());
            }
            ']' => {
                self.in_brackets = false;
                self.take(1, Token::RightBracket);
            }
            c => return self.fail(format!("unexpected character: {c:?}")),
        }
        Ok(())
    }

    fn word(&mut self) {
        let brackets = self.in_brackets;
        self.take_while(|c| c == '_' || (c == ':' && !brackets) || c.is_ascii_alphanumeric());
        let word = &self.text[self.place.start as usize..self.at];
        let token = if word.contains(':') {
            Token::MetricIdentifier
        } else {
            word_token(word)
        };
        self.push(token);
    }

    /// A number, or a duration when a unit follows the digits.
    fn number(&mut self) -> Step {
        let hex = self.text[self.at..].starts_with("0x") || self.text[self.at..].starts_with("0X");
        if hex {
            self.at += 2;
            self.take_while(|c| c == '_' || c.is_ascii_hexdigit());
        } else {
            self.take_while(|c| c == '_' || c.is_ascii_digit());
            if self.peek().is_some_and(|c| "ywdhms".contains(c)) {
                return self.duration();
            }
            self.fraction_and_exponent();
        }
        if self.peek().is_some_and(is_word) {
            return self.bad_number();
        }
        self.push(Token::Number);
        Ok(())
    }

    fn fraction_and_exponent(&mut self) {
        if self.peek() == Some('.') {
            self.at += 1;
            self.take_while(|c| c == '_' || c.is_ascii_digit());
        }
        if matches!(self.peek(), Some('e' | 'E')) {
            self.at += 1;
            if matches!(self.peek(), Some('+' | '-')) {
                self.at += 1;
            }
            self.take_while(|c| c.is_ascii_digit());
        }
    }

    /// The first digits are taken; units and more digits follow.
    fn duration(&mut self) -> Step {
        self.take_while(|c| c.is_ascii_digit() || "ywdhms".contains(c));
        if self.peek().is_some_and(is_word) {
            return self.bad_number();
        }
        self.push(Token::Duration);
        Ok(())
    }

    fn bad_number(&mut self) -> Step {
        self.at += self.peek().map_or(0, char::len_utf8);
        let text = &self.text[self.place.start as usize..self.at];
        Err(format!("bad number or duration syntax: {text:?}"))
    }

    fn string(&mut self, quote: char) -> Step {
        self.at += 1;
        loop {
            match self.peek() {
                None if quote == '`' => return Err("unterminated raw string".to_owned()),
                None => return Err("unterminated quoted string".to_owned()),
                Some('\n') if quote != '`' => return Err("unterminated quoted string".to_owned()),
                Some('\\') if quote != '`' => {
                    self.at += 1;
                    self.at += self.peek().map_or(0, char::len_utf8);
                }
                Some(c) => {
                    self.at += c.len_utf8();
                    if c == quote {
                        self.push(Token::String);
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Moves to the next token, over white space and comments.
    fn skip_blank(&mut self) {
        loop {
            self.take_while(|c| matches!(c, ' ' | '\t' | '\n' | '\r'));
            if self.peek() != Some('#') {
                break;
            }
            self.take_while(|c| c != '\n');
        }
        self.advance_place();
    }

    /// Moves the start of the token to here, counting lines and columns.
    fn advance_place(&mut self) {
        for c in self.text[self.place.start as usize..self.at].chars() {
            if c == '\n' {
                self.place.line += 1;
                self.place.column = 1;
            } else {
                self.place.column += 1;
            }
        }
        self.place.start = offset(self.at);
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn second(&self) -> Option<char> {
        self.text[self.at..].chars().nth(1)
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) {
        while let Some(c) = self.peek().filter(|c| keep(*c)) {
            self.at += c.len_utf8();
        }
    }

    /// A token of `len` ASCII characters.
    fn take(&mut self, len: usize, token: Token) {
        self.at += len;
        self.push(token);
    }

    fn push(&mut self, token: Token) {
        let span = Span {
            end: offset(self.at),
            ..self.place
        };
        self.lexemes.push(Lexeme { token, span });
        self.advance_place();
    }

    /// The character here is wrong.
    fn fail(&mut self, message: String) -> Step {
        self.at += self.peek().map_or(0, char::len_utf8);
        Err(message)
    }
}

/// The parser refuses texts above 1 GiB long before they get here.
fn offset(at: usize) -> u32 {
    u32::try_from(at).expect("the text is shorter than 4 GiB")
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_ascii_alphanumeric()
}

/// What a word means; words are recognised in any case.
fn word_token(word: &str) -> Token {
    let lower = word.to_ascii_lowercase();
    match lower.as_str() {
        "and" => Token::Operator(BinaryOp::And),
        "or" => Token::Operator(BinaryOp::Or),
        "unless" => Token::Operator(BinaryOp::Unless),
        "atan2" => Token::Operator(BinaryOp::Atan2),
        "bool" => Token::Keyword(Keyword::Bool),
        "by" => Token::Keyword(Keyword::By),
        "end" => Token::Keyword(Keyword::End),
        "group_left" => Token::Keyword(Keyword::GroupLeft),
        "group_right" => Token::Keyword(Keyword::GroupRight),
        "ignoring" => Token::Keyword(Keyword::Ignoring),
        "offset" => Token::Keyword(Keyword::Offset),
        "on" => Token::Keyword(Keyword::On),
        "start" => Token::Keyword(Keyword::Start),
        "without" => Token::Keyword(Keyword::Without),
        "inf" | "nan" => Token::Number,
        lower => AggregateOp::ALL
            .into_iter()
            .find(|op| op.as_str() == lower)
            .map_or(Token::Identifier, Token::Aggregator),
    }
}
