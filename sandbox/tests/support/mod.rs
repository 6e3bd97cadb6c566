//! Who runs the probe, and what it reported.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A user made for the tests; gone when the last test that uses it ends.
#[derive(Debug)]
pub(crate) struct TestUser {
    name: String,
    uid: u32,
}

impl TestUser {
    fn create() -> Option<Self> {
        let name = format!("kfsandbox{}", std::process::id());
        quiet(
            "useradd",
            &["--no-create-home", "--shell", "/bin/sh", &name],
        )?;
        let user = Self {
            uid: id(&["-u", &name])?,
            name,
        };
        let granted = |file| {
            fs::read_to_string(file)
                .is_ok_and(|text: String| text.contains(&format!("{}:", user.name)))
        };
        if !granted("/etc/subuid") || !granted("/etc/subgid") {
            quiet(
                "usermod",
                &[
                    "--add-subuids",
                    "300000000-300065535",
                    "--add-subgids",
                    "300000000-300065535",
                    &user.name,
                ],
            )?;
        }
        Some(user)
    }
}

impl Drop for TestUser {
    fn drop(&mut self) {
        let _ = quiet("userdel", &["--force", &self.name]);
    }
}

fn quiet(program: &str, arguments: &[&str]) -> Option<()> {
    // Another program may hold the lock of /etc/passwd for a moment.
    (0..20).find_map(|_| {
        let status = Command::new(program)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .ok()?;
        if !status.success() {
            std::thread::sleep(Duration::from_millis(100));
        }
        status.success().then_some(())
    })
}

fn id(arguments: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(arguments).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

/// Who starts the probe.
#[derive(Debug, Clone)]
pub(crate) enum Caller {
    /// Whoever runs the tests.
    Me,
    /// A plain user with subordinate IDs.
    User(Arc<TestUser>),
}

static USER: Mutex<Weak<TestUser>> = Mutex::new(Weak::new());

/// Returns everybody the tests can run as: the caller, and a plain user where the caller is root.
pub(crate) fn callers() -> Vec<Caller> {
    let mut callers = vec![Caller::Me];
    if id(&["-u"]) == Some(0) {
        let mut user = USER
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match user.upgrade().or_else(|| TestUser::create().map(Arc::new)) {
            Some(made) => {
                *user = Arc::downgrade(&made);
                callers.push(Caller::User(made));
            }
            None => skipped("no user can be made here with useradd"),
        }
    }
    callers.retain(|caller| {
        match Probe::new(caller)
            .arguments(["--exit", "0", "--", "x"])
            .run()
            .code
        {
            Some(0) => true,
            _ => {
                skipped(&format!("{caller:?} cannot enter a stage here"));
                false
            }
        }
    });
    callers
}

/// Says why a test did not run; with `KFACTORY_NO_SKIP` set, that is a failure.
pub(crate) fn skipped(why: &str) {
    assert!(
        std::env::var_os("KFACTORY_NO_SKIP").is_none(),
        "skipped: {why}"
    );
    eprintln!("skipped: {why}");
}

/// One run of the probe in a directory of its own.
#[derive(Debug)]
pub(crate) struct Probe {
    home: TempDir,
    command: Command,
}

impl Probe {
    /// Prepares a run by `caller`.
    pub(crate) fn new(caller: &Caller) -> Self {
        Self::named(caller, "store")
    }

    /// Prepares a run by `caller` whose directory has the name `name`.
    pub(crate) fn named(caller: &Caller, name: &str) -> Self {
        let home = tempfile::Builder::new()
            .prefix("sandbox")
            .tempdir()
            .unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        // The build directory may be closed to the plain user. Copied by another process, because a descriptor open for writing
        // that a test in another thread inherits would make the copy "busy".
        let program = home.path().join("probe");
        let copied = Command::new("cp")
            .arg(env!("CARGO_BIN_EXE_sandbox-probe"))
            .arg(&program)
            .status();
        assert!(copied.unwrap().success());
        let store = home.path().join(name);
        fs::create_dir(&store).unwrap();
        let mut command = match caller {
            Caller::Me => Command::new(&program),
            Caller::User(user) => {
                std::os::unix::fs::chown(&store, Some(user.uid), Some(user.uid)).unwrap();
                let id = user.uid.to_string();
                let mut command = Command::new("setpriv");
                command
                    .args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"])
                    .arg(&program);
                command
            }
        };
        command.arg(&store).current_dir("/").stdin(Stdio::null());
        Self { home, command }
    }

    /// Adds arguments: options, `--`, the command.
    pub(crate) fn arguments<'a>(mut self, arguments: impl IntoIterator<Item = &'a str>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Adds `--` and a shell script as the command.
    pub(crate) fn script(self, script: &str) -> Self {
        self.arguments(["--", "sh", "-c", script])
    }

    /// Sets an environment variable of the probe.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Returns the probe's command, to be started in another way.
    pub(crate) fn into_command(self) -> (TempDir, Command) {
        (self.home, self.command)
    }

    /// Returns the directory above the store.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Runs the probe to its end.
    pub(crate) fn run(mut self) -> Report {
        let output = self.command.stderr(Stdio::inherit()).output().unwrap();
        Report::new(&output.stdout, output.status.code())
    }

    /// Runs the probe to its end on a terminal of its own.
    pub(crate) fn on_a_terminal(self) -> Report {
        let words = std::iter::once(self.command.get_program()).chain(self.command.get_args());
        let quoted: Vec<String> = words
            .map(|word| format!("'{}'", word.to_str().unwrap()))
            .collect();
        let output = Command::new("script")
            .args(["--quiet", "--return", "--command", &quoted.join(" ")])
            .arg("/dev/null")
            .output()
            .unwrap();
        Report::new(&output.stdout, output.status.code())
    }

    /// Starts the probe and leaves it running.
    pub(crate) fn start(mut self) -> Running {
        let child = self
            .command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Running {
            child,
            _home: self.home,
        }
    }
}

/// A probe that runs.
#[derive(Debug)]
pub(crate) struct Running {
    /// Its outer process, which has the PID of what was started.
    pub(crate) child: Child,
    _home: TempDir,
}

/// What a probe said.
#[derive(Debug)]
pub(crate) struct Report {
    lines: Vec<(String, String)>,
    /// Its exit code.
    pub(crate) code: Option<i32>,
}

impl Report {
    fn new(stdout: &[u8], code: Option<i32>) -> Self {
        let text = String::from_utf8_lossy(stdout);
        let lines = text
            .lines()
            .filter_map(|line| line.split_once(": "))
            .map(|(word, rest)| (word.to_owned(), rest.to_owned()));
        Self {
            lines: lines.collect(),
            code,
        }
    }

    /// Returns every report under `word`.
    pub(crate) fn all(&self, word: &str) -> Vec<&str> {
        self.lines
            .iter()
            .filter(|(name, _)| name == word)
            .map(|(_, rest)| rest.as_str())
            .collect()
    }

    /// Returns the only report under `word`.
    #[track_caller]
    pub(crate) fn one(&self, word: &str) -> &str {
        match self.all(word)[..] {
            [only] => only,
            ref other => panic!("{} reports of {word:?} in {self:#?}", other.len()),
        }
    }

    /// Returns what the command wrote to its standard output.
    pub(crate) fn out(&self) -> String {
        self.all("out").join("\n")
    }
}

/// Returns the processes whose command line holds `mark`.
pub(crate) fn processes_with(mark: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir("/proc")
        .unwrap()
        .filter_map(Result::ok)
        .map(|entry| entry.path());
    entries
        .filter(|path| {
            let line = fs::read(path.join("cmdline")).unwrap_or_default();
            line.windows(mark.len()).any(|part| part == mark.as_bytes())
        })
        .collect()
}

/// Waits until `holds`, at most ten seconds, and tells whether it came to that.
pub(crate) fn eventually(mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        if holds() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    holds()
}
