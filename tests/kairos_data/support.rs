//! Reads the cloud-configs, and runs their shell texts below a temporary directory instead of `/`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use kfactory::kairos::CLOUD_CONFIGS;
use kfactory::kairos::dracut::DracutFacts;
use serde_json::Value;
use tempfile::TempDir;

/// A Debian with systemd's own network, for what does not depend on the distribution.
pub(crate) const PLAIN: DracutFacts<'_> = DracutFacts {
    distro: "debian",
    family: "debian",
    version: "12",
    model: "generic",
    has_network_manager: false,
    has_networkd: true,
    has_resolved: true,
    has_legacy_network: true,
    fips: false,
    built_in: &[],
    trusted: false,
};

/// The directories that exist below a [`Root`]; paths outside of them are left alone.
const ROOTED: [&str; 8] = [
    "proc/",
    "run/",
    "oem/",
    "usr/local",
    "sys/",
    "etc/",
    "tmp/mnt",
    "system/",
];

/// One cloud-config, parsed as the engine does it.
pub(crate) fn parse(text: &str) -> Value {
    let options = serde_saphyr::options! { legacy_octal_numbers: true, strict_booleans: true };
    serde_saphyr::from_str_with_options(text, options).expect("a cloud-config that parses")
}

/// Every cloud-config by name.
pub(crate) fn documents() -> Vec<(&'static str, Value)> {
    CLOUD_CONFIGS
        .iter()
        .map(|(name, text)| (*name, parse(text)))
        .collect()
}

/// Every step as (file, stage, step).
pub(crate) fn steps() -> Vec<(&'static str, String, Value)> {
    let mut steps = Vec::new();
    for (file, document) in documents() {
        for (stage, list) in document["stages"].as_object().expect("stages") {
            for step in list.as_array().expect("a list of steps") {
                steps.push((file, stage.clone(), step.clone()));
            }
        }
    }
    steps
}

/// The step of that name.
pub(crate) fn step(file: &str, stage: &str, name: &str) -> Value {
    let found = steps()
        .into_iter()
        .find(|(of, at, step)| *of == file && at == stage && step["name"] == name);
    found
        .unwrap_or_else(|| panic!("no step {name:?} in stage {stage} of {file}"))
        .2
}

/// The strings of a list.
pub(crate) fn strings(list: &Value) -> Vec<&str> {
    list.as_array()
        .into_iter()
        .flatten()
        .map(|item| item.as_str().expect("a string"))
        .collect()
}

/// Whether `program` can be started; says so if not, as the test then proves less.
#[expect(clippy::print_stderr, reason = "a test that proves less must say so")]
pub(crate) fn available(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output()
        .is_ok_and(|it| it.status.success());
    if !found {
        eprintln!("skipped: `{program}` is not installed");
    }
    found
}

/// A directory that stands for `/`, and stubs of programs that note how they were called.
pub(crate) struct Root {
    dir: TempDir,
}

impl Root {
    /// A booted system with nothing on its command line.
    pub(crate) fn new() -> Self {
        let root = Self {
            dir: TempDir::new().expect("a temporary directory"),
        };
        for path in [
            "run/cos",
            "usr/local",
            "oem",
            "etc",
            "proc",
            "sys/class/dmi/id",
            "tmp/mnt",
            "stubs",
        ] {
            fs::create_dir_all(root.at(path)).expect("a directory");
        }
        root.cmdline("BOOT_IMAGE=(loop0)/boot/vmlinuz console=tty1");
        root
    }

    /// With these files in `/run/cos`.
    pub(crate) fn with_sentinels(sentinels: &[&str]) -> Self {
        let root = Self::new();
        for sentinel in sentinels {
            root.write(&format!("run/cos/{sentinel}"), "1");
        }
        root
    }

    /// Where `path` is in reality.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path.trim_start_matches('/'))
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.at(path).parent().expect("a parent")).expect("a directory");
        fs::write(self.at(path), text).expect("a file");
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_default()
    }

    pub(crate) fn exists(&self, path: &str) -> bool {
        self.at(path).symlink_metadata().is_ok()
    }

    pub(crate) fn cmdline(&self, text: &str) {
        self.write("proc/cmdline", &format!("{text}\n"));
    }

    /// Puts a program on the path that notes its call and then does what `body` says.
    pub(crate) fn stub(&self, program: &str, body: &str) {
        let path = format!("stubs/{program}");
        self.write(
            &path,
            &format!(
                "#!/bin/sh\necho \"{program} $*\" >> {}\n{body}\n",
                self.at("calls").display()
            ),
        );
        fs::set_permissions(self.at(&path), PermissionsExt::from_mode(0o755)).expect("a mode");
    }

    /// The calls of all stubs, one per line, with the real place of the root cut off.
    pub(crate) fn calls(&self) -> String {
        self.read("calls")
            .replace(&self.dir.path().display().to_string(), "")
    }

    /// Runs `text` as the engine does: `sh -c`, no input.
    pub(crate) fn run(&self, text: &str) -> Output {
        self.run_with(text, &[])
    }

    /// Runs `text` with arguments.
    pub(crate) fn run_with(&self, text: &str, args: &[&str]) -> Output {
        let path = format!(
            "{}:{}",
            self.at("stubs").display(),
            std::env::var("PATH").unwrap_or_default()
        );
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(self.rooted(text))
            .arg("sh")
            .args(args);
        command
            .env("PATH", path)
            .stdin(std::process::Stdio::null())
            .output()
            .expect("sh")
    }

    /// Whether the condition of the step holds; a step without one always runs.
    pub(crate) fn holds(&self, file: &str, stage: &str, name: &str) -> bool {
        match step(file, stage, name)["if"].as_str() {
            Some(condition) => self.run(condition).status.success(),
            None => true,
        }
    }

    /// Does what the step says about files and commands, if its condition holds; returns whether it did.
    pub(crate) fn perform(&self, file: &str, stage: &str, name: &str) -> bool {
        if !self.holds(file, stage, name) {
            return false;
        }
        let step = step(file, stage, name);
        for item in step["files"].as_array().into_iter().flatten() {
            let path = item["path"].as_str().expect("a path");
            self.write(
                path,
                &self.rooted(item["content"].as_str().expect("content")),
            );
            let mode =
                u32::try_from(item["permissions"].as_u64().expect("a mode")).expect("a mode");
            fs::set_permissions(self.at(path), PermissionsExt::from_mode(mode)).expect("a mode");
        }
        for command in strings(&step["commands"]) {
            let output = self.run(command);
            assert!(
                output.status.success(),
                "{name}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        true
    }

    /// Puts this root before every absolute path of `text` that is in one of its directories.
    pub(crate) fn rooted(&self, text: &str) -> String {
        let root = self.dir.path().display().to_string();
        let mut rooted = String::new();
        let mut before = ' ';
        for (index, c) in text.char_indices() {
            let starts_path =
                c == '/' && !before.is_alphanumeric() && !"_.-}/\\)]".contains(before);
            if starts_path && ROOTED.iter().any(|dir| text[index + 1..].starts_with(dir)) {
                rooted.push_str(&root);
            }
            rooted.push(c);
            before = c;
        }
        rooted
    }
}
