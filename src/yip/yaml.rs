//! YAML as a tree in which everything knows its line, with the rules of Go's yaml.v3.
//!
//! Duplicate keys are an error, `<<` merges, aliases are copied, and only the first document counts. What a scalar
//! means is decided by who reads it: `0644` is the number 420 or the text `0644`.

use std::collections::HashMap;

use base64::Engine as _;
use granit_parser::{Event, Options, Parser, ScalarStyle, ScanError, Span};

use super::problem::Problems;

/// More than this many nodes, those counted again that an anchor or an alias copies, is an attack.
const MAX_NODES: usize = 200_000;
/// And so is more text than this in the copies, in bytes.
const MAX_COPIED_BYTES: usize = 64 << 20;
/// A file of more bytes than this is no extension.
pub(super) const MAX_BYTES: u64 = 4 << 20;

/// A value and the line it begins on, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Value,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    /// Keys in the order of the file, unique.
    Map(Vec<(Key, Node)>),
}

/// A scalar as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scalar {
    pub(super) text: String,
    /// Neither quoted nor a block: it may be a number, a truth value or nothing.
    pub(super) plain: bool,
}

/// A key of a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) text: String,
    pub(super) line: usize,
    plain: bool,
}

impl Node {
    /// Returns what kind of value it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Scalar(scalar) if scalar.is_null() => "nothing",
            Value::Scalar(_) => "a scalar",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar) if scalar.is_null())
    }
}

impl Scalar {
    pub(super) fn is_null(&self) -> bool {
        self.plain && matches!(self.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }
}

/// Reads the first document of `text`; `None` for an empty one, or after a problem was noted.
pub(super) fn parse(text: &str, problems: &mut Problems) -> Option<Node> {
    let mut options = Options::default();
    options.set_emit_comments(false);
    let mut builder = Builder {
        parser: Parser::new_from_str_with_options(text, options),
        anchors: HashMap::new(),
        nodes: 0,
        copied_bytes: 0,
        problems,
    };
    match builder.document() {
        Ok(node) => node.filter(|node| !node.is_null()),
        Err(Stop) => None,
    }
}

/// The document cannot be read any further; why has been noted.
struct Stop;

struct Builder<'a, 'p> {
    parser: Parser<'a, granit_parser::StrInput<'a>>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    copied_bytes: usize,
    problems: &'p mut Problems,
}

impl<'a> Builder<'a, '_> {
    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>, Stop> {
        match self.parser.next_event() {
            None => Ok(None),
            Some(Ok(event)) => Ok(Some(event)),
            Some(Err(error)) => {
                self.broken(&error);
                Err(Stop)
            }
        }
    }

    fn broken(&mut self, error: &ScanError) {
        let line = error.marker().line().max(1);
        let text = error.info();
        let first = text.lines().next().unwrap_or_default();
        self.problems.error(line, format!("not YAML: {first}"));
    }

    fn stop<T>(&mut self, line: usize, message: impl Into<String>) -> Result<T, Stop> {
        self.problems.error(line, message);
        Err(Stop)
    }

    fn document(&mut self) -> Result<Option<Node>, Stop> {
        let mut found = None;
        let mut documents = 0;
        while let Some((event, span)) = self.next()? {
            match event {
                Event::StreamStart | Event::DocumentEnd => {}
                Event::StreamEnd => break,
                Event::DocumentStart(..) => {
                    documents += 1;
                    if documents == 2 {
                        let line = span.start.line().max(1);
                        self.problems.warning(
                            line,
                            "only the first document of a file is read: what follows `---` is not",
                        );
                        break;
                    }
                }
                event => found = Some(self.node(event, &span)?),
            }
        }
        Ok(found)
    }

    fn count(&mut self, line: usize, more: usize) -> Result<(), Stop> {
        self.nodes = self.nodes.saturating_add(more);
        if self.nodes > MAX_NODES {
            return self.stop(
                line,
                format!("more than {MAX_NODES} values, aliases counted as often as they are used"),
            );
        }
        Ok(())
    }

    /// Counts what a copy of `node` takes.
    fn count_copy(&mut self, line: usize, node: &Node) -> Result<(), Stop> {
        let (nodes, bytes) = weight(node);
        self.count(line, nodes)?;
        self.copied_bytes = self.copied_bytes.saturating_add(bytes);
        if self.copied_bytes > MAX_COPIED_BYTES {
            let most = MAX_COPIED_BYTES >> 20;
            return self.stop(
                line,
                format!("aliases stand for more than {most} MiB of text"),
            );
        }
        Ok(())
    }

    fn node(&mut self, event: Event<'a>, span: &Span) -> Result<Node, Stop> {
        let line = span.start.line().max(1);
        self.count(line, 1)?;
        let anchor = event.anchor_id();
        let value = match event {
            Event::Scalar(text, style, _, tag) => {
                let plain = style == ScalarStyle::Plain;
                let scalar = Scalar {
                    text: text.into_owned(),
                    plain,
                };
                Value::Scalar(self.tagged(line, scalar, tag.as_deref())?)
            }
            Event::SequenceStart(..) => self.list()?,
            Event::MappingStart(..) => self.map()?,
            Event::Alias(id) => return self.alias(line, id),
            _ => return self.stop(line, "not YAML: a value is missing"),
        };
        let node = Node { line, value };
        if let Some(id) = anchor {
            self.count_copy(line, &node)?;
            self.anchors.insert(id, node.clone());
        }
        Ok(node)
    }

    /// Applies a tag that says what a scalar is.
    fn tagged(
        &mut self,
        line: usize,
        scalar: Scalar,
        tag: Option<&granit_parser::Tag>,
    ) -> Result<Scalar, Stop> {
        let Some(tag) = tag else { return Ok(scalar) };
        match tag.core_suffix() {
            Some("str") => Ok(Scalar {
                plain: false,
                ..scalar
            }),
            Some("int" | "float" | "bool" | "null") => Ok(Scalar {
                plain: true,
                ..scalar
            }),
            Some("binary") => {
                let packed: String = scalar.text.split_whitespace().collect();
                let bytes = base64::engine::general_purpose::STANDARD.decode(packed);
                match bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok()) {
                    Some(text) => Ok(Scalar { text, plain: false }),
                    None => self.stop(line, "`!!binary` does not hold text in base64"),
                }
            }
            _ => self.stop(line, format!("unknown tag `{}`", tag.original())),
        }
    }

    fn alias(&mut self, line: usize, id: usize) -> Result<Node, Stop> {
        // Taken out, so that it can be counted before it is copied.
        let Some(known) = self.anchors.remove(&id) else {
            return self.stop(line, "an alias inside what it stands for");
        };
        self.count_copy(line, &known)?;
        let mut node = known.clone();
        self.anchors.insert(id, known);
        node.line = line;
        Ok(node)
    }

    fn list(&mut self) -> Result<Value, Stop> {
        let mut items = Vec::new();
        while let Some((event, span)) = self.next()? {
            if event == Event::SequenceEnd {
                break;
            }
            items.push(self.node(event, &span)?);
        }
        Ok(Value::List(items))
    }

    fn map(&mut self) -> Result<Value, Stop> {
        let mut pairs: Vec<(Key, Node)> = Vec::new();
        let mut lines: HashMap<String, usize> = HashMap::new();
        let mut merged: Vec<Node> = Vec::new();
        while let Some((event, span)) = self.next()? {
            if event == Event::MappingEnd {
                break;
            }
            let key = self.node(event, &span)?;
            let Some((event, span)) = self.next()? else {
                break;
            };
            let value = self.node(event, &span)?;
            let Value::Scalar(scalar) = key.value else {
                return self.stop(key.line, format!("{} is no key", key.kind()));
            };
            let key = Key {
                text: scalar.text,
                line: key.line,
                plain: scalar.plain,
            };
            if key.plain && key.text == "<<" {
                merged.push(value);
                continue;
            }
            if let Some(first) = lines.insert(key.text.clone(), key.line) {
                let message = format!("`{}` is given twice, first on line {first}", key.text);
                return self.stop(key.line, message);
            }
            pairs.push((key, value));
        }
        for node in merged {
            self.merge(&mut pairs, &mut lines, node)?;
        }
        Ok(Value::Map(pairs))
    }

    /// Adds what `node` has and `pairs`, whose keys are in `lines`, has not; of a list, the first mapping wins.
    fn merge(
        &mut self,
        pairs: &mut Vec<(Key, Node)>,
        lines: &mut HashMap<String, usize>,
        node: Node,
    ) -> Result<(), Stop> {
        match node.value {
            Value::Map(more) => {
                for (key, value) in more {
                    if !lines.contains_key(&key.text) {
                        lines.insert(key.text.clone(), key.line);
                        pairs.push((key, value));
                    }
                }
                Ok(())
            }
            Value::List(nodes) => {
                for node in nodes {
                    if !matches!(node.value, Value::Map(_)) {
                        return self.stop(node.line, "`<<` takes mappings only");
                    }
                    self.merge(pairs, lines, node)?;
                }
                Ok(())
            }
            Value::Scalar(_) => self.stop(node.line, "`<<` takes mappings only"),
        }
    }
}

/// Returns how many nodes there are in `node`, keys and itself included, and how many bytes of text they have.
fn weight(node: &Node) -> (usize, usize) {
    let add = |one: (usize, usize), other: (usize, usize)| (one.0 + other.0, one.1 + other.1);
    match &node.value {
        Value::Scalar(scalar) => (1, scalar.text.len()),
        Value::List(items) => items.iter().map(weight).fold((1, 0), add),
        Value::Map(pairs) => {
            let pair = |(key, node): &(Key, Node)| add((1, key.text.len()), weight(node));
            pairs.iter().map(pair).fold((1, 0), add)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Option<Node>, Problems) {
        let mut problems = Problems::new("x.yaml");
        let node = parse(text, &mut problems);
        (node, problems)
    }

    fn get<'a>(node: &'a Node, key: &str) -> &'a Node {
        let Value::Map(pairs) = &node.value else {
            panic!("no mapping: {node:?}")
        };
        let found = pairs.iter().find(|(known, _)| known.text == key);
        &found.unwrap_or_else(|| panic!("no {key}")).1
    }

    fn text(node: &Node) -> &str {
        match &node.value {
            Value::Scalar(scalar) => &scalar.text,
            _ => panic!("no scalar: {node:?}"),
        }
    }

    #[test]
    fn every_value_knows_its_line() {
        let (node, _) = read("a: 1\nb:\n  - x\n  - y: |\n      one\n      two\n");
        let node = node.unwrap();
        assert_eq!(get(&node, "a").line, 1);
        let Value::List(items) = &get(&node, "b").value else {
            panic!("no list")
        };
        assert_eq!((items[0].line, items[1].line), (3, 4));
        assert_eq!(get(&items[1], "y").line, 5, "a block is where its text is");
    }

    #[test]
    fn merge_keys_and_aliases_are_followed_and_explicit_keys_win() {
        let (node, problems) =
            read("x: &x {a: 1, b: 2}\ny: {<<: *x, b: 3}\nz: {<<: [*x, {c: 4}]}\n");
        assert!(problems.is_empty(), "{problems:?}");
        let node = node.unwrap();
        let y = get(&node, "y");
        assert_eq!((text(get(y, "a")), text(get(y, "b"))), ("1", "3"));
        assert_eq!(text(get(get(&node, "z"), "c")), "4");
    }

    #[test]
    fn broken_documents_are_named_by_line() {
        for (text, line, word) in [
            ("a: [1\nb: 2\n", 2, "not YAML"),
            ("a: 1\nb: 2\na: 3\n", 3, "first on line 1"),
            ("a: *b\n", 1, "not YAML"),
            ("a: &a [*a]\n", 1, "an alias inside"),
            ("{[1]: 2}\n", 1, "a list is no key"),
            ("a:\n  <<: 1\n", 2, "mappings only"),
            ("a: !x 1\n", 1, "unknown tag"),
        ] {
            let (node, problems) = read(text);
            assert!(node.is_none(), "{text:?}");
            let problem = &problems.errors()[0];
            assert_eq!(problem.line, line, "{text:?}: {problem:?}");
            assert!(problem.message.contains(word), "{text:?}: {problem:?}");
        }
    }

    #[test]
    fn aliases_cannot_blow_up() {
        let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for n in 1..9 {
            let last = n - 1;
            let row = format!("*a{last},").repeat(10);
            text.push_str(&format!("a{n}: &a{n} [{row}]\n"));
        }
        let (node, problems) = read(&text);
        assert!(node.is_none());
        assert!(problems.errors()[0].message.contains("more than"));
    }

    #[test]
    fn what_anchors_and_aliases_copy_cannot_blow_up() {
        let long = format!(
            "a: &a {}\nb: [{}]\n",
            "x".repeat(1 << 20),
            "*a,".repeat(100)
        );
        let nested: String = (0..200).map(|n| format!("&a{n} [")).collect();
        let nested = format!("a: {nested}{}{}", "x,".repeat(2000), "]".repeat(200));
        for (text, word) in [(long, "MiB of text"), (nested, "more than 200000 values")] {
            let (node, problems) = read(&text);
            assert!(node.is_none());
            let message = &problems.errors()[0].message;
            assert!(message.contains(word), "{message}");
        }
    }

    #[test]
    fn a_second_document_is_a_warning() {
        let (node, problems) = read("a: 1\n---\nb: 2\n");
        assert!(node.is_some() && problems.errors().is_empty());
        assert_eq!(problems.warnings()[0].line, 2);
    }
}
