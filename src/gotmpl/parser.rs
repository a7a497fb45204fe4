//! Tokens to the tree, with Go's rules and error texts.

use std::collections::BTreeMap;

use super::ParseError;
use super::ast::{Action, Branch, Call, Command, Node, Operand, Pipe, Term};
use super::functions::{self, Function};
use super::lexer::{self, Kind, LexError, Number, Token};

/// Parentheses and blocks may be nested this deep.
const DEPTH_MAX: usize = 100;

/// The parts of a parsed text.
pub(super) struct Parsed {
    /// The text outside of definitions.
    pub(super) root: Vec<Node>,
    /// `{{define "name"}}` and `{{block "name"}}`.
    pub(super) defined: BTreeMap<String, Vec<Node>>,
}

/// Parses a template.
///
/// # Errors
/// With line and reason in Go's words.
pub(super) fn parse(
    name: &str,
    text: &str,
    functions: &'static [Function],
) -> Result<Parsed, ParseError> {
    let located = |err: LexError| {
        let before = &text[..err.pos.min(text.len())];
        let line = 1 + before.matches('\n').count();
        ParseError(format!("template: {name}:{line}: {}", err.message))
    };
    let tokens = lexer::tokens(text).map_err(located)?;
    let mut parser = Parser {
        tokens,
        at: 0,
        functions,
        variables: vec!["$".to_owned()],
        ranges: 0,
        depth: 0,
        defined: BTreeMap::new(),
    };
    let root = parser.top().map_err(located)?;
    Ok(Parsed {
        root,
        defined: parser.defined,
    })
}

type Result<T, E = LexError> = std::result::Result<T, E>;

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
    functions: &'static [Function],
    /// The variables in scope.
    variables: Vec<String>,
    /// How many `range` blocks are open.
    ranges: usize,
    depth: usize,
    defined: BTreeMap<String, Vec<Node>>,
}

/// What ended a list of statements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    End,
    Else(Chained),
}

/// What directly follows an `else`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Chained {
    Nothing,
    If,
    With,
}

/// A statement, or the word that ends a list.
enum Item {
    Node(Node),
    Ending(Ending),
}

impl<'a> Parser<'a> {
    fn top(&mut self) -> Result<Vec<Node>> {
        let mut nodes = Vec::new();
        while self.peek().kind != Kind::End {
            if self.is_definition() {
                self.definition()?;
                continue;
            }
            match self.item()? {
                Item::Node(node) => nodes.push(node),
                Item::Ending(Ending::End) => return self.fail("unexpected {{end}}"),
                Item::Ending(Ending::Else(_)) => return self.fail("unexpected {{else}}"),
            }
        }
        Ok(nodes)
    }

    fn is_definition(&self) -> bool {
        let mut rest = self.tokens[self.at..]
            .iter()
            .filter(|t| t.kind != Kind::Space);
        rest.next().is_some_and(|t| t.kind == Kind::Left)
            && rest
                .next()
                .is_some_and(|t| t.kind == Kind::Keyword && t.text == "define")
    }

    fn definition(&mut self) -> Result<()> {
        self.next();
        self.next_word();
        let name = self.template_name("define clause")?;
        self.expect_right("define clause")?;
        let outer = std::mem::replace(&mut self.variables, vec!["$".to_owned()]);
        let (list, ending) = self.list()?;
        self.variables = outer;
        if ending != Ending::End {
            return self.fail("unexpected {{else}} in define clause");
        }
        self.defined.insert(name, list);
        Ok(())
    }

    /// Statements up to `end` or `else`.
    fn list(&mut self) -> Result<(Vec<Node>, Ending)> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return self.fail("blocks are nested too deep");
        }
        let mut nodes = Vec::new();
        while self.peek().kind != Kind::End {
            match self.item()? {
                Item::Node(node) => nodes.push(node),
                Item::Ending(ending) => {
                    self.depth -= 1;
                    return Ok((nodes, ending));
                }
            }
        }
        self.fail("unexpected EOF")
    }

    fn item(&mut self) -> Result<Item> {
        let token = self.next();
        match token.kind {
            Kind::Text => Ok(Item::Node(Node::Text(token.text.to_owned()))),
            Kind::Left => self.action(),
            _ => self.unexpected(token, "input"),
        }
    }

    /// What stands behind `{{`.
    fn action(&mut self) -> Result<Item> {
        let token = self.peek_word();
        if token.kind != Kind::Keyword || token.text == "nil" {
            let pipe = self.pipeline("command", Kind::Right)?;
            return Ok(Item::Node(Node::Action(Action {
                pos: token.pos,
                pipe,
            })));
        }
        self.next_word();
        let node = match token.text {
            "if" => Node::If(self.branch("if")?),
            "with" => Node::With(self.branch("with")?),
            "range" => Node::Range(self.branch("range")?),
            "template" => Node::Call(self.call()?),
            "block" => Node::Call(self.block()?),
            "break" | "continue" => self.jump(token)?,
            "end" => {
                self.expect_right("end")?;
                return Ok(Item::Ending(Ending::End));
            }
            "else" => return Ok(Item::Ending(Ending::Else(self.otherwise()?))),
            _ => return self.unexpected(token, "command"),
        };
        Ok(Item::Node(node))
    }

    fn jump(&mut self, token: Token<'a>) -> Result<Node> {
        self.expect_right(token.text)?;
        if self.ranges == 0 {
            return self.fail(&format!("{{{{{}}}}} outside {{{{range}}}}", token.text));
        }
        Ok(if token.text == "break" {
            Node::Break
        } else {
            Node::Continue
        })
    }

    fn otherwise(&mut self) -> Result<Chained> {
        let token = self.peek_word();
        match (token.kind, token.text) {
            (Kind::Keyword, "if") => Ok(Chained::If),
            (Kind::Keyword, "with") => Ok(Chained::With),
            _ => {
                self.expect_right("else")?;
                Ok(Chained::Nothing)
            }
        }
    }

    /// The pipeline and the lists of `if`, `with` and `range`.
    fn branch(&mut self, context: &'static str) -> Result<Branch> {
        let scope = self.variables.len();
        let pipe = self.pipeline(context, Kind::Right)?;
        let is_range = usize::from(context == "range");
        self.ranges += is_range;
        let (list, ending) = self.list()?;
        self.ranges -= is_range;
        let other = match ending {
            Ending::End => Vec::new(),
            Ending::Else(chained) => self.other_list(context, chained)?,
        };
        self.variables.truncate(scope);
        Ok(Branch { pipe, list, other })
    }

    /// What follows `else`; `else if` is an `if` that shares the `end`.
    fn other_list(&mut self, context: &str, chained: Chained) -> Result<Vec<Node>> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return self.fail("blocks are nested too deep");
        }
        let list = match chained {
            Chained::If if context == "if" => {
                self.next_word();
                vec![Node::If(self.branch("if")?)]
            }
            Chained::With if context == "with" => {
                self.next_word();
                vec![Node::With(self.branch("with")?)]
            }
            Chained::Nothing => {
                let (list, ending) = self.list()?;
                if ending != Ending::End {
                    return self.fail("expected end; found {{else}}");
                }
                list
            }
            _ => {
                let token = self.peek_word();
                return self.unexpected(token, "else");
            }
        };
        self.depth -= 1;
        Ok(list)
    }

    fn call(&mut self) -> Result<Call> {
        let pos = self.peek_word().pos;
        let name = self.template_name("template clause")?;
        let pipe = self.call_pipe("template clause")?;
        Ok(Call { pos, name, pipe })
    }

    /// `{{block "name" pipeline}}`: a definition and its call in one.
    fn block(&mut self) -> Result<Call> {
        let pos = self.peek_word().pos;
        let name = self.template_name("block clause")?;
        let pipe = Some(self.pipeline("block clause", Kind::Right)?);
        let outer = std::mem::replace(&mut self.variables, vec!["$".to_owned()]);
        let (list, ending) = self.list()?;
        self.variables = outer;
        if ending != Ending::End {
            return self.fail("unexpected {{else}} in block clause");
        }
        self.defined.insert(name.clone(), list);
        Ok(Call { pos, name, pipe })
    }

    fn call_pipe(&mut self, context: &'static str) -> Result<Option<Pipe>> {
        if self.peek_word().kind == Kind::Right {
            self.next_word();
            return Ok(None);
        }
        self.pipeline(context, Kind::Right).map(Some)
    }

    fn template_name(&mut self, context: &str) -> Result<String> {
        let token = self.next_word();
        match token.kind {
            Kind::Str | Kind::Raw => self.unquote(token),
            _ => self.unexpected(token, context),
        }
    }

    fn pipeline(&mut self, context: &str, end: Kind) -> Result<Pipe> {
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

    fn unquote(&self, token: Token<'a>) -> Result<String> {
        if token.kind == Kind::Raw {
            return Ok(token.text[1..token.text.len() - 1].replace('\r', ""));
        }
        match unquote(token.text) {
            Some(text) => Ok(text),
            None => self.fail("invalid syntax"),
        }
    }

    fn peek(&self) -> Token<'a> {
        self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn peek_word(&mut self) -> Token<'a> {
        while self.peek().kind == Kind::Space {
            self.at += 1;
        }
        self.peek()
    }

    fn next_word(&mut self) -> Token<'a> {
        self.peek_word();
        self.next()
    }

    fn expect_right(&mut self, context: &str) -> Result<()> {
        let token = self.next_word();
        match token.kind {
            Kind::Right => Ok(()),
            _ => self.unexpected(token, context),
        }
    }

    fn unexpected<T>(&self, token: Token<'a>, context: &str) -> Result<T> {
        let what = match token.kind {
            Kind::End => "EOF".to_owned(),
            Kind::Keyword | Kind::Dot => format!("<{}>", token.text),
            _ => format!("{:?}", token.text),
        };
        self.fail(&format!("unexpected {what} in {context}"))
    }

    fn fail<T>(&self, message: &str) -> Result<T> {
        let last = self.at.saturating_sub(1).min(self.tokens.len() - 1);
        Err(LexError {
            pos: self.tokens[last].pos,
            message: message.to_owned(),
        })
    }
}

/// Undoes the quotes and escapes of a Go string or character constant.
fn unquote(quoted: &str) -> Option<String> {
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
