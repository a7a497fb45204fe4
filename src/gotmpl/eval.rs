//! Values of pipelines, operands and calls.

use super::ast::{Command, Operand, Pipe, Term};
use super::exec::{Place, Result, State};
use super::functions::{Body, Context, Function, Param};
use super::lexer::Number;
use super::methods;
use super::value::{Map, Value};

impl<'t> State<'t, '_> {
    /// The value of a pipeline. Its variables stay declared.
    pub(super) fn pipeline(&mut self, dot: &Value, pipe: &'t Pipe) -> Result<Value> {
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
}

/// A constant alone: a float when it is written as one.
fn constant(number: Number) -> Value {
    match number {
        Number::Int(i) => Value::Int(i),
        Number::Float(f) => Value::Float(f),
    }
}
