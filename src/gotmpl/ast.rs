//! The parsed template. Printed forms are Go's, because error texts quote them.

use std::fmt;

use super::functions::Function;
use super::lexer::Number;

/// A statement.
#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Action(Action),
    If(Branch),
    With(Branch),
    Range(Branch),
    Call(Call),
    Break,
    Continue,
}

/// `{{pipeline}}`
#[derive(Debug)]
pub(super) struct Action {
    pub(super) pos: usize,
    pub(super) pipe: Pipe,
}

/// `{{if}}`, `{{with}}` or `{{range}}` up to its `{{end}}`.
#[derive(Debug)]
pub(super) struct Branch {
    pub(super) pipe: Pipe,
    pub(super) list: Vec<Node>,
    pub(super) other: Vec<Node>,
}

/// `{{template "name" pipeline}}`
#[derive(Debug)]
pub(super) struct Call {
    pub(super) pos: usize,
    pub(super) name: String,
    pub(super) pipe: Option<Pipe>,
}

/// Commands of which each gets the value of the one before as its last argument.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) pos: usize,
    /// `=` rather than `:=`.
    pub(super) assign: bool,
    pub(super) variables: Vec<String>,
    pub(super) commands: Vec<Command>,
}

/// An operand, or a function with its arguments.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) pos: usize,
    pub(super) args: Vec<Operand>,
}

impl Command {
    /// The function that it calls, if it calls one.
    pub(super) fn function_name(&self) -> Option<&'static str> {
        match self.args.first()?.term {
            Term::Function(function) => Some(function.name),
            _ => None,
        }
    }
}

/// One word of a command.
#[derive(Debug)]
pub(super) struct Operand {
    pub(super) pos: usize,
    pub(super) term: Term,
}

/// What a word is.
#[derive(Debug)]
pub(super) enum Term {
    Bool(bool),
    Dot,
    Nil,
    Field(Vec<String>),
    Variable(String, Vec<String>),
    Function(&'static Function),
    Number {
        text: String,
        value: Number,
    },
    Str {
        /// As it is written.
        quoted: String,
        text: String,
    },
    Pipe(Pipe),
    Chain(Box<Operand>, Vec<String>),
}

impl Term {
    /// Whether it can stand behind a `|`.
    pub(super) fn is_executable(&self) -> bool {
        !matches!(
            self,
            Term::Bool(_) | Term::Dot | Term::Nil | Term::Number { .. } | Term::Str { .. }
        )
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{{{}}}}}", self.pipe)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{{template {:?}", self.name)?;
        if let Some(pipe) = &self.pipe {
            write!(f, " {pipe}")?;
        }
        f.write_str("}}")
    }
}

impl fmt::Display for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.variables.is_empty() {
            let sign = if self.assign { "=" } else { ":=" };
            write!(f, "{} {sign} ", self.variables.join(", "))?;
        }
        separated(f, &self.commands, " | ")
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        separated(f, &self.args, " ")
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.term {
            Term::Bool(b) => write!(f, "{b}"),
            Term::Dot => f.write_str("."),
            Term::Nil => f.write_str("nil"),
            Term::Field(names) => fields(f, names),
            Term::Variable(name, names) => {
                f.write_str(name)?;
                fields(f, names)
            }
            Term::Function(function) => f.write_str(function.name),
            Term::Number { text, .. } => f.write_str(text),
            Term::Str { quoted, .. } => f.write_str(quoted),
            Term::Pipe(pipe) => write!(f, "({pipe})"),
            Term::Chain(operand, names) => {
                write!(f, "{operand}")?;
                fields(f, names)
            }
        }
    }
}

fn fields(f: &mut fmt::Formatter<'_>, names: &[String]) -> fmt::Result {
    names.iter().try_for_each(|name| write!(f, ".{name}"))
}

fn separated<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    items: &[T],
    separator: &str,
) -> fmt::Result {
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            f.write_str(separator)?;
        }
        write!(f, "{item}")?;
    }
    Ok(())
}
