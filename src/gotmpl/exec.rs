//! Walks the tree, as Go's `text/template` does; error texts name the same places.

use std::fmt;

use super::ast::{Branch, Call, Command, Node, Operand, Pipe, Term};
use super::functions::{Body, Context, Function, Param};
use super::lexer::Number;
use super::value::{Map, Value};
use super::{Budget, Env, ExecError, Template, methods, printf};

/// Expands `template` over `data`.
///
/// # Errors
/// As Go would fail, and when a limit is passed.
pub(super) fn execute(
    template: &Template,
    data: &Value,
    env: &Env<'_>,
) -> Result<String, ExecError> {
    let mut state = State {
        template,
        env,
        budget: Budget::new(env.limits),
        out: String::new(),
        variables: vec![("$", data.clone())],
        running: &template.name,
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
struct Place<'t> {
    pos: usize,
    node: &'t dyn fmt::Display,
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

struct State<'t, 'e> {
    template: &'t Template,
    env: &'t Env<'e>,
    budget: Budget,
    out: String,
    variables: Vec<(&'t str, Value)>,
    /// The name of the running template.
    running: &'t str,
    depth: usize,
    place: Option<Place<'t>>,
}

type Result<T, E = ExecError> = std::result::Result<T, E>;

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
            Node::Text(text) => self.write(text)?,
            Node::Action(action) => {
                self.at(Place {
                    pos: action.pos,
                    node: action,
                });
                let value = self.pipeline(dot, &action.pipe)?;
                if action.pipe.variables.is_empty() {
                    self.write(&printf::display(&value))?;
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
        let Some((name, list)) = self.template.defined.get_key_value(&call.name) else {
            return self.fail(&format!("template {:?} not defined", call.name));
        };
        let data = match &call.pipe {
            Some(pipe) => self.pipeline(dot, pipe)?,
            None => Value::Nil,
        };
        let variables = std::mem::replace(&mut self.variables, vec![("$", data.clone())]);
        let running = std::mem::replace(&mut self.running, name);
        self.list(&data, list)?;
        self.variables = variables;
        self.running = running;
        Ok(())
    }

    /// The value of a pipeline. Its variables stay declared.
    fn pipeline(&mut self, dot: &Value, pipe: &'t Pipe) -> Result<Value> {
        self.enter()?;
        self.at(Place {
            pos: pipe.pos,
            node: pipe,
        });
        let mut value = None;
        for command in &pipe.commands {
            value = Some(self.command(dot, command, value)?);
        }
        let value = value.unwrap_or(Value::Nil);
        for name in &pipe.variables {
            if pipe.assign {
                self.assign(name, value.clone())?;
            } else {
                self.variables.push((name, value.clone()));
            }
        }
        self.depth -= 1;
        Ok(value)
    }

    /// `last` is the value of the command before, which becomes the last argument.
    fn command(&mut self, dot: &Value, command: &'t Command, last: Option<Value>) -> Result<Value> {
        self.step()?;
        let (first, args) = command.args.split_first().expect("a command has a word");
        match &first.term {
            Term::Field(names) => {
                self.at(first.into());
                return self.fields(dot, dot.clone(), first, names, args, last);
            }
            Term::Chain(operand, names) => {
                return self.chain(dot, first, operand, names, args, last);
            }
            Term::Function(function) => {
                self.at(first.into());
                return self.call(dot, function, None, command.into(), args, last);
            }
            Term::Variable(name, names) => {
                return self.variable(dot, first, (name, names), args, last);
            }
            Term::Pipe(pipe) => {
                self.not_a_function(first, args, &last)?;
                return self.pipeline(dot, pipe);
            }
            _ => {}
        }
        self.at(first.into());
        self.not_a_function(first, args, &last)?;
        match &first.term {
            Term::Bool(b) => Ok(Value::Bool(*b)),
            Term::Dot => Ok(dot.clone()),
            Term::Number { value, .. } => Ok(constant(*value)),
            Term::Str { text, .. } => Ok(Value::str(text.as_str())),
            _ => self.fail("nil is not a command"),
        }
    }

    fn not_a_function(
        &mut self,
        first: &Operand,
        args: &[Operand],
        last: &Option<Value>,
    ) -> Result<()> {
        if !args.is_empty() || last.is_some() {
            return self.fail(&format!("can't give argument to non-function {first}"));
        }
        Ok(())
    }

    fn variable(
        &mut self,
        dot: &Value,
        place: &'t Operand,
        (name, names): (&'t str, &'t [String]),
        args: &'t [Operand],
        last: Option<Value>,
    ) -> Result<Value> {
        self.at(place.into());
        let found = self.variables.iter().rev().find(|(n, _)| *n == name);
        let Some(value) = found.map(|(_, value)| value.clone()) else {
            return self.fail(&format!("undefined variable: {name}"));
        };
        if names.is_empty() {
            self.not_a_function(place, args, &last)?;
            return Ok(value);
        }
        self.fields(dot, value, place, names, args, last)
    }

    fn chain(
        &mut self,
        dot: &Value,
        place: &'t Operand,
        operand: &'t Operand,
        names: &'t [String],
        args: &'t [Operand],
        last: Option<Value>,
    ) -> Result<Value> {
        self.at(place.into());
        let value = self.arg(dot, Param::Any, operand)?;
        self.fields(dot, value, place, names, args, last)
    }

    /// `.a.b.c`; arguments belong to the last one.
    fn fields(
        &mut self,
        dot: &Value,
        mut value: Value,
        place: &'t Operand,
        names: &'t [String],
        args: &'t [Operand],
        last: Option<Value>,
    ) -> Result<Value> {
        let (name, first) = names.split_last().expect("a chain has a field");
        for name in first {
            value = self.field(dot, value, place, name, &[], None)?;
        }
        self.field(dot, value, place, name, args, last)
    }

    fn field(
        &mut self,
        dot: &Value,
        receiver: Value,
        place: &'t Operand,
        name: &str,
        args: &'t [Operand],
        last: Option<Value>,
    ) -> Result<Value> {
        if matches!(receiver, Value::Nil) {
            return Ok(Value::Nil);
        }
        if let Some(method) = methods::find(&receiver, name) {
            return self.call(dot, method, Some(receiver), place.into(), args, last);
        }
        let has_args = !args.is_empty() || last.is_some();
        match &receiver {
            Value::Struct(object) => {
                if let Some(value) = object.field(name) {
                    if has_args {
                        let text =
                            format!("{name} has arguments but cannot be invoked as function");
                        return self.fail(&text);
                    }
                    return Ok(value.clone());
                }
            }
            Value::Map(map) => {
                if has_args {
                    return self.fail(&format!("{name} is not a method but has arguments"));
                }
                return Ok(Map::lookup(map, name).clone());
            }
            _ => {}
        }
        let type_name = receiver.type_name();
        self.fail(&format!("can't evaluate field {name} in type {type_name}"))
    }

    fn call(
        &mut self,
        dot: &Value,
        function: &'static Function,
        receiver: Option<Value>,
        place: Place<'t>,
        args: &'t [Operand],
        last: Option<Value>,
    ) -> Result<Value> {
        self.check_count(function, args.len(), last.is_some())?;
        let body = match &function.body {
            Body::And => return self.until(dot, false, args, last),
            Body::Or => return self.until(dot, true, args, last),
            Body::Call(body) => body,
        };
        let mut values = Vec::with_capacity(args.len() + 2);
        values.extend(receiver);
        let params = function.params.iter().copied();
        let params = params.chain(std::iter::repeat(Param::Any));
        for (operand, param) in args.iter().zip(params.clone()) {
            values.push(self.arg(dot, param, operand)?);
        }
        if let Some(value) = last {
            let param = params.clone().nth(args.len()).unwrap_or(Param::Any);
            values.push(self.checked(value, param)?);
        }
        let mut context = Context {
            env: self.env,
            budget: &mut self.budget,
        };
        body(&mut context, &values).or_else(|message| {
            self.at(place);
            self.fail(&format!("error calling {}: {message}", function.name))
        })
    }

    fn check_count(&mut self, function: &Function, args: usize, last: bool) -> Result<()> {
        let (name, wanted) = (function.name, function.params.len());
        let given = args + usize::from(last);
        if function.variadic && given < wanted {
            let text =
                format!("wrong number of args for {name}: want at least {wanted} got {args}");
            return self.fail(&text);
        }
        if !function.variadic && given != wanted {
            let text = format!("wrong number of args for {name}: want {wanted} got {given}");
            return self.fail(&text);
        }
        Ok(())
    }

    /// `and` and `or`: the first argument that decides, else the last one.
    fn until(
        &mut self,
        dot: &Value,
        decides: bool,
        args: &'t [Operand],
        last: Option<Value>,
    ) -> Result<Value> {
        let mut value = Value::Nil;
        for operand in args {
            value = self.arg(dot, Param::Any, operand)?;
            if value.is_true() == decides {
                return Ok(value);
            }
        }
        Ok(last.unwrap_or(value))
    }

    /// The value of an argument for a parameter.
    fn arg(&mut self, dot: &Value, param: Param, operand: &'t Operand) -> Result<Value> {
        self.step()?;
        self.at(operand.into());
        let value = match &operand.term {
            Term::Dot => dot.clone(),
            Term::Nil if param.can_be_nil() => return Ok(Value::Nil),
            Term::Nil => {
                return self.fail(&format!("cannot assign nil to {}", param.type_name()));
            }
            Term::Field(names) => self.fields(dot, dot.clone(), operand, names, &[], None)?,
            Term::Variable(name, names) => self.variable(dot, operand, (name, names), &[], None)?,
            Term::Pipe(pipe) => self.pipeline(dot, pipe)?,
            Term::Function(function) => {
                self.call(dot, function, None, operand.into(), &[], None)?
            }
            Term::Chain(inner, names) => self.chain(dot, operand, inner, names, &[], None)?,
            Term::Bool(b) => return self.literal(Value::Bool(*b), param, operand),
            Term::Number { value, .. } => return self.literal(constant(*value), param, operand),
            Term::Str { text, .. } => {
                return self.literal(Value::str(text.as_str()), param, operand);
            }
        };
        self.checked(value, param)
    }

    fn literal(&mut self, value: Value, param: Param, operand: &Operand) -> Result<Value> {
        if param.accepts(&value) {
            return Ok(value);
        }
        if param == Param::Str {
            return self.fail(&format!("expected string; found {operand}"));
        }
        let name = param.type_name();
        self.fail(&format!("can't handle {operand} for arg of type {name}"))
    }

    fn checked(&mut self, value: Value, param: Param) -> Result<Value> {
        if param.accepts(&value) {
            return Ok(value);
        }
        if matches!(value, Value::Nil) {
            if param.can_be_nil() {
                return Ok(value);
            }
            return self.fail(&format!("invalid value; expected {}", param.type_name()));
        }
        let (wanted, got) = (param.type_name(), value.type_name());
        self.fail(&format!(
            "wrong type for value; expected {wanted}; got {got}"
        ))
    }

    fn assign(&mut self, name: &str, value: Value) -> Result<()> {
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

    fn step(&mut self) -> Result<()> {
        self.budget
            .spend_step()
            .or_else(|message| self.fail(&message))
    }

    fn enter(&mut self) -> Result<()> {
        self.depth += 1;
        let max = self.env.limits.depth_max;
        if self.depth > max {
            return self.fail(&format!("exceeded maximum template depth ({max})"));
        }
        Ok(())
    }

    fn at(&mut self, place: Place<'t>) {
        self.place = Some(place);
    }

    /// An error at the current place, as Go words it.
    fn fail<T>(&self, message: &str) -> Result<T> {
        let name = &self.template.name;
        let Some(place) = self.place else {
            return Err(ExecError(format!("template: {name}: {message}")));
        };
        let before = &self.template.text[..place.pos];
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

/// A constant alone: a float when it is written as one.
fn constant(number: Number) -> Value {
    match number {
        Number::Int(i) => Value::Int(i),
        Number::Float(f) => Value::Float(f),
    }
}
