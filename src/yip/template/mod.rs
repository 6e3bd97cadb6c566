//! The templates of yip: Go's `text/template` with those functions of sprig whose answer depends on nothing but their
//! arguments.
//!
//! A text that is no template, or whose template fails, is used as it is, with a warning: files are written for other
//! tools too. What would bring the building machine into the image (its hardware, the time, chance, the environment)
//! is refused.
//!
//! Spec: yip, "templating"; Go `text/template`; sprig v3.

mod budget;
mod eval;
mod functions;
mod lex;
mod parse;
mod value;

pub(super) use value::Value;

use std::collections::BTreeMap;

use kfactory_sandbox::CancelToken;

/// A parsed template.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Template {
    nodes: Vec<parse::Node>,
    defined: BTreeMap<String, Vec<parse::Node>>,
}

/// Why a text was not rendered. Lines count from 0, within the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) line: usize,
    pub(super) message: String,
    /// Whether it asks for what a build must not use, so that keeping the text would hide a mistake.
    pub(super) is_refusal: bool,
}

impl Failure {
    fn not_a_template(line: usize, message: impl Into<String>) -> Self {
        Self {
            line,
            message: message.into(),
            is_refusal: false,
        }
    }

    fn failed(line: usize, message: impl Into<String>) -> Self {
        Self {
            line,
            message: message.into(),
            is_refusal: false,
        }
    }

    fn refused(line: usize, message: impl Into<String>) -> Self {
        Self {
            line,
            message: message.into(),
            is_refusal: true,
        }
    }
}

/// A text after rendering.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rendered {
    pub(super) text: String,
    /// Why it is the original text; `None` where it was rendered.
    pub(super) kept: Option<Failure>,
}

/// Reads a template.
///
/// # Errors
///
/// It is none, or it uses a function that has no place in a build.
pub(super) fn parse(text: &str) -> Result<Template, Failure> {
    parse::parse(text)
}

impl Template {
    /// Renders it with `data` as the dot, until `stop` is cancelled.
    ///
    /// # Errors
    ///
    /// What Go's templates fail at, data of the building machine, and the user's stop.
    pub(super) fn render(
        &self,
        data: &Value,
        stop: Option<&CancelToken>,
    ) -> Result<String, Failure> {
        eval::render(self, data, stop)
    }

    /// Calls `visit` with every chain of fields that starts at the data's root, and its line.
    pub(super) fn paths(&self, visit: &mut dyn FnMut(usize, &[String])) {
        for nodes in std::iter::once(&self.nodes).chain(self.defined.values()) {
            walk(nodes, visit);
        }
    }
}

/// Renders `text`, or keeps it where it cannot be rendered, or not before `stop` was cancelled.
///
/// # Errors
///
/// It asks for what a build must not use.
pub(super) fn render(
    text: &str,
    data: &Value,
    stop: Option<&CancelToken>,
) -> Result<Rendered, Failure> {
    if !text.contains("{{") {
        return Ok(Rendered {
            text: text.to_owned(),
            kept: None,
        });
    }
    match parse(text).and_then(|template| template.render(data, stop)) {
        Ok(text) => Ok(Rendered { text, kept: None }),
        Err(failure) if failure.is_refusal => Err(failure),
        Err(failure) => Ok(Rendered {
            text: text.to_owned(),
            kept: Some(failure),
        }),
    }
}

fn walk(nodes: &[parse::Node], visit: &mut dyn FnMut(usize, &[String])) {
    use parse::Node;
    for node in nodes {
        match node {
            Node::Text(_) | Node::Break | Node::Continue => {}
            Node::Action(pipeline) => walk_pipeline(pipeline, visit),
            Node::If(pipeline, body, otherwise)
            | Node::With(pipeline, body, otherwise)
            | Node::Range(pipeline, body, otherwise) => {
                walk_pipeline(pipeline, visit);
                walk(body, visit);
                walk(otherwise, visit);
            }
            Node::Template(_, _, data) => {
                if let Some(pipeline) = data {
                    walk_pipeline(pipeline, visit);
                }
            }
        }
    }
}

fn walk_pipeline(pipeline: &parse::Pipeline, visit: &mut dyn FnMut(usize, &[String])) {
    use parse::Operand;
    for operand in pipeline
        .commands
        .iter()
        .flat_map(|command| &command.operands)
    {
        match operand {
            Operand::Fields(fields) => visit(pipeline.line, fields),
            Operand::Variable(name, fields) if name.is_empty() => visit(pipeline.line, fields),
            Operand::Group(inner, _) => walk_pipeline(inner, visit),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Vector {
        template: String,
        output: Option<String>,
    }

    fn data() -> Value {
        let texts =
            |list: &[&str]| Value::List(list.iter().map(|text| Value::text(*text)).collect());
        let os = Value::map([
            ("name", Value::text("Debian GNU/Linux 12 (bookworm)")),
            ("vendor", Value::text("debian")),
            ("version", Value::text("12")),
            ("architecture", Value::text("amd64")),
        ]);
        let values = Value::map([
            ("os", os),
            ("list", texts(&["c", "a", "b", "a"])),
            ("n", Value::Int(3)),
            ("f", Value::Float(1.5)),
            ("zero", Value::Int(0)),
            ("no", Value::Bool(false)),
            (
                "text",
                Value::text("  Some text, with <b>&'\"\n second line "),
            ),
            ("none", Value::Nil),
        ]);
        Value::map([("Values", values)])
    }

    #[test]
    fn templates_render_as_in_go_golden() {
        let path =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/yip/templates.json");
        let vectors: Vec<Vector> =
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert!(vectors.len() > 100);
        let mut wrong = Vec::new();
        for vector in &vectors {
            let found = parse(&vector.template).and_then(|template| template.render(&data(), None));
            if found.as_ref().ok() != vector.output.as_ref() {
                wrong.push(format!(
                    "{:?}\n  go:   {:?}\n  here: {found:?}",
                    vector.template, vector.output
                ));
            }
        }
        assert!(
            wrong.is_empty(),
            "{} of {}:\n{}",
            wrong.len(),
            vectors.len(),
            wrong.join("\n")
        );
    }

    #[test]
    fn every_function_of_sprig_is_there_or_refused_with_the_reason() {
        let path =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/yip/functions.txt");
        let names = std::fs::read_to_string(path).unwrap();
        let unknown: Vec<&str> = names
            .lines()
            .filter(|name| functions::known(name) == functions::Known::No)
            .collect();
        assert!(
            names.lines().count() > 200 && unknown.is_empty(),
            "{unknown:?}"
        );
    }

    #[test]
    fn templates_cannot_run_away() {
        for text in [
            "{{define \"t\"}}{{template \"t\"}}{{end}}{{template \"t\"}}",
            "{{ repeat 1000000000 \"x\" }}",
            "{{ until 1000000000 }}",
            "{{range until 1000000}}{{range until 1000000}}{{end}}{{end}}",
            "{{ printf \"%999999999d\" 1 }}",
            "{{ join (repeat 16000000 \"x\") (until 1000000) }}",
            "{{ regexReplaceAll \"\" (repeat 10000000 \"x\") (repeat 1000000 \"y\") }}",
            "{{ regexReplaceAll \".*\" (repeat 10000000 \"x\") (repeat 1000000 \"$0\") }}",
            "{{ regexReplaceAllLiteral \"\" (repeat 10000000 \"x\") (repeat 1000000 \"y\") }}",
            "{{ $x := repeat 16000000 \"x\" }}{{ $a := list $x $x $x $x $x $x $x $x }}{{ concat $a $a }}",
            "{{range until 1000000}}{{$x := sha512sum (repeat 16000000 \"x\")}}{{end}}",
            "{{ uniq (until 1000000) }}",
            "{{ wrapWith 1 (repeat 10000 \"x\") (repeat 10000 \"y\") }}",
        ] {
            let rendered = render(text, &data(), None).unwrap();
            assert!(rendered.kept.is_some(), "{text}");
        }
        let doubled = |what: &str| {
            let twice = format!("{{{{$a = {what}}}}}").repeat(40);
            format!("{{{{$a := list (repeat 1000 \"x\")}}}}{twice}")
        };
        let calls: String = (1..=40)
            .map(|n| {
                let call = format!("{{{{template \"a{}\"}}}}", n - 1);
                format!("{{{{define \"a{n}\"}}}}{call}{call}{{{{end}}}}")
            })
            .collect();
        for text in [
            doubled("concat $a $a"),
            doubled("list $a $a"),
            "{{$a := 1}}{{range until 20000}}{{$a = list $a}}{{end}}{{toJson $a}}".to_owned(),
            format!("{{{{define \"a0\"}}}}{{{{end}}}}{calls}{{{{template \"a40\"}}}}"),
        ] {
            let rendered = render(&text, &data(), None).unwrap();
            assert!(rendered.kept.is_some(), "{text}");
        }
        let deep = "{{if true}}".repeat(10_000);
        assert!(render(&deep, &data(), None).unwrap().kept.is_some());
        let deep = format!("{{{{ {}1{} }}}}", "(".repeat(10_000), ")".repeat(10_000));
        assert!(render(&deep, &data(), None).unwrap().kept.is_some());
    }

    #[test]
    fn a_stopped_run_ends_its_rendering_and_no_other() {
        let (going, stopped) = (CancelToken::new().unwrap(), CancelToken::new().unwrap());
        stopped.cancel();
        for text in [
            "{{range until 100}}{{end}}",
            "{{ repeat 3 \"x\" }}",
            "{{ true }}",
        ] {
            let kept = |stop| render(text, &data(), Some(stop)).unwrap().kept;
            assert_eq!(kept(&going), None, "{text}");
            let why = kept(&stopped).expect(text).message;
            assert!(why.contains("stopped by the user"), "{text}: {why}");
        }
    }

    #[test]
    fn what_a_build_must_not_know_is_refused() {
        for text in [
            "{{ env \"X\" }}",
            "{{ now }}",
            "{{ uuidv4 }}",
            "{{ genPrivateKey \"rsa\" }}",
            "{{ set (dict) \"a\" 1 }}",
        ] {
            assert!(
                render(text, &data(), None).unwrap_err().is_refusal,
                "{text}"
            );
        }
    }
}
