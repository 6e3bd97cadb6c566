//! Who runs the program: a plain user made for the tests where they run as root, else whoever runs them.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::janitor::Janitor;

/// An account.
#[derive(Debug, Clone)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Whether programs run as this user without a change of user.
    pub(crate) is_caller: bool,
}

/// Tells whether the tests run as root.
pub(crate) fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

impl User {
    /// Returns whoever runs the tests.
    pub(crate) fn caller() -> Self {
        let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
        let name = id(&["-un"]).unwrap_or_default();
        Self {
            name,
            uid: uid.as_raw(),
            gid: gid.as_raw(),
            is_caller: true,
        }
    }

    /// Makes a user with a range of subordinate IDs whose home is `home`; removed at the end.
    pub(crate) fn create(home: &Path, janitor: &Janitor) -> Self {
        let name = format!("kfit{}", std::process::id());
        useradd(&["--home-dir", &home.display().to_string(), &name]);
        janitor.remove_user_at_end(&name);
        if !has_range(&name) {
            let range = "300000000-300065535";
            quiet(
                "usermod",
                &["--add-subuids", range, "--add-subgids", range, &name],
            );
        }
        Self::find(name)
    }

    /// Makes a user without subordinate IDs; removed at the end.
    pub(crate) fn create_without_ids(janitor: &Janitor) -> Self {
        let name = format!("kfno{}", std::process::id());
        useradd(&["-K", "SUB_UID_COUNT=0", "-K", "SUB_GID_COUNT=0", &name]);
        janitor.remove_user_at_end(&name);
        assert!(!has_range(&name), "{name} was given subordinate IDs");
        Self::find(name)
    }

    fn find(name: String) -> Self {
        let number = |option: &str| {
            let text = id(&[option, &name]).expect("the user exists");
            text.parse().expect("a number")
        };
        Self {
            uid: number("-u"),
            gid: number("-g"),
            name,
            is_caller: false,
        }
    }

    /// Returns a command that runs `program` as this user.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        if self.is_caller {
            return Command::new(program);
        }
        // By its full path: a test may give the program a PATH without it.
        let setpriv = super::tools::find("setpriv").expect("a part of util-linux");
        let mut command = Command::new(setpriv);
        command.args([
            "--reuid",
            &self.uid.to_string(),
            "--regid",
            &self.gid.to_string(),
        ]);
        command.args(["--clear-groups", "--"]).arg(program);
        command
    }

    /// Makes a directory that belongs to this user.
    pub(crate) fn make_dir(&self, dir: &Path) {
        fs::create_dir_all(dir).expect("a directory");
        if !self.is_caller {
            std::os::unix::fs::chown(dir, Some(self.uid), Some(self.gid)).expect("root may");
        }
    }
}

fn useradd(arguments: &[&str]) {
    let mut all = vec!["--no-create-home", "--shell", "/bin/sh"];
    all.extend(arguments);
    quiet("useradd", &all);
}

fn has_range(name: &str) -> bool {
    let holds = |file| {
        fs::read_to_string(file).is_ok_and(|text: String| {
            text.lines()
                .any(|line| line.starts_with(&format!("{name}:")))
        })
    };
    holds("/etc/subuid") && holds("/etc/subgid")
}

/// Runs an account tool, which may have to wait for another one's lock of /etc/passwd.
fn quiet(program: &str, arguments: &[&str]) {
    let works = || {
        let status = Command::new(program)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|status| status.success())
    };
    let done = (0..30).any(|_| {
        works() || {
            std::thread::sleep(std::time::Duration::from_millis(100));
            false
        }
    });
    assert!(done, "{program} {arguments:?} does not work");
}

fn id(arguments: &[&str]) -> Option<String> {
    let output = Command::new("id").args(arguments).output().ok()?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
