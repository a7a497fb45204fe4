//! Text to [`Expr`]: a Pratt parser over the token list.
//!
//! Owns nothing. One more pass over the tree checks types and arguments
//! ([`check`]), so that a syntax error anywhere is reported before a type error,
//! as Prometheus does.
//!
//! It must never take more than linear time or recurse without a bound. Three
//! limits keep hostile texts harmless: the length of the text, the nesting of
//! parentheses and calls (recursion here), and the height of the tree
//! (recursion in what walks it, dropping included; a chain of operators is as
//! high as it is long).

mod check;
mod length;
mod message;
mod selector;

pub use check::MATCHES_ALL;

use super::ast::{
    Aggregate, AggregateOp, Binary, BinaryOp, Call, Card, Expr, ExprKind, Fill, Matching, Number,
    Span, Type, Unary,
};
use super::features::Features;
use super::lexer::{Keyword, Lexed, Lexeme, Token, lex};
use super::literal::{self, GoQuoted};
use super::signature;

/// A query that does not parse: where and why.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{line}:{column}: parse error: {message}")]
pub struct ParseError {
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// Byte offsets of the offending part.
    pub span: std::ops::Range<usize>,
    /// What is wrong, in Prometheus' words where it has them.
    pub message: String,
}

/// Longer texts are refused, in bytes.
pub const TEXT_BYTES_MAX: usize = 512 << 10;
/// Parentheses, calls and the like may nest this deep.
pub const NESTING_MAX: usize = 100;
/// An expression may have this many levels; each operator of a chain is one.
pub const HEIGHT_MAX: usize = 500;

/// Unary operators bind as tight as multiplication, so only `^` goes first.
const UNARY_PRECEDENCE: u8 = 6;

/// Parses a query. Linear in its length; depth and length are bounded.
///
/// # Errors
/// With the place of the first thing that is wrong.
pub fn parse(text: &str) -> Result<Expr, ParseError> {
    parse_with(text, Features::default())
}

/// The same with other parts of the language switched on.
///
/// # Errors
/// With the place of the first thing that is wrong.
pub fn parse_with(text: &str, features: Features) -> Result<Expr, ParseError> {
    if text.len() > TEXT_BYTES_MAX {
        let start = Span {
            line: 1,
            column: 1,
            ..Span::default()
        };
        let message = format!(
            "query is too long: {} bytes, the limit is {TEXT_BYTES_MAX}",
            text.len()
        );
        return Err(error(start, message));
    }
    let lexed = lex(text);
    let mut parser = Parser {
        text,
        features,
        lexed: &lexed,
        at: 0,
        nesting: 0,
        height: 0,
    };
    let expr = parser.whole()?;
    check::check(&expr)?;
    Ok(expr)
}

/// Parses a bare selector, as in `match[]` and federation.
///
/// # Errors
/// When the text is anything but one instant selector without modifiers.
pub fn parse_selector(text: &str) -> Result<super::ast::Selector, ParseError> {
    let expr = parse(text)?;
    match expr.kind {
        ExprKind::Selector(selector) if selector.is_bare() => Ok(*selector),
        _ => Err(error(expr.span, "expected a series selector".to_owned())),
    }
}

fn error(span: Span, message: String) -> ParseError {
    ParseError {
        line: span.line as usize,
        column: span.column as usize,
        span: span.range(),
        message,
    }
}

type Parsed<T> = Result<T, ParseError>;

struct Parser<'a> {
    text: &'a str,
    features: Features,
    lexed: &'a Lexed,
    /// The next token.
    at: usize,
    /// How many calls of [`Parser::nested`] are open.
    nesting: usize,
    /// The height of the expression that was parsed last.
    height: usize,
}

impl Parser<'_> {
    fn whole(&mut self) -> Parsed<Expr> {
        let first = self.peek();
        if first.token == Token::End {
            return Err(error(first.span, "no expression found in input".to_owned()));
        }
        let expr = self.binary(1)?;
        match self.peek().token {
            Token::End => Ok(expr),
            _ => Err(self.unexpected("", "")),
        }
    }

    /// Operands joined by operators that bind at least as tight as `min`.
    fn binary(&mut self, min: u8) -> Parsed<Expr> {
        let mut lhs = self.unary()?;
        let mut height = self.height;
        while let Token::Operator(op) = self.peek().token {
            let precedence = op.precedence();
            if precedence < min {
                break;
            }
            self.at += 1;
            let (returns_bool, matching) = self.modifiers(op)?;
            // Only `^` is right-associative.
            let next_min = precedence + u8::from(op != BinaryOp::Pow);
            let rhs = self.nested(|p| p.binary(next_min))?;
            height = self.grow(height.max(self.height), lhs.span)?;
            lhs = join(op, lhs, rhs, returns_bool, matching);
        }
        self.height = height;
        Ok(lhs)
    }

    /// `bool`, `on (...)`, `group_left (...)` and the like after an operator.
    fn modifiers(&mut self, op: BinaryOp) -> Parsed<(bool, Matching)> {
        let mut matching = Matching::default();
        if op.is_set() {
            matching.card = Card::ManyToMany;
        }
        let returns_bool = self.accept(Token::Keyword(Keyword::Bool));
        matching.on = self.accept(Token::Keyword(Keyword::On));
        if matching.on || self.accept(Token::Keyword(Keyword::Ignoring)) {
            matching.labels = self.label_list()?;
            self.grouping_side(&mut matching)?;
        }
        matching.fill = self.fill()?;
        Ok((returns_bool, matching))
    }

    /// `group_left (...)` or `group_right (...)`, if it is there.
    fn grouping_side(&mut self, matching: &mut Matching) -> Parsed<()> {
        matching.card = match self.peek().token {
            Token::Keyword(Keyword::GroupLeft) => Card::ManyToOne,
            Token::Keyword(Keyword::GroupRight) => Card::OneToMany,
            _ => return Ok(()),
        };
        self.at += 1;
        if self.peek().token == Token::LeftParen {
            matching.include = self.label_list()?;
        }
        Ok(())
    }

    /// `fill (v)`, or `fill_left (v)` and `fill_right (v)` in either order.
    fn fill(&mut self) -> Parsed<Fill> {
        let mut fill = Fill::default();
        while self.peek().token == Token::Identifier && self.second() == Token::LeftParen {
            let word = self.peek();
            let name = self.source(word).to_ascii_lowercase();
            let (left, right) = match name.as_str() {
                "fill" => (true, true),
                "fill_left" => (true, false),
                "fill_right" => (false, true),
                _ => break,
            };
            if !self.features.fill_modifiers {
                let message = "binop fill modifiers are experimental and not enabled";
                return Err(error(word.span, message.to_owned()));
            }
            if left && fill.left.is_some() || right && fill.right.is_some() {
                return Err(self.unexpected("", ""));
            }
            self.at += 2;
            let v = self.signed_number()?;
            self.expect(Token::RightParen, "fill", "\")\"")?;
            fill.left = fill.left.or(left.then_some(v));
            fill.right = fill.right.or(right.then_some(v));
        }
        Ok(fill)
    }

    fn signed_number(&mut self) -> Parsed<f64> {
        let negative = self.accept(Token::Operator(BinaryOp::Sub));
        if !negative {
            self.accept(Token::Operator(BinaryOp::Add));
        }
        let v = self.seconds("fill", "number")?;
        Ok(if negative { -v } else { v })
    }

    fn unary(&mut self) -> Parsed<Expr> {
        let sign = self.peek();
        let negative = match sign.token {
            Token::Operator(BinaryOp::Add) => false,
            Token::Operator(BinaryOp::Sub) => true,
            _ => {
                let operand = self.operand()?;
                return self.postfix(operand);
            }
        };
        self.at += 1;
        let expr = self.nested(|p| p.binary(UNARY_PRECEDENCE))?;
        let span = sign.span.to(expr.span);
        if let ExprKind::Number(number) = expr.kind {
            let value = if negative {
                -number.value
            } else {
                number.value
            };
            let kind = ExprKind::Number(Number { value, ..number });
            return Ok(Expr { kind, span });
        }
        self.height = self.grow(self.height, span)?;
        let kind = ExprKind::Unary(Box::new(Unary { negative, expr }));
        Ok(Expr { kind, span })
    }

    fn operand(&mut self) -> Parsed<Expr> {
        let lexeme = self.peek();
        self.height = 1;
        match lexeme.token {
            Token::Number | Token::Duration => self.number(lexeme),
            Token::String => {
                let kind = ExprKind::String(self.string()?);
                Ok(Expr {
                    kind,
                    span: lexeme.span,
                })
            }
            Token::LeftParen => self.paren(lexeme),
            Token::LeftBrace => self.selector(None),
            Token::Aggregator(op) if self.aggregates() => self.aggregate(op),
            Token::Identifier | Token::Keyword(Keyword::Start | Keyword::End)
                if self.second() == Token::LeftParen =>
            {
                self.call()
            }
            Token::Identifier
            | Token::MetricIdentifier
            | Token::Aggregator(_)
            | Token::Operator(BinaryOp::And | BinaryOp::Or | BinaryOp::Unless)
            | Token::Keyword(
                Keyword::By | Keyword::Without | Keyword::Offset | Keyword::Start | Keyword::End,
            ) => {
                self.at += 1;
                self.selector(Some(lexeme))
            }
            _ => Err(self.unexpected("", "")),
        }
    }

    fn number(&mut self, lexeme: Lexeme) -> Parsed<Expr> {
        self.at += 1;
        let text = self.source(lexeme);
        let duration = lexeme.token == Token::Duration;
        let value = if duration {
            literal::duration_ms(text).map(|ms| ms as f64 / 1000.0)
        } else {
            literal::number(text)
        };
        let value = value.map_err(|message| error(lexeme.span, message))?;
        Ok(Expr {
            kind: ExprKind::Number(Number { value, duration }),
            span: lexeme.span,
        })
    }

    fn paren(&mut self, open: Lexeme) -> Parsed<Expr> {
        self.at += 1;
        let inner = self.nested(|p| p.binary(1))?;
        let close = self.expect(Token::RightParen, "", "")?;
        let span = open.span.to(close.span);
        self.height = self.grow(self.height, span)?;
        Ok(Expr {
            kind: ExprKind::Paren(Box::new(inner)),
            span,
        })
    }

    fn call(&mut self) -> Parsed<Expr> {
        let name = self.peek();
        self.at += 1;
        let function = signature::function(self.source(name)).ok_or_else(|| {
            let message = format!("unknown function with name {}", GoQuoted(self.source(name)));
            error(name.span, message)
        })?;
        if function.experimental && !self.features.experimental_functions {
            let message = format!("function {} is not enabled", GoQuoted(function.name));
            return Err(error(name.span, message));
        }
        let (args, close) = self.arguments()?;
        let span = name.span.to(close);
        self.height = self.grow(self.height, span)?;
        Ok(Expr {
            kind: ExprKind::Call(Box::new(Call { function, args })),
            span,
        })
    }

    /// Whether the aggregation's name at hand begins an aggregation rather than a metric's name.
    fn aggregates(&self) -> bool {
        matches!(
            self.second(),
            Token::LeftParen | Token::Keyword(Keyword::By | Keyword::Without)
        )
    }

    fn aggregate(&mut self, op: AggregateOp) -> Parsed<Expr> {
        let name = self.peek();
        if op.is_experimental() && !self.features.experimental_functions {
            let message = format!(
                "{}() is experimental and must be enabled with --enable-feature=promql-experimental-functions",
                op.as_str()
            );
            return Err(error(name.span, message));
        }
        self.at += 1;
        let before = self.grouping()?;
        let (mut args, close) = self.arguments()?;
        let height = self.height;
        let after = if before.is_none() {
            self.grouping()?
        } else {
            None
        };
        let span = after
            .as_ref()
            .map_or(name.span.to(close), |(_, _, end)| name.span.to(*end));
        let want = 1 + usize::from(op.param_type().is_some());
        if args.is_empty() {
            let message = "no arguments for aggregate expression provided";
            return Err(error(span, message.to_owned()));
        }
        if args.len() != want {
            let got = args.len();
            let message = format!(
                "wrong number of arguments for aggregate expression provided, expected {want}, got {got}"
            );
            return Err(error(span, message));
        }
        let expr = args.pop().expect("there is at least one argument");
        let (without, labels, _) = before.or(after).unwrap_or((false, Vec::new(), span));
        self.height = self.grow(height, span)?;
        let aggregate = Aggregate {
            op,
            param: args.pop(),
            expr,
            without,
            labels,
        };
        Ok(Expr {
            kind: ExprKind::Aggregate(Box::new(aggregate)),
            span,
        })
    }

    /// `by (...)` or `without (...)`, if it is there: whether `without`, the labels, the end.
    fn grouping(&mut self) -> Parsed<Option<(bool, Vec<String>, Span)>> {
        let without = match self.peek().token {
            Token::Keyword(Keyword::By) => false,
            Token::Keyword(Keyword::Without) => true,
            _ => return Ok(None),
        };
        self.at += 1;
        let labels = self.label_list()?;
        Ok(Some((without, labels, self.previous().span)))
    }

    /// `(a, b, ...)` with expressions, and the place of the closing one.
    fn arguments(&mut self) -> Parsed<(Vec<Expr>, Span)> {
        self.expect(Token::LeftParen, "", "")?;
        let mut args = Vec::new();
        let mut height = 0;
        if self.peek().token != Token::RightParen {
            loop {
                args.push(self.nested(|p| p.binary(1))?);
                height = height.max(self.height);
                if !self.accept(Token::Comma) {
                    break;
                }
                if self.peek().token == Token::RightParen {
                    let message = "trailing commas not allowed in function call args";
                    return Err(error(self.previous().span, message.to_owned()));
                }
            }
        }
        let close = self.expect(Token::RightParen, "", "")?;
        self.height = height;
        Ok((args, close.span))
    }

    /// `(a, b, ...)` with label names; a trailing comma is allowed.
    fn label_list(&mut self) -> Parsed<Vec<String>> {
        let context = "grouping opts";
        self.expect(Token::LeftParen, context, "\"(\"")?;
        let mut labels = Vec::new();
        while self.peek().token != Token::RightParen {
            labels.push(self.label_name(context)?);
            if !self.accept(Token::Comma) && self.peek().token != Token::RightParen {
                return Err(self.unexpected(context, "\",\" or \")\""));
            }
        }
        self.at += 1;
        Ok(labels)
    }

    fn label_name(&mut self, context: &str) -> Parsed<String> {
        let lexeme = self.peek();
        match lexeme.token {
            Token::String => {
                let name = self.string()?;
                if name.is_empty() {
                    let message = "invalid label name for grouping: \"\"";
                    return Err(error(lexeme.span, message.to_owned()));
                }
                Ok(name)
            }
            Token::Identifier
            | Token::Keyword(_)
            | Token::Aggregator(_)
            | Token::Operator(BinaryOp::And | BinaryOp::Or | BinaryOp::Unless | BinaryOp::Atan2) => {
                self.at += 1;
                Ok(self.source(lexeme).to_owned())
            }
            _ => Err(self.unexpected(context, "label")),
        }
    }

    fn string(&mut self) -> Parsed<String> {
        let lexeme = self.peek();
        self.at += 1;
        literal::unquote(self.source(lexeme)).map_err(|message| error(lexeme.span, message))
    }

    /// Runs one level of recursion deeper.
    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.nesting == NESTING_MAX {
            let message = format!("query is nested more than {NESTING_MAX} levels deep");
            return Err(error(self.peek().span, message));
        }
        self.nesting += 1;
        let result = parse(self);
        self.nesting -= 1;
        result
    }

    /// The height of a node above one of this height.
    fn grow(&self, height: usize, span: Span) -> Parsed<usize> {
        if height >= HEIGHT_MAX {
            let message = format!("query has more than {HEIGHT_MAX} levels of operators");
            return Err(error(span, message));
        }
        Ok(height + 1)
    }

    fn peek(&self) -> Lexeme {
        self.lexed.lexemes[self.at]
    }

    /// The token after the next one.
    fn second(&self) -> Token {
        self.lexed
            .lexemes
            .get(self.at + 1)
            .map_or(Token::End, |lexeme| lexeme.token)
    }

    fn previous(&self) -> Lexeme {
        self.lexed.lexemes[self.at - 1]
    }

    fn accept(&mut self, token: Token) -> bool {
        let there = self.peek().token == token;
        self.at += usize::from(there);
        there
    }

    fn expect(&mut self, token: Token, context: &str, expected: &str) -> Parsed<Lexeme> {
        if self.accept(token) {
            Ok(self.previous())
        } else {
            Err(self.unexpected(context, expected))
        }
    }

    fn source(&self, lexeme: Lexeme) -> &str {
        &self.text[lexeme.span.range()]
    }
}

fn join(op: BinaryOp, lhs: Expr, rhs: Expr, returns_bool: bool, matching: Matching) -> Expr {
    let scalars = lhs.value_type() == Type::Scalar && rhs.value_type() == Type::Scalar;
    let span = lhs.span.to(rhs.span);
    let binary = Binary {
        op,
        lhs,
        rhs,
        returns_bool,
        matching,
        value_type: if scalars { Type::Scalar } else { Type::Vector },
    };
    Expr {
        kind: ExprKind::Binary(Box::new(binary)),
        span,
    }
}

#[cfg(test)]
mod tests;
