//! Renders a parsed template with data.

use kfactory_sandbox::CancelToken;

use super::budget::Budget;
use super::functions::{self, Fault};
use super::parse::{Command, Node, Operand, Pipeline};
use super::value::Value;
use super::{Failure, Template};

/// A template that renders to more than this is an attack on memory.
const MAX_BYTES: usize = 64 << 20;
/// Templates that call one another more deeply than this never end.
const MAX_CALLS: usize = 200;
/// More steps than any template of a person takes.
const MAX_STEPS: usize = 2_000_000;

/// What ends the rendering of nodes early.
enum Stop {
    Failed(Failure),
    Break,
    Continue,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Stop::Failed(failure)
    }
}

pub(super) fn render(
    template: &Template,
    data: &Value,
    stop: Option<&CancelToken>,
) -> Result<String, Failure> {
    let mut state = State {
        template,
        out: String::new(),
        variables: vec![(String::new(), data.clone())],
        calls: 0,
        steps: 0,
        budget: Budget::until(stop),
    };
    match state.nodes(&template.nodes, data) {
        Ok(()) | Err(Stop::Break | Stop::Continue) => Ok(state.out),
        Err(Stop::Failed(failure)) => Err(failure),
    }
}

struct State<'a> {
    template: &'a Template,
    out: String,
    variables: Vec<(String, Value)>,
    calls: usize,
    steps: usize,
    budget: Budget,
}

impl State<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<(), Stop> {
        for node in nodes {
            self.node(node, dot)?;
        }
        Ok(())
    }

    fn write(&mut self, line: usize, text: &str) -> Result<(), Failure> {
        if self.out.len() + text.len() > MAX_BYTES {
            return Err(Failure::failed(
                line,
                format!("the result has more than {MAX_BYTES} bytes"),
            ));
        }
        self.charge(line, text.len())?;
        self.out.push_str(text);
        Ok(())
    }

    fn step(&mut self, line: usize) -> Result<(), Failure> {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return Err(Failure::failed(line, "it does not end"));
        }
        let going = self.budget.check_stop();
        going.map_err(|message| Failure::failed(line, message))
    }

    fn charge(&self, line: usize, bytes: usize) -> Result<(), Failure> {
        let charged = self.budget.charge(bytes);
        charged.map_err(|message| Failure::failed(line, message))
    }

    /// Copies a value, which costs as much as making it.
    fn copy(&self, line: usize, value: &Value) -> Result<Value, Failure> {
        let made = self.budget.made(value);
        made.map_err(|message| Failure::failed(line, message))?;
        Ok(value.clone())
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<(), Stop> {
        match node {
            Node::Text(text) => {
                self.step(0)?;
                self.write(0, text)?;
            }
            Node::Action(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                if pipeline.variables.is_empty() {
                    self.write(pipeline.line, &value.printed())?;
                }
            }
            Node::If(pipeline, body, otherwise) => {
                let depth = self.variables.len();
                let value = self.pipeline(pipeline, dot)?;
                let done = self.nodes(if value.is_true() { body } else { otherwise }, dot);
                self.variables.truncate(depth);
                done?;
            }
            Node::With(pipeline, body, otherwise) => {
                let depth = self.variables.len();
                let value = self.pipeline(pipeline, dot)?;
                let done = if value.is_true() {
                    self.nodes(body, &value)
                } else {
                    self.nodes(otherwise, dot)
                };
                self.variables.truncate(depth);
                done?;
            }
            Node::Range(pipeline, body, otherwise) => self.range(pipeline, body, otherwise, dot)?,
            Node::Template(line, name, data) => self.call(*line, name, data.as_ref(), dot)?,
            Node::Break => return Err(Stop::Break),
            Node::Continue => return Err(Stop::Continue),
        }
        Ok(())
    }

    fn call(
        &mut self,
        line: usize,
        name: &str,
        data: Option<&Pipeline>,
        dot: &Value,
    ) -> Result<(), Stop> {
        let Some(nodes) = self.template.defined.get(name) else {
            return Err(Failure::failed(line, format!("template {name:?} not defined")).into());
        };
        self.step(line)?;
        let value = match data {
            Some(pipeline) => self.pipeline(pipeline, dot)?,
            None => Value::Nil,
        };
        self.calls += 1;
        if self.calls > MAX_CALLS {
            return Err(Failure::failed(line, "templates call one another without end").into());
        }
        let root = self.copy(line, &value)?;
        let outer = std::mem::replace(&mut self.variables, vec![(String::new(), root)]);
        let done = self.nodes(nodes, &value);
        self.variables = outer;
        self.calls -= 1;
        done
    }

    fn range(
        &mut self,
        pipeline: &Pipeline,
        body: &[Node],
        otherwise: &[Node],
        dot: &Value,
    ) -> Result<(), Stop> {
        let depth = self.variables.len();
        let value = self.value_of(pipeline, dot)?;
        let count = match &value {
            Value::List(items) => items.len(),
            Value::Map(entries) => entries.len(),
            Value::Int(count) => usize::try_from(*count).unwrap_or(0).min(MAX_STEPS),
            _ => 0,
        };
        self.charge(pipeline.line, count * size_of::<(Value, Value)>())?;
        let items: Vec<(Value, Value)> = match value {
            Value::List(items) => {
                let number = |at| Value::Int(i64::try_from(at).unwrap_or(i64::MAX));
                items
                    .into_iter()
                    .enumerate()
                    .map(|(at, item)| (number(at), item))
                    .collect()
            }
            Value::Map(entries) => entries
                .into_iter()
                .map(|(key, item)| (Value::Text(key), item))
                .collect(),
            Value::Int(count) => {
                let most = count.clamp(0, MAX_STEPS as i64);
                (0..most)
                    .map(|number| (Value::Int(number), Value::Int(number)))
                    .collect()
            }
            Value::Nil => Vec::new(),
            other => {
                let message = format!("range can't iterate over {}", other.shown());
                return Err(Failure::failed(pipeline.line, message).into());
            }
        };
        if items.is_empty() {
            let done = self.nodes(otherwise, dot);
            self.variables.truncate(depth);
            return done;
        }
        for (key, item) in items {
            self.step(pipeline.line)?;
            self.variables.truncate(depth);
            match pipeline.variables.as_slice() {
                [one] => self.set(pipeline, one, self.copy(pipeline.line, &item)?)?,
                [one, two] => {
                    self.set(pipeline, one, key)?;
                    self.set(pipeline, two, self.copy(pipeline.line, &item)?)?;
                }
                _ => {}
            }
            match self.nodes(body, &item) {
                Err(Stop::Break) => break,
                Ok(()) | Err(Stop::Continue) => {}
                failed => return failed,
            }
        }
        self.variables.truncate(depth);
        Ok(())
    }

    /// Evaluates a pipeline and gives its value to its variables.
    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, Failure> {
        let value = self.value_of(pipeline, dot)?;
        for name in &pipeline.variables {
            self.set(pipeline, name, self.copy(pipeline.line, &value)?)?;
        }
        Ok(value)
    }

    fn set(&mut self, pipeline: &Pipeline, name: &str, value: Value) -> Result<(), Failure> {
        if pipeline.declares {
            self.variables.push((name.to_owned(), value));
            return Ok(());
        }
        match self
            .variables
            .iter_mut()
            .rev()
            .find(|(known, _)| known == name)
        {
            Some((_, slot)) => {
                *slot = value;
                Ok(())
            }
            None => Err(Failure::failed(
                pipeline.line,
                format!("undefined variable: ${name}"),
            )),
        }
    }

    fn value_of(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, Failure> {
        let mut value = None;
        for command in &pipeline.commands {
            self.step(pipeline.line)?;
            value = Some(self.command(pipeline.line, command, dot, value)?);
        }
        let value = value.unwrap_or(Value::Nil);
        match value {
            Value::Refused(what) => Err(Failure::refused(pipeline.line, what)),
            value => Ok(value),
        }
    }

    fn command(
        &mut self,
        line: usize,
        command: &Command,
        dot: &Value,
        piped: Option<Value>,
    ) -> Result<Value, Failure> {
        let (first, arguments) = (&command.operands[0], &command.operands[1..]);
        let Operand::Function(at, name) = first else {
            if !arguments.is_empty() || piped.is_some() {
                return Err(Failure::failed(
                    line,
                    "a value that is no function is given arguments",
                ));
            }
            if matches!(first, Operand::Nil) {
                return Err(Failure::failed(line, "nil is not a command"));
            }
            return self.operand(line, first, dot);
        };
        if name == "and" || name == "or" {
            return self.short_circuit(*at, name == "and", arguments, dot, piped);
        }
        let mut values = Vec::with_capacity(arguments.len() + 1);
        for argument in arguments {
            values.push(self.operand(*at, argument, dot)?);
        }
        values.extend(piped);
        if let Some(Value::Refused(what)) = values
            .iter()
            .find(|value| matches!(value, Value::Refused(_)))
        {
            return Err(Failure::refused(*at, what.clone()));
        }
        self.called(*at, name, values)
    }

    /// `and` and `or` look at no argument after the one that decides.
    fn short_circuit(
        &mut self,
        line: usize,
        is_and: bool,
        arguments: &[Operand],
        dot: &Value,
        piped: Option<Value>,
    ) -> Result<Value, Failure> {
        let mut last = None;
        for argument in arguments {
            let value = self.operand(line, argument, dot)?;
            let decides = value.is_true() != is_and;
            last = Some(value);
            if decides {
                return Ok(last.unwrap_or(Value::Nil));
            }
        }
        piped
            .or(last)
            .ok_or_else(|| Failure::failed(line, "wrong number of args: want at least 1 got 0"))
    }

    fn operand(&mut self, line: usize, operand: &Operand, dot: &Value) -> Result<Value, Failure> {
        Ok(match operand {
            Operand::Dot => self.copy(line, dot)?,
            Operand::Nil => Value::Nil,
            Operand::Bool(value) => Value::Bool(*value),
            Operand::Int(number) => Value::Int(*number),
            Operand::Float(number) => Value::Float(*number),
            Operand::Text(text) => {
                self.charge(line, text.len())?;
                Value::Text(text.clone())
            }
            Operand::Fields(fields) => self.field(line, dot, fields)?,
            Operand::Variable(name, fields) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                let Some((_, value)) = found else {
                    return Err(Failure::failed(
                        line,
                        format!("undefined variable: ${name}"),
                    ));
                };
                self.field(line, value, fields)?
            }
            Operand::Group(pipeline, fields) => {
                let value = self.pipeline(pipeline, dot)?;
                match fields.is_empty() {
                    true => value,
                    false => self.field(line, &value, fields)?,
                }
            }
            Operand::Function(at, name) => self.called(*at, name, Vec::new())?,
        })
    }

    fn called(&self, line: usize, name: &str, arguments: Vec<Value>) -> Result<Value, Failure> {
        functions::call(name, arguments, &self.budget).map_err(|fault| match fault {
            Fault::Failed(message) => Failure::failed(line, format!("{name}: {message}")),
            Fault::Unsupported(message) => Failure::refused(line, format!("`{name}`: {message}")),
        })
    }

    /// Looks up one key after the other. A missing key is nothing, and so is all below it; a key of a nil is an error.
    fn field(&self, line: usize, value: &Value, fields: &[String]) -> Result<Value, Failure> {
        let mut at = value;
        for (index, name) in fields.iter().enumerate() {
            at = match at {
                Value::Version(release) => {
                    let found = release.field(name).ok_or_else(|| {
                        Failure::refused(line, format!("`{name}` of a version is not available"))
                    })?;
                    return self.field(line, &found, &fields[index + 1..]);
                }
                Value::Map(entries) => match entries.get(name) {
                    Some(found) => found,
                    None => return Ok(Value::Nil),
                },
                Value::Nil => {
                    let message = format!("nil pointer evaluating interface {{}}.{name}");
                    return Err(Failure::failed(line, message));
                }
                Value::Refused(what) => return Err(Failure::refused(line, what.clone())),
                other => {
                    let message = format!("can't evaluate field {name} in type {}", other.kind());
                    return Err(Failure::failed(line, message));
                }
            };
        }
        self.copy(line, at)
    }
}
