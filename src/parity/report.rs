//! What a comparison found, for people and for programs.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Change, Difference};
use crate::error::Result;
use crate::printable;

/// What a comparison found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The image.
    pub image: String,
    /// What it was compared with.
    pub against: String,
    /// How many files and directories the image has.
    pub compared: usize,
    /// Every difference, by step.
    pub differences: Vec<Difference>,
}

/// Lines about one step that are shown unless everything is asked for.
const MAX_LINES: usize = 40;

impl Report {
    /// Returns how many differences are not meant.
    pub fn unintended(&self) -> usize {
        let all = self.differences.iter();
        all.filter(|difference| difference.intended.is_none())
            .count()
    }

    /// Returns the report as one JSON object.
    ///
    /// # Errors
    ///
    /// An internal error if it cannot be written as JSON.
    pub fn to_json(&self) -> Result<String> {
        let value = serde_json::json!({
            "image": self.image,
            "against": self.against,
            "compared": self.compared,
            "intended": self.differences.len() - self.unintended(),
            "unintended": self.unintended(),
            "differences": self.differences,
        });
        Ok(format!("{}\n", serde_json::to_string_pretty(&value)?))
    }

    /// Returns the report for people: what is not meant line by line, what is meant by its reason; with `all`, every line.
    pub fn to_text(&self, all: bool) -> String {
        let mut text = format!("image    {}\nagainst  {}\n", self.image, self.against);
        let mut rest = self.differences.as_slice();
        while let Some(first) = rest.first() {
            let count = rest
                .iter()
                .take_while(|difference| difference.step == first.step)
                .count();
            let (step, after) = rest.split_at(count);
            text.push_str(&format!("\n{}\n", printable::line(&first.step)));
            text.push_str(&of_step(step, all));
            rest = after;
        }
        let intended = self.differences.len() - self.unintended();
        text.push_str(&format!(
            "\n{} compared, {}: {intended} intended, {} not\n",
            printable::counted(self.compared, "file"),
            printable::counted(self.differences.len(), "difference"),
            self.unintended()
        ));
        text
    }
}

fn of_step(differences: &[Difference], all: bool) -> String {
    let mut text = String::new();
    let open: Vec<&Difference> = differences
        .iter()
        .filter(|difference| difference.intended.is_none())
        .collect();
    let shown = if all { open.len() } else { MAX_LINES };
    for difference in open.iter().take(shown) {
        text.push_str(&format!("  differs   {}\n", line(difference)));
    }
    if open.len() > shown {
        text.push_str(&format!(
            "  differs   and {} more (`--all` shows them)\n",
            open.len() - shown
        ));
    }
    let mut reasons: BTreeMap<&str, Vec<&Difference>> = BTreeMap::new();
    for difference in differences {
        if let Some(reason) = difference.intended {
            reasons.entry(reason).or_default().push(difference);
        }
    }
    for (reason, of_reason) in reasons {
        if all {
            for difference in of_reason {
                text.push_str(&format!("  intended  {} ({reason})\n", line(difference)));
            }
        } else {
            let example = printable::name(&of_reason[0].name);
            let more = match of_reason.len() {
                1 => String::new(),
                count => format!(" and {} more", count - 1),
            };
            text.push_str(&format!("  intended  {example}{more}: {reason}\n"));
        }
    }
    text
}

fn line(difference: &Difference) -> String {
    let name = format!(
        "{} {}",
        difference.subject.name(),
        printable::name(&difference.name)
    );
    let or = |text: &Option<String>| match text.as_deref() {
        None | Some("") => "nothing".to_owned(),
        Some(text) => printable::name(text),
    };
    let (here, there) = (or(&difference.here), or(&difference.there));
    match difference.change {
        Change::Added => format!("{name}: only here ({here})"),
        Change::Missing => format!("{name}: only there ({there})"),
        Change::Kind | Change::Content => format!("{name}: {here}, there {there}"),
        Change::Owner => format!("{name}: owner {here}, there {there}"),
        Change::Mode => format!("{name}: mode {here}, there {there}"),
        Change::Xattrs => format!("{name}: attributes {here}, there {there}"),
    }
}
