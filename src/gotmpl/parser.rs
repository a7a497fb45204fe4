//! Tokens to the tree of statements, with Go's rules and error texts.

use std::collections::BTreeMap;

use super::ParseError;
use super::ast::{Action, Branch, Call, Node, Pipe};
use super::functions::Function;
use super::lexer::{self, Kind, LexError, Token};

/// Parentheses and blocks may be nested this deep.
pub(super) const DEPTH_MAX: usize = 100;

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

pub(super) type Result<T, E = LexError> = std::result::Result<T, E>;

/// The tokens and what is known so far.
pub(super) struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    pub(super) at: usize,
    pub(super) functions: &'static [Function],
    /// The variables in scope.
    pub(super) variables: Vec<String>,
    /// How many `range` blocks are open.
    ranges: usize,
    pub(super) depth: usize,
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

    pub(super) fn peek(&self) -> Token<'a> {
        self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    pub(super) fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        self.at += 1;
        token
    }

    pub(super) fn peek_word(&mut self) -> Token<'a> {
        while self.peek().kind == Kind::Space {
            self.at += 1;
        }
        self.peek()
    }

    pub(super) fn next_word(&mut self) -> Token<'a> {
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

    pub(super) fn unexpected<T>(&self, token: Token<'a>, context: &str) -> Result<T> {
        let what = match token.kind {
            Kind::End => "EOF".to_owned(),
            Kind::Keyword | Kind::Dot => format!("<{}>", token.text),
            _ => format!("{:?}", token.text),
        };
        self.fail(&format!("unexpected {what} in {context}"))
    }

    pub(super) fn fail<T>(&self, message: &str) -> Result<T> {
        let last = self.at.saturating_sub(1).min(self.tokens.len() - 1);
        Err(LexError {
            pos: self.tokens[last].pos,
            message: message.to_owned(),
        })
    }
}
