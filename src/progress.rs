//! What people and scripts see while a run goes on. Everything goes to standard error; results go to standard output.

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::json;

use crate::printable;
use crate::screen::{columns_of, fold};

/// Whoever reads lines is told so often that something goes on.
const SILENCE: Duration = Duration::from_secs(15);

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Mode {
    /// Bars on a terminal, plain lines elsewhere.
    #[default]
    Auto,
    /// One line per event and per line of output.
    Plain,
    /// One JSON object per event.
    Json,
    /// Nothing but errors.
    None,
}

/// How much is shown, from least to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, clap::ValueEnum)]
pub enum Level {
    /// Nothing but the error that ends the run.
    Error,
    /// Warnings too.
    Warn,
    /// What is being done too.
    Info,
    /// What commands print too.
    #[default]
    Debug,
    /// What they print when they are asked to say more.
    Trace,
}

/// Shows progress in one mode; shared by reference between threads.
#[derive(Debug)]
pub struct Reporter {
    mode: Mode,
    level: Level,
    bars: MultiProgress,
    start: Instant,
    step: Mutex<Option<(String, ProgressBar)>>,
}

impl Reporter {
    /// Creates a reporter; [`Mode::Auto`] is settled here by asking whether standard error is a terminal.
    pub fn new(mode: Mode) -> Self {
        let mode = match mode {
            Mode::Auto if !std::io::stderr().is_terminal() => Mode::Plain,
            other => other,
        };
        Self {
            mode,
            level: Level::default(),
            bars: MultiProgress::new(),
            start: Instant::now(),
            step: Mutex::new(None),
        }
    }

    /// Returns a reporter that shows no more than `level`.
    #[must_use]
    pub fn at_level(self, level: Level) -> Self {
        Self { level, ..self }
    }

    /// Returns how much is shown.
    pub fn level(&self) -> Level {
        self.level
    }

    fn shows(&self, level: Level) -> bool {
        self.level >= level
    }

    /// Returns whether events are JSON objects.
    pub fn is_json(&self) -> bool {
        self.mode == Mode::Json
    }

    /// Says what is being done now.
    pub fn note(&self, text: &str) {
        if !self.shows(Level::Info) {
            return;
        }
        match self.mode {
            Mode::Json => self.json(&json!({ "event": "note", "text": text })),
            _ => self.say(&printable::bounded(text)),
        }
    }

    /// Says something that went wrong but does not stop the run.
    pub fn warn(&self, text: &str) {
        if !self.shows(Level::Warn) {
            return;
        }
        match self.mode {
            Mode::Json => self.json(&json!({ "event": "warning", "text": text })),
            _ => self.say(&format!("warning: {}", printable::bounded(text))),
        }
    }

    /// Announces a step.
    pub fn step_started(&self, layer: &str, step: &str) {
        if !self.shows(Level::Info) {
            return;
        }
        match self.mode {
            Mode::Json => {
                self.json(&json!({ "event": "step-started", "layer": layer, "step": step }))
            }
            Mode::Auto => {
                let bar = self.bars.add(ProgressBar::new_spinner());
                bar.set_style(spinner_style());
                bar.set_prefix(step.to_owned());
                bar.enable_steady_tick(Duration::from_millis(120));
                *self.step.lock().expect("no panic while held") = Some((step.to_owned(), bar));
            }
            _ => self.say(&format!("{step}: started")),
        }
    }

    /// Passes on one line that a step's command printed.
    pub fn step_output(&self, step: &str, line: &str) {
        match self.mode {
            Mode::Json if self.shows(Level::Debug) => {
                self.json(&json!({ "event": "output", "step": step, "line": line }))
            }
            // On a terminal it is gone with the next line.
            Mode::Auto => {
                if let Some((_, bar)) = self.step.lock().expect("no panic while held").as_ref() {
                    bar.set_message(printable::line(line));
                }
            }
            Mode::Plain if self.shows(Level::Debug) => {
                self.say(&format!("{step} | {}", printable::line(line)))
            }
            _ => {}
        }
    }

    /// Says that a step has ended well.
    pub fn step_done(&self, step: &str, took: Duration) {
        if let Some((_, bar)) = self.step.lock().expect("no panic while held").take() {
            bar.finish_and_clear();
        }
        if !self.shows(Level::Info) {
            return;
        }
        match self.mode {
            Mode::Json => self.json(
                &json!({ "event": "step-done", "step": step, "seconds": took.as_secs_f64() }),
            ),
            _ => self.say(&format!("{step}: done in {:.1} s", took.as_secs_f64())),
        }
    }

    /// Says that a layer was found in the step cache.
    pub fn cached(&self, layer: &str) {
        if !self.shows(Level::Info) {
            return;
        }
        match self.mode {
            Mode::Json => self.json(&json!({ "event": "layer-cached", "layer": layer })),
            _ => self.say(&format!("layer {layer}: cached")),
        }
    }

    /// Says how large a new layer became.
    pub fn layer_done(&self, layer: &str, uncompressed_bytes: u64, bytes: u64, took: Duration) {
        if !self.shows(Level::Info) {
            return;
        }
        match self.mode {
            Mode::Json => self.json(&json!({
                "event": "layer-done", "layer": layer, "uncompressed_bytes": uncompressed_bytes, "bytes": bytes, "seconds": took.as_secs_f64(),
            })),
            _ => self.say(&format!(
                "layer {layer}: {} -> {} in {:.1} s",
                bytes_text(uncompressed_bytes),
                bytes_text(bytes),
                took.as_secs_f64()
            )),
        }
    }

    /// Says how long one command of a step took; shown to scripts only.
    pub fn command_done(&self, step: &str, command: &str, took: Duration) {
        if self.mode == Mode::Json {
            self.json(&json!({
                "event": "command-done", "step": step, "command": command, "seconds": took.as_secs_f64(),
            }));
        }
    }

    /// Says that a blob of `bytes` did not have to be sent, and why; bars show only what moves.
    pub fn not_sent(&self, what: &str, bytes: u64, why: &str) {
        match self.mode {
            Mode::Json => self.json(
                &json!({ "event": "transfer-skipped", "verb": "push", "what": what, "bytes": bytes, "why": why }),
            ),
            Mode::Plain => self.say(&format!("push {what}: {why}")),
            Mode::Auto | Mode::None => {}
        }
    }

    /// Starts showing a transfer of `total_bytes`.
    pub fn transfer(
        self: &Arc<Self>,
        verb: &'static str,
        what: &str,
        total_bytes: u64,
    ) -> Transfer {
        let bar = match self.mode {
            Mode::Auto if self.shows(Level::Info) => {
                let bar = self.bars.add(ProgressBar::new(total_bytes));
                bar.set_style(transfer_style());
                bar.set_prefix(format!("{verb} {what}"));
                Some(bar)
            }
            Mode::Plain if self.shows(Level::Info) => {
                self.say(&format!("{verb} {what} ({})", bytes_text(total_bytes)));
                None
            }
            _ => None,
        };
        Transfer {
            bar,
            reporter: self.clone(),
            verb,
            what: what.to_owned(),
            total_bytes,
            start: Instant::now(),
            said: AtomicU64::new(0),
            done: AtomicU64::new(0),
        }
    }

    fn json(&self, value: &serde_json::Value) {
        let mut value = value.clone();
        value["elapsed"] = json!((self.start.elapsed().as_secs_f64() * 1000.0).round() / 1000.0);
        let _ = writeln!(std::io::stderr().lock(), "{value}");
    }

    fn say(&self, text: &str) {
        let text = printable::text(text);
        match self.mode {
            Mode::None => {}
            Mode::Auto => {
                let folded = columns_of(&std::io::stderr()).map(|columns| fold(&text, columns));
                let text = folded.as_deref().unwrap_or(&text);
                let _ = self.bars.println(text.trim_end_matches('\n'));
            }
            _ => {
                let _ = writeln!(std::io::stderr().lock(), "{text}");
            }
        }
    }
}

/// One transfer that is being shown; it disappears when dropped.
#[derive(Debug)]
pub struct Transfer {
    bar: Option<ProgressBar>,
    reporter: Arc<Reporter>,
    verb: &'static str,
    what: String,
    total_bytes: u64,
    start: Instant,
    done: AtomicU64,
    /// How many times [`SILENCE`] had passed when a line said how far it is.
    said: AtomicU64,
}

impl Transfer {
    /// Counts `bytes` more as done.
    pub fn advance(&self, bytes: u64) {
        let before = self.done.fetch_add(bytes, Ordering::Relaxed);
        self.show(before + bytes);
    }

    /// Says that `bytes` in all are done; a transfer that starts over goes down.
    pub fn reach(&self, bytes: u64) {
        self.done.store(bytes, Ordering::Relaxed);
        self.show(bytes);
    }

    fn show(&self, done: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        } else if self.reporter.mode == Mode::Plain && self.reporter.shows(Level::Info) {
            let passed = self.start.elapsed().as_secs() / SILENCE.as_secs();
            if self.said.fetch_max(passed, Ordering::Relaxed) < passed {
                let percent = done.min(self.total_bytes) * 100 / self.total_bytes.max(1);
                self.reporter
                    .say(&format!("{} {}: {percent} %", self.verb, self.what));
            }
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if self.reporter.is_json() {
            self.reporter.json(&json!({
                "event": "transfer-done", "verb": self.verb, "what": self.what, "bytes": self.total_bytes,
                "seconds": self.start.elapsed().as_secs_f64(),
            }));
        }
    }
}

#[expect(
    clippy::literal_string_with_formatting_args,
    reason = "the template language of progress bars has the same braces"
)]
fn spinner_style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {prefix} {elapsed} {wide_msg:.dim}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
}

#[expect(
    clippy::literal_string_with_formatting_args,
    reason = "the template language of progress bars has the same braces"
)]
fn transfer_style() -> ProgressStyle {
    ProgressStyle::with_template("  {prefix:28!} {bar:24} {bytes}/{total_bytes} {bytes_per_sec}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Writes a size with a binary unit: `12.3 MiB`.
pub fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(bytes_text(1023), "1023 B");
        assert_eq!(bytes_text(1536), "1.5 KiB");
        assert_eq!(bytes_text(3 << 30), "3.0 GiB");
    }
}
