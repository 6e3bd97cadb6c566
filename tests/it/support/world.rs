//! The place where the tests work, and who works there; made once and removed at the end.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::janitor::Janitor;
use super::run;
use super::user::{User, is_root};

/// Directory, program and user.
#[derive(Debug)]
pub(crate) struct World {
    /// Where everything of this run is; every user may enter it.
    pub(crate) dir: PathBuf,
    /// The program; the build directory may be closed to the plain user.
    pub(crate) program: PathBuf,
    /// The plain user.
    pub(crate) user: User,
    pub(crate) janitor: Janitor,
}

/// Returns the world of this run.
pub(crate) fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(World::new)
}

impl World {
    fn new() -> Self {
        let janitor = Janitor::start();
        // Not /tmp, which may be a small tmpfs.
        let dir = PathBuf::from(format!("/var/tmp/kfactory-it-{}", std::process::id()));
        std::fs::create_dir(&dir).expect("a fresh directory");
        janitor.remove_at_end(&dir);
        open_to_all(&dir);
        let user = if is_root() {
            User::create(&dir.join("home"), &janitor)
        } else {
            User::caller()
        };
        for name in ["home", "home/run"] {
            user.make_dir(&dir.join(name));
        }
        let program = dir.join("kfactory");
        // Copied by another process: a descriptor open for writing that a child inherits would make the program "busy".
        run(Command::new("cp")
            .arg(env!("CARGO_BIN_EXE_kfactory"))
            .arg(&program));
        Self {
            dir,
            program,
            user,
            janitor,
        }
    }

    /// Returns a fresh directory of the plain user.
    pub(crate) fn user_dir(&self, name: &str) -> PathBuf {
        let dir = self.dir.join("home").join(name);
        self.user.make_dir(&dir);
        dir
    }

    /// Returns a fresh directory of whoever runs the tests.
    pub(crate) fn own_dir(&self, name: &str) -> PathBuf {
        let dir = self.dir.join(name);
        std::fs::create_dir_all(&dir).expect("a directory");
        open_to_all(&dir);
        dir
    }
}

/// A directory that is removed when this value is dropped.
#[derive(Debug)]
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    /// Makes a directory of the plain user.
    pub(crate) fn of_user(name: &str) -> Self {
        Self(world().user_dir(name))
    }

    /// Names a place for a directory that a program of whoever runs the tests makes.
    pub(crate) fn of_caller(name: &str) -> Self {
        let home = if is_root() { "" } else { "home" };
        Self(world().dir.join(home).join(name))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove_tree(&self.0);
    }
}

fn open_to_all(dir: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).expect("ours");
}

/// Returns a directory that survives this run: what is slow to make and the same for every run.
pub(crate) fn cache_dir() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("it");
    std::fs::create_dir_all(&dir).expect("the build directory is ours");
    dir
}

/// Returns `made`, a file or directory of [`cache_dir`], at a place that everybody may reach: root's home, in which the build directory may be, is
/// closed to others.
pub(crate) fn within_reach(made: &Path) -> std::io::Result<PathBuf> {
    static LOCK: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _alone = LOCK
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let place = world()
        .own_dir("made")
        .join(made.file_name().expect("a file"));
    let copy = |how: &str| {
        let mut copy = Command::new("cp");
        let copied = copy.args(["-a", how]).arg(made).arg(&place).status();
        copied.map(|status| status.success())
    };
    // On another file system there are no links.
    if place.exists() || copy("--link")? || copy("--reflink=auto")? {
        return Ok(place);
    }
    Err(std::io::Error::other(format!(
        "{} cannot be copied",
        made.display()
    )))
}

/// Removes a tree that may hold files of the plain user's subordinate IDs.
pub(crate) fn remove_tree(dir: &Path) {
    if !is_root() {
        let _ = Command::new("unshare")
            .args(["--map-root-user", "--map-auto", "rm", "-rf"])
            .arg(dir)
            .status();
    }
    let _ = Command::new("rm").arg("-rf").arg(dir).status();
}
