//! Stage extensions: files in the yip dialect that add steps to a conversion.
//!
//! ```text
//! files -> tree with lines -> documents -> checked -> ordered -> steps of the one step model
//! source   yaml               fields,      check,     order      translate
//!                             decode,      template
//!                             cloud_config
//! ```
//!
//! Everything that can be known to be wrong is known before anything runs, with file and line: broken YAML, unknown
//! keys, patterns that do not compile, templates that ask for the building machine, work that only a booting machine
//! can do. Spec: yip.

mod check;
mod cloud_config;
mod content;
mod decode;
mod entity;
mod fields;
mod order;
mod pattern;
mod problem;
mod render;
pub mod schema;
mod source;
mod system;
mod template;
#[cfg(test)]
mod tests;
mod translate;
mod yaml;

pub use entity::{Entity, number};
pub use problem::{Problem, Problems};
pub use source::{DIRECTORY_IN_IMAGE, SourceText, in_base, is_extension_file, read_dir, read_root};
pub use system::System;

use std::collections::BTreeMap;
use std::path::Path;

use crate::distro::Arch;
use crate::error::{Error, Result};
use crate::request::{Network, Request};
use crate::step::{Action, Hook, Step, StepName};

/// The steps that extensions add to a conversion, checked and in order.
#[derive(Debug, Clone, Default)]
pub struct Extensions {
    /// Every file, in the order they are read.
    pub files: Vec<String>,
    /// What runs, but should be known; each with its file and line.
    pub warnings: Vec<String>,
    steps: BTreeMap<Hook, Vec<Step>>,
}

impl Extensions {
    /// Reads `texts`, in this order.
    ///
    /// # Errors
    ///
    /// A usage error that lists everything that is wrong, by file and line; work that needs a network where there is none.
    pub fn load(texts: &[SourceText], network: Network) -> Result<Self> {
        let (documents, mut problems) = read(texts);
        let mut out = Self {
            files: texts.iter().map(|text| text.file.clone()).collect(),
            ..Self::default()
        };
        for hook in Hook::ALL {
            let ops = order::arrange(&documents, hook.name(), &mut problems);
            let steps: Vec<Step> = ops.iter().map(|op| translate::step(op, hook)).collect();
            if network == Network::None {
                steps
                    .iter()
                    .for_each(|step| refuse_network(step, &mut problems));
            }
            if !steps.is_empty() {
                out.steps.insert(hook, steps);
            }
        }
        if let Some(error) = problems.to_error() {
            return Err(error);
        }
        out.warnings = problems
            .warnings()
            .iter()
            .map(ToString::to_string)
            .collect();
        Ok(out)
    }

    /// Reads what the base carries, and then every directory that the request names; nothing where it leaves extensions out.
    ///
    /// # Errors
    ///
    /// As for [`read_dir`] and [`Extensions::load`].
    pub fn find(base: &[SourceText], request: &Request) -> Result<Self> {
        if request.skip_steps.iter().any(|skip| {
            skip.trim()
                .eq_ignore_ascii_case(StepName::STAGE_EXTENSIONS.as_str())
        }) {
            return Ok(Self::default());
        }
        let mut texts = base.to_vec();
        let mut empty = Vec::new();
        for dir in &request.stage_extensions {
            let found = read_dir(Path::new(dir))?;
            if found.is_empty() {
                empty.push(format!(
                    "`{dir}` holds no stage extension: those are files that end in .yaml or .yml"
                ));
            }
            texts.extend(found);
        }
        let mut out = Self::load(&texts, request.network)?;
        out.warnings.extend(empty);
        Ok(out)
    }

    /// Returns the steps that hook into `stage`.
    pub fn steps(&self, stage: Hook) -> &[Step] {
        self.steps.get(&stage).map_or(&[], Vec::as_slice)
    }

    /// Returns whether no step was added.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

/// Prints a document as yip programs print it: keys in the dialect's order, each with its form, stages by name.
///
/// # Errors
///
/// [`Extensions::load`] would refuse to read it.
pub fn printed(document: &serde_json::Value) -> Result<String> {
    let mut problems = Problems::new("the printed document");
    let found = decode::document("", &written(document)?, &mut problems);
    if let Some(problem) = problems.errors().first() {
        let message = &problem.message;
        return Err(Error::internal(format!(
            "writing yip YAML that cannot be read: {message}"
        )));
    }
    written(&as_printed(&found))
}

fn written(value: &serde_json::Value) -> Result<String> {
    let options = serde_saphyr::ser_options! {
        compact_list_indent: false,
        folded_wrap_chars: usize::MAX,
    };
    let text = serde_saphyr::to_string_with_options(value, options)
        .map_err(|error| Error::internal(format!("writing yip YAML: {error}")))?;
    // Blank lines of a block are indented too, which other printers do not do; spaces that are part of a value stay.
    let bare = text
        .split('\n')
        .map(|line| if line.trim().is_empty() { "" } else { line });
    let bare = bare.collect::<Vec<_>>().join("\n");
    let is_same = serde_saphyr::from_str(&bare).is_ok_and(|read: serde_json::Value| read == *value);
    Ok(if is_same { bare } else { text })
}

/// Returns a document as its printer writes it, stages by name.
fn as_printed(document: &schema::Document) -> serde_json::Value {
    let stages: BTreeMap<&str, Vec<serde_json::Value>> = document
        .stages
        .iter()
        .map(|stage| {
            let steps = stage.steps.iter().map(render::step).collect();
            (stage.name.value.as_str(), steps)
        })
        .collect();
    let mut out = serde_json::Map::new();
    if !document.name.is_empty() {
        out.insert("name".to_owned(), document.name.as_str().into());
    }
    out.insert("stages".to_owned(), serde_json::json!(stages));
    out.into()
}

/// Returns the stages of a text that machines run when they boot: read, and not held against what a build can do.
///
/// # Errors
///
/// It is not in the dialect.
pub(crate) fn stages_of(text: &str) -> Result<Vec<schema::Stage>> {
    let mut problems = Problems::new("the text");
    let document = decode::document("the text", text, &mut problems);
    problems.to_error().map_or(Ok(document.stages), Err)
}

/// Reads and checks every text.
fn read(texts: &[SourceText]) -> (Vec<schema::Document>, Problems) {
    let mut problems = Problems::default();
    let mut documents = Vec::new();
    for source in texts {
        let mut found = Problems::new(&source.file);
        let document = decode::document(&source.file, &source.text, &mut found);
        if found.errors().is_empty() {
            check::document(&document, &mut found);
        }
        problems.add(found);
        documents.push(document);
    }
    (documents, problems)
}

fn refuse_network(step: &Step, problems: &mut Problems) {
    let Some(source) = step
        .extension
        .as_ref()
        .and_then(|extension| extension.source.as_ref())
    else {
        return;
    };
    for action in &step.actions {
        if let Action::Plugin(plugin) = action
            && let Some(why) = plugin.needs_network()
        {
            let hint = "leave out `--network none`, or bring along what it fetches with `files`"
                .to_owned();
            problems.error_in(
                &source.file,
                source.line,
                format!("the step needs a network: {why}"),
                Some(hint),
            );
        }
    }
}

/// Takes any text through the loader, the printer and the template engine. For fuzzing: whatever the text, this returns.
///
/// # Panics
///
/// What was loaded and printed cannot be loaded again, or prints differently then: a defect.
pub fn exercise(text: &str) {
    let source = SourceText {
        file: "fuzz.yaml".to_owned(),
        text: text.to_owned(),
    };
    let _ = Extensions::load(std::slice::from_ref(&source), Network::Host);
    let (documents, problems) = read(&[source]);
    if problems.errors().is_empty() {
        let first = printed(&as_printed(&documents[0])).unwrap_or_else(|error| panic!("{error}"));
        let mut problems = Problems::default();
        let again = decode::document("", &first, &mut problems);
        let again = printed(&as_printed(&again)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(first, again, "printing is not stable");
    }
    let _ = Entity::parse(text);
    let system = System::from_os_release(text, Arch::Amd64);
    let _ = system.render(text, None);
    let _ = system.render_hostname(text, None);
}

/// Returns whether `pattern` is found in `text`; a pattern that is none matches nothing.
pub fn matches(pattern: &str, text: &str) -> bool {
    pattern::compile(pattern).is_ok_and(|regex| regex.is_match(text))
}
