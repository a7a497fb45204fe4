//! What is said about a token that does not belong where it is.

use super::super::lexer::{Lexeme, Token};
use super::super::literal::GoQuoted;
use super::{ParseError, Parser, error};

impl Parser<'_> {
    /// The next token does not belong here.
    pub(super) fn unexpected(&self, context: &str, expected: &str) -> ParseError {
        let lexeme = self.peek();
        if lexeme.token == Token::Error {
            return error(lexeme.span, self.lexed.error.clone());
        }
        let mut message = format!("unexpected {}", self.describe(lexeme));
        if !context.is_empty() {
            message.push_str(" in ");
            message.push_str(context);
        }
        if !expected.is_empty() {
            message.push_str(", expected ");
            message.push_str(expected);
        }
        error(lexeme.span, message)
    }

    /// As Prometheus names tokens.
    fn describe(&self, lexeme: Lexeme) -> String {
        let text = self.source(lexeme);
        let (kind, text) = match lexeme.token {
            Token::End => return "end of input".to_owned(),
            Token::Keyword(_) => return format!("<{text}>"),
            Token::Aggregator(_) => return format!("<aggr:{text}>"),
            Token::Operator(_) | Token::RegexEqual | Token::RegexNotEqual | Token::At => {
                return format!("<op:{text}>");
            }
            Token::Identifier => return format!("identifier {}", GoQuoted(text)),
            Token::MetricIdentifier => return format!("metric identifier {}", GoQuoted(text)),
            Token::Number => ("number ", text),
            Token::Duration => ("duration ", text),
            Token::String => ("string ", text),
            _ => ("", text),
        };
        match text.char_indices().nth(10) {
            Some((at, _)) => format!("{kind}{}...", GoQuoted(&text[..at])),
            None => format!("{kind}{}", GoQuoted(text)),
        }
    }
}
