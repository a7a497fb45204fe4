//! Selectors and what may follow an operand: `[5m]`, `[1h:5m]`, `offset`, `@`.

use super::super::ast::{At, BinaryOp, Bounds, Expr, ExprKind, Matrix, Selector, Span, Subquery};
use super::super::length::Length;
use super::super::lexer::{Keyword, Lexeme, Token};
use super::super::literal::{self, GoQuoted};
use super::{Parsed, Parser, error};
use crate::model::labels::METRIC_NAME;
use crate::model::{MatchOp, Matcher, Timestamp};

impl Parser<'_> {
    /// A selector whose bare name, if any, is `name` and already taken.
    pub(super) fn selector(&mut self, name: Option<Lexeme>) -> Parsed<Expr> {
        let first = name.unwrap_or_else(|| self.peek());
        let mut selector = Selector {
            name: name.map_or_else(String::new, |name| self.source(name).to_owned()),
            matchers: Vec::new(),
            offset: Length::default(),
            at: None,
            bounds: Bounds::Inside,
        };
        if self.accept(Token::LeftBrace) {
            self.matchers(&mut selector)?;
        }
        let span = first.span.to(self.previous().span);
        self.add_name(&mut selector, span)?;
        Ok(Expr {
            kind: ExprKind::Selector(Box::new(selector)),
            span,
        })
    }

    /// Turns the bare name into a matcher.
    fn add_name(&self, selector: &mut Selector, span: Span) -> Parsed<()> {
        if selector.name.is_empty() {
            return Ok(());
        }
        let name = &selector.name;
        if let Some(second) = selector.matchers.iter().find(|m| m.name == METRIC_NAME) {
            let message = format!(
                "metric name must not be set twice: {} or {}",
                GoQuoted(name),
                GoQuoted(&second.value)
            );
            return Err(error(span, message));
        }
        let matcher = Matcher::equal(METRIC_NAME, name);
        selector.matchers.push(matcher);
        Ok(())
    }

    /// `a="b", "c", ...}` after the opening brace.
    fn matchers(&mut self, selector: &mut Selector) -> Parsed<()> {
        while !self.accept(Token::RightBrace) {
            self.matcher(selector)?;
            if !self.accept(Token::Comma) && self.peek().token != Token::RightBrace {
                return Err(self.unexpected("label matching", "\",\" or \"}\""));
            }
        }
        Ok(())
    }

    fn matcher(&mut self, selector: &mut Selector) -> Parsed<()> {
        const CONTEXT: &str = "label matching";
        let first = self.peek();
        let name = match first.token {
            Token::Identifier => {
                self.at += 1;
                self.source(first).to_owned()
            }
            Token::String => self.string()?,
            _ => return Err(self.unexpected(CONTEXT, "identifier or \"}\"")),
        };
        let op = match self.peek().token {
            Token::Assign => MatchOp::Equal,
            Token::Operator(BinaryOp::NotEqual) => MatchOp::NotEqual,
            Token::RegexEqual => MatchOp::Regex,
            Token::RegexNotEqual => MatchOp::NotRegex,
            Token::Comma | Token::RightBrace if first.token == Token::String => {
                return quoted_name(selector, name, first.span);
            }
            _ => return Err(self.unexpected(CONTEXT, "label matching operator")),
        };
        self.at += 1;
        if self.peek().token != Token::String {
            return Err(self.unexpected(CONTEXT, "string"));
        }
        let span = self.peek().span;
        let value = self.string()?;
        if name.is_empty() {
            let message = "invalid label name for matcher: \"\"";
            return Err(error(first.span, message.to_owned()));
        }
        let matcher =
            Matcher::new(&name, op, &value).map_err(|err| error(span, err.to_string()))?;
        selector.matchers.push(matcher);
        Ok(())
    }

    /// Everything that may follow an operand.
    pub(super) fn postfix(&mut self, mut expr: Expr) -> Parsed<Expr> {
        loop {
            expr = match self.peek().token {
                Token::LeftBracket => self.range(expr)?,
                Token::Keyword(Keyword::Offset) => self.offset(expr)?,
                Token::At => self.at_time(expr)?,
                Token::Identifier => match self.bounds() {
                    Some(bounds) => self.bounded(expr, bounds)?,
                    None => return Ok(expr),
                },
                _ => return Ok(expr),
            };
        }
    }

    /// `[5m]` or `[1h:]` or `[1h:5m]`
    fn range(&mut self, expr: Expr) -> Parsed<Expr> {
        const CONTEXT: &str = "subquery or range selector";
        self.at += 1;
        let range = self.positive_length(CONTEXT)?;
        if self.accept(Token::RightBracket) {
            return self.matrix(expr, range);
        }
        self.expect(Token::Colon, CONTEXT, "\":\" or \"]\"")?;
        let step = match self.peek().token {
            Token::RightBracket => None,
            _ => Some(self.positive_length(CONTEXT)?),
        };
        let close = self.expect(Token::RightBracket, CONTEXT, "\"]\"")?;
        let span = expr.span.to(close.span);
        self.height = self.grow(self.height, span)?;
        let subquery = Subquery {
            expr,
            range,
            step,
            offset: Length::default(),
            at: None,
        };
        Ok(Expr {
            kind: ExprKind::Subquery(Box::new(subquery)),
            span,
        })
    }

    fn matrix(&mut self, expr: Expr, range: Length) -> Parsed<Expr> {
        let span = expr.span.to(self.previous().span);
        let ExprKind::Selector(selector) = expr.kind else {
            let message = "ranges only allowed for vector selectors";
            return Err(error(expr.span, message.to_owned()));
        };
        let modifier = match &*selector {
            Selector { bounds, .. } if *bounds != Bounds::Inside => bounds.as_str(),
            Selector { offset, .. } if !offset.is_none() => "offset",
            Selector { at: Some(_), .. } => "@",
            _ => {
                let matrix = Matrix {
                    selector: *selector,
                    range,
                };
                let kind = ExprKind::Matrix(Box::new(matrix));
                return Ok(Expr { kind, span });
            }
        };
        let message = format!("no {modifier} modifiers allowed before range");
        Err(error(expr.span, message))
    }

    fn offset(&mut self, mut expr: Expr) -> Parsed<Expr> {
        self.at += 1;
        let length = self.offset_length()?;
        let span = expr.span.to(self.previous().span);
        let offset = match &mut expr.kind {
            ExprKind::Selector(selector) => &mut selector.offset,
            ExprKind::Matrix(matrix) => &mut matrix.selector.offset,
            ExprKind::Subquery(subquery) => &mut subquery.offset,
            _ => return Err(error(span, misplaced("offset"))),
        };
        if !offset.is_none() {
            let message = "offset may not be set multiple times";
            return Err(error(span, message.to_owned()));
        }
        *offset = length;
        expr.span = span;
        Ok(expr)
    }

    fn at_time(&mut self, mut expr: Expr) -> Parsed<Expr> {
        self.at += 1;
        let time = self.time()?;
        let span = expr.span.to(self.previous().span);
        let at = match &mut expr.kind {
            ExprKind::Selector(selector) => &mut selector.at,
            ExprKind::Matrix(matrix) => &mut matrix.selector.at,
            ExprKind::Subquery(subquery) => &mut subquery.at,
            _ => return Err(error(span, misplaced("@"))),
        };
        if at.is_some() {
            let message = "@ <timestamp> may not be set multiple times";
            return Err(error(span, message.to_owned()));
        }
        *at = Some(time);
        expr.span = span;
        Ok(expr)
    }

    /// What follows `@`: a signed number or duration, `start()` or `end()`.
    fn time(&mut self) -> Parsed<At> {
        let first = self.peek();
        let named = match first.token {
            Token::Keyword(Keyword::Start) => Some(At::Start),
            Token::Keyword(Keyword::End) => Some(At::End),
            _ => None,
        };
        if let Some(at) = named {
            self.at += 1;
            self.expect(Token::LeftParen, "@", "\"(\"")?;
            self.expect(Token::RightParen, "@", "\")\"")?;
            return Ok(at);
        }
        let negative = self.accept(Token::Operator(BinaryOp::Sub));
        if !negative {
            self.accept(Token::Operator(BinaryOp::Add));
        }
        let seconds = self.seconds("@", "timestamp")?;
        let seconds = if negative { -seconds } else { seconds };
        // As Prometheus: the time in milliseconds must fit into 64 bits.
        if !(seconds * 1000.0).is_finite() || (seconds * 1000.0).abs() >= i64::MAX as f64 {
            let message = format!("timestamp out of bounds for @ modifier: {seconds:.6}");
            return Err(error(first.span, message));
        }
        Ok(At::Time(Timestamp::from_secs_f64(seconds)))
    }

    /// The word at hand as `anchored` or `smoothed`.
    fn bounds(&self) -> Option<Bounds> {
        let word = self.source(self.peek());
        let mut all = [Bounds::Anchored, Bounds::Smoothed].into_iter();
        all.find(|bounds| bounds.as_str().eq_ignore_ascii_case(word))
    }

    fn bounded(&mut self, mut expr: Expr, bounds: Bounds) -> Parsed<Expr> {
        let word = self.peek();
        let name = bounds.as_str();
        if !self.features.extended_range_selectors {
            let message = format!("{name} modifier is experimental and not enabled");
            return Err(error(word.span, message));
        }
        self.at += 1;
        let span = expr.span.to(word.span);
        let slot = match &mut expr.kind {
            ExprKind::Selector(_) if bounds == Bounds::Anchored => {
                let message = "anchored modifier can only be used with range vector selectors";
                return Err(error(span, message.to_owned()));
            }
            ExprKind::Selector(selector) => &mut selector.bounds,
            ExprKind::Matrix(matrix) => &mut matrix.selector.bounds,
            ExprKind::Subquery(_) => {
                let message = format!("{name} modifier is not supported for subqueries");
                return Err(error(span, message));
            }
            _ => {
                let message = format!("{name} modifier not implemented for this expression");
                return Err(error(span, message));
            }
        };
        if *slot != Bounds::Inside {
            let message = "anchored and smoothed modifiers cannot be used together";
            return Err(error(span, message.to_owned()));
        }
        *slot = bounds;
        expr.span = span;
        Ok(expr)
    }

    /// A number or a duration in seconds.
    pub(super) fn seconds(&mut self, context: &str, expected: &str) -> Parsed<f64> {
        let lexeme = self.peek();
        let value = match lexeme.token {
            Token::Number => literal::number(self.source(lexeme)),
            Token::Duration => {
                literal::duration_ms(self.source(lexeme)).map(|ms| ms as f64 / 1000.0)
            }
            _ => return Err(self.unexpected(context, expected)),
        };
        self.at += 1;
        value.map_err(|message| error(lexeme.span, message))
    }
}

/// `{"metric.name"}`
fn quoted_name(selector: &mut Selector, name: String, span: Span) -> Parsed<()> {
    if !selector.name.is_empty() {
        let message = format!(
            "metric name must not be set twice: {} or {}",
            GoQuoted(&selector.name),
            GoQuoted(&name)
        );
        return Err(error(span, message));
    }
    if name.is_empty() {
        return Err(error(span, "invalid metric name: \"\"".to_owned()));
    }
    selector.name = name;
    Ok(())
}

fn misplaced(modifier: &str) -> String {
    format!(
        "{modifier} modifier must be preceded by an instant vector selector or range vector selector or a subquery"
    )
}
