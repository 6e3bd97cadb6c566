//! Repositories of git, and the daemon that hands them out.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::run;

/// The daemon; stopped when dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    /// `git://127.0.0.1:PORT`
    pub(crate) address: String,
    child: Child,
}

impl Daemon {
    /// Hands out every repository below `dir`.
    pub(crate) fn start(dir: &Path) -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|free| free.local_addr())
            .expect("a free port")
            .port();
        // The program itself: `git daemon` would leave it behind when it is killed.
        let programs = run(Command::new("git").arg("--exec-path"));
        let child = Command::new(Path::new(programs.trim()).join("git-daemon"))
            .args(["--export-all", "--reuseaddr", "--listen=127.0.0.1"])
            .arg(format!("--port={port}"))
            .arg(format!("--base-path={}", dir.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the daemon starts");
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < end, "the git daemon does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self {
            address: format!("git://127.0.0.1:{port}"),
            child,
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Prepares git in `dir`, with nothing of this machine's configuration.
pub(crate) fn git(dir: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .current_dir(dir)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .args(["-c", "user.name=me", "-c", "user.email=me@localhost"])
        .args(["-c", "safe.directory=*"]);
    command
}

/// Makes the repository `dir/site.git`, which is served as it is: `trunk`, its own branch, holds a program,
/// a link and a text; `next` another text.
pub(crate) fn repository(dir: &Path) -> PathBuf {
    let work = dir.join("work");
    std::fs::create_dir_all(work.join("sub")).expect("a directory");
    let write = |name: &str, text: &str| std::fs::write(work.join(name), text).expect("ours");
    write("tool", "#!/bin/sh\necho tool\n");
    write("sub/text", "first\n");
    std::os::unix::fs::symlink("sub/text", work.join("link")).expect("ours");
    run(Command::new("chmod").arg("755").arg(work.join("tool")));
    run(git(&work).args(["init", "-q", "-b", "trunk"]));
    run(git(&work).args(["add", "."]));
    run(git(&work).args(["commit", "-q", "-m", "first", "--date", "@1700000000 +0000"]));
    run(git(&work).args(["checkout", "-q", "-b", "next"]));
    write("sub/text", "next\n");
    run(git(&work).args([
        "commit",
        "-q",
        "-a",
        "-m",
        "next",
        "--date",
        "@1700000000 +0000",
    ]));
    run(git(&work).args(["checkout", "-q", "trunk"]));
    run(git(dir).args(["clone", "-q", "--bare", "work", "site.git"]));
    // For servers that know nothing of git.
    run(git(&dir.join("site.git")).args(["update-server-info"]));
    dir.join("site.git")
}
