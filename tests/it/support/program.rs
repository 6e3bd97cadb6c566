//! Runs kfactory with nothing of the caller's environment, and records what it says and when.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::user::User;
use super::world;

/// What lets a machine reach the network; everything else of the environment stays outside.
const PASSED_ON: &[&str] = &[
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The moment every conversion of the tests is dated with.
pub(crate) const EPOCH: &str = "1700000000";

/// One run of the program, being prepared.
#[derive(Debug)]
pub(crate) struct Kfactory {
    command: Command,
}

/// A run that has ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    /// Every line of standard error and when it came.
    pub(crate) lines: Vec<(Duration, String)>,
    pub(crate) took: Duration,
}

impl Kfactory {
    /// Prepares a run by the plain user whose store is `home/store`.
    pub(crate) fn new<I: AsRef<OsStr>>(arguments: impl IntoIterator<Item = I>) -> Self {
        Self::as_user(&world().user, arguments)
    }

    /// Prepares a run by `user`.
    pub(crate) fn as_user<I: AsRef<OsStr>>(
        user: &User,
        arguments: impl IntoIterator<Item = I>,
    ) -> Self {
        let mut command = user.command(&world().program);
        let home = match user.is_caller && user.uid == 0 {
            true => world().own_dir("root"),
            false => world().dir.join("home"),
        };
        clean_environment(&mut command, &home);
        command.args(arguments).current_dir(&home);
        Self { command }
    }

    /// Prepares a run by whoever runs the tests.
    pub(crate) fn as_caller<I: AsRef<OsStr>>(arguments: impl IntoIterator<Item = I>) -> Self {
        Self::as_user(&User::caller(), arguments)
    }

    /// Sets the store.
    pub(crate) fn store(self, dir: &Path) -> Self {
        self.env("KFACTORY_STORE", dir)
    }

    /// Sets a variable.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Dates the run, so that equal inputs give equal images.
    pub(crate) fn dated(self) -> Self {
        self.env("SOURCE_DATE_EPOCH", EPOCH)
    }

    /// Gives the run the whole environment of the caller.
    pub(crate) fn with_callers_environment(mut self) -> Self {
        self.command.envs(std::env::vars_os());
        self
    }

    /// Adds arguments.
    pub(crate) fn args<I: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = I>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Runs `words` and, as what comes after them, the program.
    pub(crate) fn wrapped_by(self, words: &[&str]) -> Self {
        let mut command = Command::new(words[0]);
        clean_environment(&mut command, &world().dir.join("home"));
        command
            .args(&words[1..])
            .arg(self.command.get_program())
            .args(self.command.get_args());
        command.envs(
            self.command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        command.current_dir(self.command.get_current_dir().unwrap_or(&world().dir));
        Self { command }
    }

    /// Starts the program.
    pub(crate) fn start(mut self) -> Running {
        let start = Instant::now();
        self.command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self.command.spawn().expect("the program starts");
        let errors = BufReader::new(child.stderr.take().expect("piped"));
        let (sender, arriving) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in errors.split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                let _ = sender.send((start.elapsed(), line));
            }
        });
        let mut output = child.stdout.take().expect("piped");
        let stdout = std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = output.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        Running {
            child,
            start,
            arriving,
            lines: Vec::new(),
            stdout: Some(stdout),
        }
    }

    /// Runs the program to its end.
    pub(crate) fn run(self) -> Ran {
        self.start().wait()
    }

    /// Runs the program, which must end well.
    #[track_caller]
    pub(crate) fn succeed(self) -> Ran {
        let shown = format!("{:?}", self.command);
        let ran = self.run();
        assert_eq!(ran.code, Some(0), "{shown}\n{}", ran.last_lines(60));
        ran
    }

    /// Runs the program, which must end with `code`.
    #[track_caller]
    pub(crate) fn fail(self, code: i32) -> Ran {
        let shown = format!("{:?}", self.command);
        let ran = self.run();
        assert_eq!(
            ran.code,
            Some(code),
            "{shown}\n{}{}",
            ran.stdout,
            ran.last_lines(60)
        );
        ran
    }
}

/// A run under way.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) child: Child,
    start: Instant,
    arriving: std::sync::mpsc::Receiver<(Duration, String)>,
    lines: Vec<(Duration, String)>,
    stdout: Option<std::thread::JoinHandle<String>>,
}

impl Running {
    /// Waits until a line holds `word`; `false` when the program ended or `limit` passed before.
    pub(crate) fn wait_for(&mut self, word: &str, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while let Ok(line) = self
            .arriving
            .recv_timeout(end.saturating_duration_since(Instant::now()))
        {
            let found = line.1.contains(word);
            self.lines.push(line);
            if found {
                return true;
            }
        }
        false
    }

    /// Sends `signal` (a name that `kill` knows) to the process that was started.
    pub(crate) fn signal(&self, signal: &str) {
        let _ = Command::new("kill")
            .args(["-s", signal, &self.child.id().to_string()])
            .status();
    }

    /// Waits for the end.
    pub(crate) fn wait(mut self) -> Ran {
        // The pipe is emptied by a thread, so the child cannot block on it.
        let code = self.child.wait().expect("waited once").code();
        let took = self.start.elapsed();
        let stdout = self
            .stdout
            .take()
            .and_then(|reader| reader.join().ok())
            .unwrap_or_default();
        self.lines.extend(self.arriving.iter());
        Ran {
            code,
            stdout,
            lines: self.lines,
            took,
        }
    }
}

impl Ran {
    /// Returns standard error.
    pub(crate) fn stderr(&self) -> String {
        self.last_lines(usize::MAX)
    }

    /// Returns the last `count` lines of standard error.
    pub(crate) fn last_lines(&self, count: usize) -> String {
        let skip = self.lines.len().saturating_sub(count);
        self.lines[skip..]
            .iter()
            .map(|(_, line)| format!("{line}\n"))
            .collect()
    }

    /// Returns when the first line with `word` came.
    pub(crate) fn when(&self, word: &str) -> Option<Duration> {
        self.lines
            .iter()
            .find(|(_, line)| line.contains(word))
            .map(|(time, _)| *time)
    }

    /// Tells whether a line of standard error holds `word`.
    pub(crate) fn says(&self, word: &str) -> bool {
        self.when(word).is_some()
    }

    /// Returns the digest that the run printed.
    #[track_caller]
    pub(crate) fn digest(&self) -> String {
        let mut words = self.stdout.split_whitespace();
        let digest = words.rfind(|word| word.starts_with("sha256:"));
        digest
            .unwrap_or_else(|| panic!("no digest in {:?}", self.stdout))
            .to_owned()
    }

    /// Asserts that standard error holds every word and that no word of a language or a backtrace slipped through.
    #[track_caller]
    pub(crate) fn tells(&self, words: &[&str]) {
        let text = self.stderr();
        for word in words {
            assert!(text.contains(word), "no {word:?} in:\n{text}");
        }
        for slip in ["panicked", "RUST_BACKTRACE", "Os {", "Error {"] {
            assert!(!text.contains(slip), "{slip:?} in:\n{text}");
        }
    }
}

/// Leaves only what the program is meant to read.
pub(crate) fn clean_environment(command: &mut Command, home: &Path) {
    command
        .env_clear()
        .env("PATH", PATH)
        .env("HOME", home)
        .env("LC_ALL", "C.UTF-8");
    command
        .env("XDG_RUNTIME_DIR", home.join("run"))
        .env("XDG_CONFIG_HOME", home.join("config"));
    command
        .env("XDG_DATA_HOME", home.join("data"))
        .env("XDG_CACHE_HOME", home.join("cache"));
    for name in PASSED_ON {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
}
