//! Lengths of time: numbers, durations and what is computed from them.

use super::super::ast::{BinaryOp, Number, Span};
use super::super::length::{Length, LengthExpr, PickName, QueryLengths};
use super::super::lexer::Token;
use super::super::literal;
use super::{Parsed, Parser, error};

const EXPECTED: &str = "number or duration";

/// A sign binds as tight as multiplication, as everywhere.
const SIGN_PRECEDENCE: u8 = 6;

impl Parser<'_> {
    /// What stands in brackets: an expression of lengths that is more than nothing.
    pub(super) fn positive_length(&mut self, context: &str) -> Parsed<Length> {
        let span = self.peek().span;
        let height = self.height;
        let expr = self.length_expr(1, context)?;
        self.height = height;
        let length = finish(expr, span)?;
        if length.ms <= 0 && !length.depends_on_query() {
            return Err(error(span, "duration must be greater than 0".to_owned()));
        }
        Ok(length)
    }

    /// What stands after `offset`: one operand with an optional sign, so that
    /// `a offset 1m + b` adds to what is offset.
    pub(super) fn offset_length(&mut self) -> Parsed<Length> {
        let span = self.peek().span;
        let height = self.height;
        let sign = self.sign();
        let operand = self.length_operand("offset")?;
        self.height = height;
        finish(signed(sign, operand), span)
    }

    /// Operands joined by operators that bind at least as tight as `min`.
    fn length_expr(&mut self, min: u8, context: &str) -> Parsed<LengthExpr> {
        let mut lhs = match self.sign() {
            None => self.length_operand(context)?,
            sign => {
                let inner = self.nested(|p| p.length_expr(SIGN_PRECEDENCE, context))?;
                self.height = self.grow(self.height, self.previous().span)?;
                signed(sign, inner)
            }
        };
        let mut height = self.height;
        while let Token::Operator(op) = self.peek().token {
            let arithmetic = op.precedence() >= BinaryOp::Add.precedence();
            if !arithmetic || op == BinaryOp::Atan2 || op.precedence() < min {
                break;
            }
            self.at += 1;
            let next_min = op.precedence() + u8::from(op != BinaryOp::Pow);
            let rhs = self.nested(|p| p.length_expr(next_min, context))?;
            height = self.grow(height.max(self.height), self.previous().span)?;
            lhs = LengthExpr::Binary {
                op,
                lhs: Box::new(lhs),
                rhs: Box::new(rhs),
            };
        }
        self.height = height;
        Ok(lhs)
    }

    fn length_operand(&mut self, context: &str) -> Parsed<LengthExpr> {
        let lexeme = self.peek();
        self.height = 1;
        match lexeme.token {
            Token::Number | Token::Duration => {
                self.at += 1;
                let text = self.source(lexeme);
                let duration = lexeme.token == Token::Duration;
                let value = if duration {
                    literal::duration_ms(text).map(|ms| ms as f64 / 1000.0)
                } else {
                    literal::number(text)
                };
                let value = value.map_err(|message| error(lexeme.span, message))?;
                Ok(LengthExpr::Number(Number { value, duration }))
            }
            Token::LeftParen => {
                self.at += 1;
                let inner = self.nested(|p| p.length_expr(1, context))?;
                self.expect(Token::RightParen, context, "\")\"")?;
                self.height = self.grow(self.height, lexeme.span)?;
                Ok(match inner {
                    LengthExpr::Number(number) => LengthExpr::Number(number),
                    inner => LengthExpr::Paren(Box::new(inner)),
                })
            }
            Token::Identifier | Token::Aggregator(_) if self.second() == Token::LeftParen => {
                self.length_call(context)
            }
            _ => Err(self.unexpected(context, EXPECTED)),
        }
    }

    /// `step()`, `range()`, `min_of(a, b)`, `max_of(a, b)`
    fn length_call(&mut self, context: &str) -> Parsed<LengthExpr> {
        let name = self.source(self.peek()).to_owned();
        let of_query = match name.to_ascii_lowercase().as_str() {
            "step" => Some(LengthExpr::Step),
            "range" => Some(LengthExpr::Range),
            _ => None,
        };
        let pick = PickName::named(&name);
        if of_query.is_none() && pick.is_none() {
            return Err(self.unexpected(context, EXPECTED));
        }
        // The name and the parenthesis.
        self.at += 2;
        let call = match pick {
            None => of_query.expect("one of both is known"),
            Some(name) => {
                let lhs = Box::new(self.nested(|p| p.length_expr(1, context))?);
                let height = self.height;
                self.expect(Token::Comma, context, "\",\"")?;
                let rhs = Box::new(self.nested(|p| p.length_expr(1, context))?);
                self.height = self.grow(height.max(self.height), self.previous().span)?;
                LengthExpr::Pick { name, lhs, rhs }
            }
        };
        self.expect(Token::RightParen, context, "\")\"")?;
        Ok(call)
    }

    /// Whether a sign comes, and which.
    fn sign(&mut self) -> Option<bool> {
        if self.accept(Token::Operator(BinaryOp::Sub)) {
            Some(true)
        } else {
            self.accept(Token::Operator(BinaryOp::Add)).then_some(false)
        }
    }
}

fn signed(sign: Option<bool>, inner: LengthExpr) -> LengthExpr {
    match (sign, inner) {
        (None, inner) => inner,
        (Some(negative), LengthExpr::Number(number)) => LengthExpr::Number(Number {
            value: if negative {
                -number.value
            } else {
                number.value
            },
            ..number
        }),
        (Some(negative), inner) => LengthExpr::Signed {
            negative,
            inner: Box::new(inner),
        },
    }
}

/// Computes what does not depend on the query.
fn finish(expr: LengthExpr, span: Span) -> Parsed<Length> {
    let fail = |message: String| error(span, message);
    match expr {
        LengthExpr::Number(number) => literal::seconds_to_ms(number.value)
            .map(Length::constant)
            .ok_or_else(|| fail("duration out of range".to_owned())),
        expr => {
            let ms = if expr.depends_on_query() {
                0
            } else {
                expr.ms(QueryLengths::default()).map_err(fail)?
            };
            let expr = Some(Box::new(expr));
            Ok(Length { ms, expr })
        }
    }
}
