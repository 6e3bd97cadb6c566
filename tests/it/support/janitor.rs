//! Cleans up after the test program, however that ends: statics are never dropped, and a killed program drops nothing.
//!
//! A shell waits for the end of a pipe that only this process holds open, then undoes what it was told, last first.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;

const SCRIPT: &str = r#"
tac | while read -r verb what; do
    case $verb in
        kill) [ "$(cat "/proc/$what/comm" 2>/dev/null)" != docker-registry ] || kill -9 "$what" ;;
        remove)
            # A plain user's stores hold files of its subordinate IDs.
            [ "$(id -u)" = 0 ] || unshare --map-root-user --map-auto rm -rf "$what"
            rm -rf "$what" ;;
        userdel) for try in 1 2 3 4 5; do userdel "$what" && break; sleep 1; done ;;
    esac
done
"#;

/// The shell and its standard input.
#[derive(Debug)]
pub(crate) struct Janitor {
    pipe: Mutex<ChildStdin>,
    /// Never waited for: it outlives this program.
    _shell: Child,
}

impl Janitor {
    pub(crate) fn start() -> Self {
        // In a process group of its own, so that Ctrl-C in a terminal does not reach it.
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("a shell starts");
        let pipe = Mutex::new(shell.stdin.take().expect("piped"));
        Self {
            pipe,
            _shell: shell,
        }
    }

    pub(crate) fn kill_registry_at_end(&self, pid: u32) {
        self.tell(&format!("kill {pid}"));
    }

    pub(crate) fn remove_at_end(&self, dir: &Path) {
        self.tell(&format!("remove {}", dir.display()));
    }

    pub(crate) fn remove_user_at_end(&self, name: &str) {
        self.tell(&format!("userdel {name}"));
    }

    fn tell(&self, line: &str) {
        let mut pipe = self.pipe.lock().expect("no panic while held");
        writeln!(pipe, "{line}").expect("the shell reads");
    }
}
