//! Pipelines, commands and operands.

use super::ast::{Command, Operand, Pipe, Term};
use super::functions::{self, Function};
use super::lexer::{self, Kind, Number, Token};
use super::parser::{DEPTH_MAX, Parser, Result};
use super::quote::unquote;

impl<'a> Parser<'a> {
    pub(super) fn pipeline(&mut self, context: &str, end: Kind) -> Result<Pipe> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return self.fail("parentheses are nested too deep");
        }
        let mut pipe = Pipe {
            pos: self.peek_word().pos,
            assign: false,
            variables: Vec::new(),
            commands: Vec::new(),
        };
        self.declarations(context, &mut pipe)?;
        loop {
            let token = self.peek_word();
            if token.kind == end {
                self.next_word();
                break;
            }
            match token.kind {
                Kind::Bool
                | Kind::Char
                | Kind::Dot
                | Kind::Field
                | Kind::Identifier
                | Kind::Number
                | Kind::Raw
                | Kind::Str
                | Kind::Variable
                | Kind::LeftParen => pipe.commands.push(self.command()?),
                Kind::Keyword if token.text == "nil" => pipe.commands.push(self.command()?),
                _ => return self.unexpected(token, context),
            }
        }
        self.check_pipe(context, &pipe)?;
        self.depth -= 1;
        Ok(pipe)
    }

    fn check_pipe(&self, context: &str, pipe: &Pipe) -> Result<()> {
        if pipe.commands.is_empty() {
            return self.fail(&format!("missing value for {context}"));
        }
        let bad = pipe.commands[1..]
            .iter()
            .position(|command| !command.args[0].term.is_executable());
        match bad {
            Some(i) => self.fail(&format!(
                "non executable command in pipeline stage {}",
                i + 2
            )),
            None => Ok(()),
        }
    }

    /// `$x :=`, `$x =`, and in `range` also `$i, $x :=`.
    fn declarations(&mut self, context: &str, pipe: &mut Pipe) -> Result<()> {
        loop {
            let start = self.at;
            let variable = self.peek_word();
            if variable.kind != Kind::Variable {
                return Ok(());
            }
            self.next_word();
            let sign = self.peek_word();
            match sign.kind {
                Kind::Assign | Kind::Declare => {
                    self.next_word();
                    pipe.assign = sign.kind == Kind::Assign;
                    pipe.variables.push(variable.text.to_owned());
                    self.variables.push(variable.text.to_owned());
                    return Ok(());
                }
                Kind::Comma => {
                    self.next_word();
                    pipe.variables.push(variable.text.to_owned());
                    self.variables.push(variable.text.to_owned());
                    if context != "range" || pipe.variables.len() > 1 {
                        return self.fail(&format!("too many declarations in {context}"));
                    }
                    if self.peek_word().kind != Kind::Variable {
                        return self.fail("range can only initialize variables");
                    }
                }
                _ => {
                    self.at = start;
                    return Ok(());
                }
            }
        }
    }

    fn command(&mut self) -> Result<Command> {
        let mut command = Command {
            pos: self.peek_word().pos,
            args: Vec::new(),
        };
        loop {
            if let Some(operand) = self.operand()? {
                command.args.push(operand);
            }
            let token = self.peek();
            match token.kind {
                Kind::Space => {
                    self.next();
                }
                Kind::Right | Kind::RightParen => break,
                Kind::Pipe => {
                    self.next();
                    break;
                }
                _ => return self.unexpected(token, "operand"),
            }
        }
        if command.args.is_empty() {
            return self.fail("empty command");
        }
        Ok(command)
    }

    /// A term with the fields behind it.
    fn operand(&mut self) -> Result<Option<Operand>> {
        let Some(operand) = self.term()? else {
            return Ok(None);
        };
        if self.peek().kind != Kind::Field {
            return Ok(Some(operand));
        }
        let pos = self.peek().pos;
        let mut names = Vec::new();
        while self.peek().kind == Kind::Field {
            names.push(self.next().text[1..].to_owned());
        }
        let term = match operand.term {
            Term::Field(mut first) => {
                first.append(&mut names);
                Term::Field(first)
            }
            Term::Variable(name, mut first) => {
                first.append(&mut names);
                Term::Variable(name, first)
            }
            Term::Bool(_) | Term::Str { .. } | Term::Number { .. } | Term::Nil | Term::Dot => {
                let text = format!("unexpected . after term {:?}", operand.to_string());
                return self.fail(&text);
            }
            _ => Term::Chain(Box::new(operand), names),
        };
        Ok(Some(Operand { pos, term }))
    }

    fn term(&mut self) -> Result<Option<Operand>> {
        let token = self.peek_word();
        let term = match token.kind {
            Kind::Identifier => Term::Function(self.function(token)?),
            Kind::Dot => Term::Dot,
            Kind::Keyword if token.text == "nil" => Term::Nil,
            Kind::Variable => self.variable(token)?,
            Kind::Field => Term::Field(vec![token.text[1..].to_owned()]),
            Kind::Bool => Term::Bool(token.text == "true"),
            Kind::Char => self.character(token)?,
            Kind::Number => self.number(token)?,
            Kind::Str | Kind::Raw => Term::Str {
                quoted: token.text.to_owned(),
                text: self.unquote(token)?,
            },
            Kind::LeftParen => {
                self.next_word();
                let pipe = self.pipeline("parenthesized pipeline", Kind::RightParen)?;
                return Ok(Some(Operand {
                    pos: pipe.pos,
                    term: Term::Pipe(pipe),
                }));
            }
            _ => return Ok(None),
        };
        self.next_word();
        Ok(Some(Operand {
            pos: token.pos,
            term,
        }))
    }

    fn function(&self, token: Token<'a>) -> Result<&'static Function> {
        match functions::find(self.functions, token.text) {
            Some(function) => Ok(function),
            None => self.fail(&format!("function {:?} not defined", token.text)),
        }
    }

    fn variable(&self, token: Token<'a>) -> Result<Term> {
        if !self.variables.iter().any(|v| v == token.text) {
            return self.fail(&format!("undefined variable {:?}", token.text));
        }
        Ok(Term::Variable(token.text.to_owned(), Vec::new()))
    }

    fn number(&self, token: Token<'a>) -> Result<Term> {
        match lexer::number_value(token.text) {
            Some(value) => Ok(Term::Number {
                text: token.text.to_owned(),
                value,
            }),
            None => {
                let digits = token.text.trim_start_matches(['+', '-']);
                let whole = digits.bytes().all(|b| b.is_ascii_digit());
                let what = if whole {
                    "integer overflow"
                } else {
                    "illegal number syntax"
                };
                self.fail(&format!("{what}: {:?}", token.text))
            }
        }
    }

    fn character(&self, token: Token<'a>) -> Result<Term> {
        let text = unquote(token.text);
        let mut chars = text.as_deref().unwrap_or_default().chars();
        match (chars.next(), chars.next()) {
            (Some(c), None) => Ok(Term::Number {
                text: token.text.to_owned(),
                value: Number::Int(i64::from(u32::from(c))),
            }),
            _ => self.fail(&format!("malformed character constant: {}", token.text)),
        }
    }

    pub(super) fn unquote(&self, token: Token<'a>) -> Result<String> {
        if token.kind == Kind::Raw {
            return Ok(token.text[1..token.text.len() - 1].replace('\r', ""));
        }
        match unquote(token.text) {
            Some(text) => Ok(text),
            None => self.fail("invalid syntax"),
        }
    }
}
