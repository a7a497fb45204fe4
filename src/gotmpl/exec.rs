//! Walks the statements, as Go's `text/template` does; error texts name the same places.

use std::fmt;

use super::ast::{Branch, Call, Command, Node, Operand};
use super::escape::Escape;
use super::value::Value;
use super::{Budget, Env, ExecError, Template, printf};

/// Expands `template` over `data`; with `escape`, values are made harmless.
///
/// # Errors
/// As Go would fail, and when a limit is passed.
pub(super) fn execute(
    template: &Template,
    data: &Value,
    env: &Env<'_>,
    escape: Option<Escape>,
) -> Result<String, ExecError> {
    let mut state = State {
        template,
        env,
        budget: Budget::new(env.limits),
        out: String::new(),
        escape,
        variables: vec![("$", data.clone())],
        running: &template.name,
        source: &template.text,
        depth: 0,
        place: None,
    };
    state.list(data, &template.root)?;
    Ok(state.out)
}

/// How the walk goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

/// A part of the template that an error can name.
#[derive(Clone, Copy)]
pub(super) struct Place<'t> {
    pub(super) pos: usize,
    pub(super) node: &'t dyn fmt::Display,
}

impl<'t> From<&'t Operand> for Place<'t> {
    fn from(operand: &'t Operand) -> Place<'t> {
        Place {
            pos: operand.pos,
            node: operand,
        }
    }
}

impl<'t> From<&'t Command> for Place<'t> {
    fn from(command: &'t Command) -> Place<'t> {
        Place {
            pos: command.pos,
            node: command,
        }
    }
}

/// A running expansion.
pub(super) struct State<'t, 'e> {
    template: &'t Template,
    pub(super) env: &'t Env<'e>,
    pub(super) budget: Budget,
    out: String,
    escape: Option<Escape>,
    pub(super) variables: Vec<(&'t str, Value)>,
    /// The name of the running template.
    running: &'t str,
    /// The text that its places are counted in.
    source: &'t str,
    pub(super) depth: usize,
    place: Option<Place<'t>>,
}

pub(super) type Result<T, E = ExecError> = std::result::Result<T, E>;

impl<'t> State<'t, '_> {
    fn list(&mut self, dot: &Value, nodes: &'t [Node]) -> Result<Flow> {
        self.enter()?;
        let mut flow = Flow::Next;
        for node in nodes {
            self.step()?;
            flow = self.node(dot, node)?;
            if flow != Flow::Next {
                break;
            }
        }
        self.depth -= 1;
        Ok(flow)
    }

    fn node(&mut self, dot: &Value, node: &'t Node) -> Result<Flow> {
        match node {
            Node::Text(text) => match self.escape.as_mut().map(|escape| escape.text(text)) {
                Some(text) => self.write(&text)?,
                None => self.write(text)?,
            },
            Node::Action(action) => {
                self.at(Place {
                    pos: action.pos,
                    node: action,
                });
                let value = self.pipeline(dot, &action.pipe)?;
                if action.pipe.variables.is_empty() {
                    let shown = printf::display(&value);
                    let last = action.pipe.commands.last();
                    let last = last.and_then(Command::function_name);
                    match self.escape.as_mut().map(|e| e.value(&shown, last)) {
                        Some(escaped) => self.write(&escaped)?,
                        None => self.write(&shown)?,
                    }
                }
            }
            Node::If(branch) => return self.branch(dot, branch, false),
            Node::With(branch) => return self.branch(dot, branch, true),
            Node::Range(branch) => return self.range(dot, branch),
            Node::Call(call) => self.call_template(dot, call)?,
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn branch(&mut self, dot: &Value, branch: &'t Branch, with: bool) -> Result<Flow> {
        let scope = self.variables.len();
        let value = self.pipeline(dot, &branch.pipe)?;
        let flow = match (value.is_true(), with) {
            (true, true) => self.list(&value, &branch.list),
            (true, false) => self.list(dot, &branch.list),
            (false, _) => self.list(dot, &branch.other),
        };
        self.variables.truncate(scope);
        flow
    }

    fn range(&mut self, dot: &Value, branch: &'t Branch) -> Result<Flow> {
        let scope = self.variables.len();
        let value = self.pipeline(dot, &branch.pipe)?;
        let elements: Box<dyn Iterator<Item = (Value, Value)>> = match &value {
            Value::List(list) => {
                let items = list.items.clone().into_iter();
                Box::new((0..).map(Value::Int).zip(items))
            }
            Value::Map(map) => Box::new(map.entries.clone().into_iter().map(pair)),
            // As Go since 1.22.
            Value::Int(count) => Box::new((0..*count).map(|i| (Value::Int(i), Value::Int(i)))),
            Value::Nil => Box::new(std::iter::empty()),
            other => {
                let shown = printf::display(other);
                return self.fail(&format!("range can't iterate over {shown}"));
            }
        };
        let mut was_empty = true;
        for (key, item) in elements {
            was_empty = false;
            if self.iterate(branch, key, item)? == Flow::Break {
                break;
            }
        }
        let flow = if was_empty {
            self.list(dot, &branch.other)?
        } else {
            Flow::Next
        };
        self.variables.truncate(scope);
        Ok(flow)
    }

    fn iterate(&mut self, branch: &'t Branch, key: Value, item: Value) -> Result<Flow> {
        self.step()?;
        let scope = self.variables.len();
        match (branch.pipe.variables.as_slice(), branch.pipe.assign) {
            ([one], true) => self.assign(one, item.clone())?,
            ([first, second], true) => {
                self.assign(first, key)?;
                self.assign(second, item.clone())?;
            }
            ([_], false) => self.variables[scope - 1].1 = item.clone(),
            ([_, _], false) => {
                self.variables[scope - 2].1 = key;
                self.variables[scope - 1].1 = item.clone();
            }
            _ => {}
        }
        let flow = self.list(&item, &branch.list);
        self.variables.truncate(scope);
        flow
    }

    fn call_template(&mut self, dot: &Value, call: &'t Call) -> Result<()> {
        self.at(Place {
            pos: call.pos,
            node: call,
        });
        let Some((name, source, list)) = self.template.definition(&call.name) else {
            return self.fail(&format!("template {:?} not defined", call.name));
        };
        let data = match &call.pipe {
            Some(pipe) => self.pipeline(dot, pipe)?,
            None => Value::Nil,
        };
        let variables = std::mem::replace(&mut self.variables, vec![("$", data.clone())]);
        let running = std::mem::replace(&mut self.running, name);
        let before = std::mem::replace(&mut self.source, source);
        self.list(&data, list)?;
        self.variables = variables;
        self.running = running;
        self.source = before;
        Ok(())
    }

    pub(super) fn assign(&mut self, name: &str, value: Value) -> Result<()> {
        match self.variables.iter_mut().rev().find(|(n, _)| *n == name) {
            Some(variable) => {
                variable.1 = value;
                Ok(())
            }
            None => self.fail(&format!("undefined variable: {name}")),
        }
    }

    fn write(&mut self, text: &str) -> Result<()> {
        match self.budget.spend_bytes(text.len()) {
            Ok(()) => {
                self.out.push_str(text);
                Ok(())
            }
            Err(message) => self.fail(&message),
        }
    }

    pub(super) fn step(&mut self) -> Result<()> {
        self.budget
            .spend_step()
            .or_else(|message| self.fail(&message))
    }

    pub(super) fn enter(&mut self) -> Result<()> {
        self.depth += 1;
        let max = self.env.limits.depth_max;
        if self.depth > max {
            return self.fail(&format!("exceeded maximum template depth ({max})"));
        }
        Ok(())
    }

    pub(super) fn at(&mut self, place: Place<'t>) {
        self.place = Some(place);
    }

    /// An error at the current place, as Go words it.
    pub(super) fn fail<T>(&self, message: &str) -> Result<T> {
        let name = &self.template.name;
        let Some(place) = self.place else {
            return Err(ExecError(format!("template: {name}: {message}")));
        };
        let before = &self.source[..place.pos];
        let line = 1 + before.matches('\n').count();
        let column = before.len() - before.rfind('\n').map_or(0, |at| at + 1);
        let (running, node) = (self.running, place.node);
        Err(ExecError(format!(
            "template: {name}:{line}:{column}: executing {running:?} at <{node}>: {message}"
        )))
    }
}

fn pair((key, value): (String, Value)) -> (Value, Value) {
    (Value::str(key), value)
}
