//! From words to a tree.
//!
//! Spec: Go `text/template`, "Actions" and "Pipelines".

use std::collections::BTreeMap;

use super::functions::{self, Known};
use super::lex::{Kind, Token, lex};
use super::{Failure, Template};

/// More than this many actions inside one another is no template of a person.
const MAX_DEPTH: usize = 100;

/// A part of a template.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Text(String),
    /// Prints a value, unless it only declares a variable.
    Action(Pipeline),
    If(Pipeline, Vec<Node>, Vec<Node>),
    With(Pipeline, Vec<Node>, Vec<Node>),
    Range(Pipeline, Vec<Node>, Vec<Node>),
    Template(usize, String, Option<Pipeline>),
    Break,
    Continue,
}

/// Commands, each given the value of the one before it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pipeline {
    pub(super) line: usize,
    /// Variables that get the value.
    pub(super) variables: Vec<String>,
    /// Whether these are made, rather than set.
    pub(super) declares: bool,
    pub(super) commands: Vec<Command>,
}

/// A value, or a function and its arguments.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Command {
    pub(super) operands: Vec<Operand>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operand {
    Dot,
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    /// `.a.b`
    Fields(Vec<String>),
    /// `$x.a.b`
    Variable(String, Vec<String>),
    Function(usize, String),
    /// `(pipeline).a.b`
    Group(Box<Pipeline>, Vec<String>),
}

/// How a list of nodes ended.
enum End {
    Text,
    Done,
    Else,
}

pub(super) fn parse(text: &str) -> Result<Template, Failure> {
    let tokens = lex(text)?;
    let mut parser = Parser {
        tokens: tokens.into_iter().peekable(),
        line: 0,
        scopes: vec![vec![String::new()]],
        loops: 0,
        depth: 0,
        defined: BTreeMap::new(),
    };
    let (nodes, end) = parser.nodes()?;
    if let End::Done | End::Else = end {
        return parser.fail("unexpected {{end}} or {{else}}");
    }
    Ok(Template {
        nodes,
        defined: parser.defined,
    })
}

struct Parser {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
    line: usize,
    /// Variables that may be used here.
    scopes: Vec<Vec<String>>,
    loops: usize,
    depth: usize,
    defined: BTreeMap<String, Vec<Node>>,
}

impl Parser {
    fn fail<T>(&self, message: impl Into<String>) -> Result<T, Failure> {
        Err(Failure::not_a_template(self.line, message))
    }

    fn next(&mut self) -> Option<Kind> {
        let token = self.tokens.next()?;
        self.line = token.line;
        Some(token.kind)
    }

    fn peek(&mut self) -> Option<&Kind> {
        self.tokens.peek().map(|token| &token.kind)
    }

    fn deeper<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.fail("actions are nested too deeply");
        }
        let done = read(self);
        self.depth -= 1;
        done
    }

    /// Reads text and actions up to the end, an `end` or an `else`, whose opening mark and word are taken.
    fn nodes(&mut self) -> Result<(Vec<Node>, End), Failure> {
        let mut out = Vec::new();
        while let Some(kind) = self.next() {
            match kind {
                Kind::Text(text) => out.push(Node::Text(text)),
                Kind::Open => {
                    let word = match self.peek() {
                        Some(Kind::Name(word)) => word.clone(),
                        _ => String::new(),
                    };
                    match word.as_str() {
                        "end" => {
                            self.next();
                            self.close()?;
                            return Ok((out, End::Done));
                        }
                        "else" => {
                            self.next();
                            return Ok((out, End::Else));
                        }
                        word => {
                            if let Some(node) = self.action(word)? {
                                out.push(node);
                            }
                        }
                    }
                }
                _ => return self.fail("unexpected word"),
            }
        }
        Ok((out, End::Text))
    }

    fn close(&mut self) -> Result<(), Failure> {
        match self.next() {
            Some(Kind::Close) => Ok(()),
            _ => self.fail("expected the end of the action"),
        }
    }

    fn action(&mut self, word: &str) -> Result<Option<Node>, Failure> {
        match word {
            "if" | "with" | "range" => {
                self.next();
                self.deeper(|parser| parser.control(word)).map(Some)
            }
            "template" => {
                self.next();
                let name = self.quoted()?;
                let line = self.line;
                let data = match self.peek() {
                    Some(Kind::Close) => None,
                    _ => Some(self.pipeline(false)?),
                };
                self.close()?;
                Ok(Some(Node::Template(line, name, data)))
            }
            "define" => {
                self.next();
                if self.depth > 0 {
                    return self.fail("{{define}} inside another action");
                }
                let name = self.quoted()?;
                self.close()?;
                self.definition(name)?;
                Ok(None)
            }
            "block" => {
                self.next();
                let name = self.quoted()?;
                let line = self.line;
                let data = self.pipeline(false)?;
                self.close()?;
                self.definition(name.clone())?;
                Ok(Some(Node::Template(line, name, Some(data))))
            }
            "break" | "continue" => {
                self.next();
                if self.loops == 0 {
                    return self.fail(format!("{{{{{word}}}}} outside {{{{range}}}}"));
                }
                self.close()?;
                Ok(Some(if word == "break" {
                    Node::Break
                } else {
                    Node::Continue
                }))
            }
            _ => {
                let pipeline = self.pipeline(true)?;
                self.close()?;
                Ok(Some(Node::Action(pipeline)))
            }
        }
    }

    fn quoted(&mut self) -> Result<String, Failure> {
        match self.next() {
            Some(Kind::Quoted(name)) => Ok(name),
            _ => self.fail("expected the name of a template in quotes"),
        }
    }

    fn definition(&mut self, name: String) -> Result<(), Failure> {
        let outer = std::mem::replace(&mut self.scopes, vec![vec![String::new()]]);
        let loops = std::mem::take(&mut self.loops);
        let (nodes, end) = self.deeper(Self::nodes)?;
        self.scopes = outer;
        self.loops = loops;
        match end {
            End::Done => {
                self.defined.insert(name, nodes);
                Ok(())
            }
            _ => self.fail("a definition without {{end}}"),
        }
    }

    /// Reads what follows `if`, `with` or `range`.
    fn control(&mut self, word: &str) -> Result<Node, Failure> {
        self.scopes.push(Vec::new());
        let pipeline = if word == "range" {
            self.range_pipeline()?
        } else {
            self.pipeline(true)?
        };
        self.close()?;
        let is_loop = word == "range";
        self.loops += usize::from(is_loop);
        let (body, end) = self.nodes()?;
        self.loops -= usize::from(is_loop);
        let otherwise = match end {
            End::Text => return self.fail(format!("{{{{{word}}}}} without {{{{end}}}}")),
            End::Done => Vec::new(),
            End::Else => self.otherwise(word)?,
        };
        self.scopes.pop();
        Ok(match word {
            "if" => Node::If(pipeline, body, otherwise),
            "with" => Node::With(pipeline, body, otherwise),
            _ => Node::Range(pipeline, body, otherwise),
        })
    }

    fn otherwise(&mut self, word: &str) -> Result<Vec<Node>, Failure> {
        if let Some(Kind::Name(next)) = self.peek() {
            let next = next.clone();
            if next != word || word == "range" {
                return self.fail(format!("unexpected {next:?} after {{{{else"));
            }
            self.next();
            return self
                .deeper(|parser| parser.control(word))
                .map(|node| vec![node]);
        }
        self.close()?;
        let (nodes, end) = self.nodes()?;
        match end {
            End::Done => Ok(nodes),
            _ => self.fail(format!(
                "{{{{{word}}}}} without {{{{end}}}} after its {{{{else}}}}"
            )),
        }
    }

    /// Reads `$i, $e := pipeline` or an ordinary one.
    fn range_pipeline(&mut self) -> Result<Pipeline, Failure> {
        self.pipeline_with(true, 2)
    }

    fn pipeline(&mut self, may_declare: bool) -> Result<Pipeline, Failure> {
        self.pipeline_with(may_declare, 1)
    }

    fn pipeline_with(&mut self, may_declare: bool, most: usize) -> Result<Pipeline, Failure> {
        let mut variables = Vec::new();
        let mut declares = false;
        let mut first: Option<Operand> = None;
        if may_declare {
            while let Some(Kind::Variable(name)) = self.peek() {
                let name = name.clone();
                self.next();
                match self.peek() {
                    Some(Kind::Declare | Kind::Assign) => {
                        declares = matches!(self.next(), Some(Kind::Declare));
                        variables.push(name);
                        break;
                    }
                    Some(Kind::Comma) if variables.len() + 1 < most => {
                        self.next();
                        variables.push(name);
                    }
                    _ if variables.is_empty() => {
                        first = Some(self.variable(name)?);
                        break;
                    }
                    _ => return self.fail("expected := or = after variables"),
                }
            }
        }
        let line = self.line;
        let mut commands = vec![self.command(first)?];
        while let Some(Kind::Pipe) = self.peek() {
            self.next();
            let command = self.command(None)?;
            if !matches!(
                command.operands[0],
                Operand::Function(..)
                    | Operand::Fields(_)
                    | Operand::Variable(..)
                    | Operand::Group(..)
            ) {
                return self.fail("a value in the middle of a pipeline is no function");
            }
            commands.push(command);
        }
        for name in &variables {
            if declares {
                if let Some(scope) = self.scopes.last_mut() {
                    scope.push(name.clone());
                }
            } else {
                self.known(name)?;
            }
        }
        Ok(Pipeline {
            line,
            variables,
            declares,
            commands,
        })
    }

    fn known(&self, name: &str) -> Result<(), Failure> {
        if self.scopes.iter().flatten().any(|known| known == name) {
            return Ok(());
        }
        self.fail(format!("undefined variable \"${name}\""))
    }

    fn variable(&mut self, name: String) -> Result<Operand, Failure> {
        self.known(&name)?;
        Ok(Operand::Variable(name, self.fields()))
    }

    /// Takes `.a.b` that stands directly behind an operand.
    fn fields(&mut self) -> Vec<String> {
        let mut fields = Vec::new();
        while let Some(Token {
            kind: Kind::Field(name),
            spaced: false,
            ..
        }) = self.tokens.peek()
        {
            fields.push(name.clone());
            self.next();
        }
        fields
    }

    fn command(&mut self, first: Option<Operand>) -> Result<Command, Failure> {
        let mut operands: Vec<Operand> = first.into_iter().collect();
        while let Some(operand) = self.operand()? {
            operands.push(operand);
        }
        if operands.is_empty() {
            return self.fail("missing value in an action");
        }
        if operands.len() > 1
            && !matches!(
                operands[0],
                Operand::Function(..)
                    | Operand::Fields(_)
                    | Operand::Variable(..)
                    | Operand::Group(..)
            )
        {
            return self.fail("a value is given arguments, but only functions take them");
        }
        Ok(Command { operands })
    }

    fn operand(&mut self) -> Result<Option<Operand>, Failure> {
        let Some(kind) = self.peek() else {
            return Ok(None);
        };
        if matches!(kind, Kind::Close | Kind::Pipe | Kind::Right) {
            return Ok(None);
        }
        let kind = self.next();
        let operand = match kind {
            Some(Kind::Dot) => Operand::Dot,
            Some(Kind::Quoted(text)) => Operand::Text(text),
            Some(Kind::Int(number)) => Operand::Int(number),
            Some(Kind::Float(number)) => Operand::Float(number),
            Some(Kind::Variable(name)) => self.variable(name)?,
            Some(Kind::Field(name)) => {
                let mut fields = vec![name];
                fields.extend(self.fields());
                Operand::Fields(fields)
            }
            Some(Kind::Left) => {
                let inner = self.deeper(|parser| parser.pipeline(false))?;
                match self.next() {
                    Some(Kind::Right) => Operand::Group(Box::new(inner), self.fields()),
                    _ => return self.fail("unclosed left paren"),
                }
            }
            Some(Kind::Name(name)) => self.name(name)?,
            _ => return self.fail("unexpected word in an action"),
        };
        Ok(Some(operand))
    }

    fn name(&self, name: String) -> Result<Operand, Failure> {
        match name.as_str() {
            "true" => return Ok(Operand::Bool(true)),
            "false" => return Ok(Operand::Bool(false)),
            "nil" => return Ok(Operand::Nil),
            _ => {}
        }
        match functions::known(&name) {
            Known::Yes => Ok(Operand::Function(self.line, name)),
            Known::Elsewhere(why) => Err(Failure::refused(
                self.line,
                format!("the template function `{name}` is not available in a build: {why}"),
            )),
            Known::No => self.fail(format!("function \"{name}\" not defined")),
        }
    }
}
