//! The Kairos binaries of the tests: real ones built with Go where that is there, else stand-ins.

use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::Kfactory;
use super::tools::find;
use super::world::{cache_dir, world};

/// Versions and checksums of what is built; another content is another framework.
const PINS: &str = include_str!("../../../src/framework/pins.toml");
/// The two programs that no image boots without; the optional ones are a matter of the framework's own tests.
const GO: &str = "go:kcrypt-discovery-challenger=none,kairos-installer=none";

/// Where the binaries are.
#[derive(Debug)]
pub(crate) struct Framework {
    /// What `--framework` takes.
    pub(crate) spec: String,
    /// Whether they are the real programs.
    pub(crate) is_real: bool,
}

/// Returns the framework of this run.
pub(crate) fn framework() -> &'static Framework {
    static FRAMEWORK: OnceLock<Framework> = OnceLock::new();
    FRAMEWORK.get_or_init(|| match build() {
        Ok(spec) => Framework {
            spec,
            is_real: true,
        },
        Err(why) => {
            // Not a skipped test: everything but running the binaries is still tried.
            eprintln!("skipped: {why}: the framework is made of stand-ins");
            Framework {
                spec: format!(
                    "dir:{}",
                    stand_ins(&["usr/bin/kairos-agent", "usr/bin/immucore"]).display()
                ),
                is_real: false,
            }
        }
    })
}

/// Builds the binaries once for all runs with the same pins.
fn build() -> Result<String, String> {
    let mut hasher = DefaultHasher::new();
    PINS.hash(&mut hasher);
    let made = cache_dir().join(format!("framework-{:016x}", hasher.finish()));
    let lock =
        File::create(cache_dir().join("framework.lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    if !made.is_dir() {
        if find("go").is_none() {
            return Err("no Go toolchain".into());
        }
        let part = made.with_extension("part");
        super::world::remove_tree(&part);
        let store = world().own_dir("framework-store");
        let output = format!("oci:{}:v1", part.display());
        // The caller's own settings say how Go reaches its modules, and its cache makes the build fast.
        let build = Kfactory::as_caller(["framework", "build", "--framework", GO, "-o", &output])
            .with_callers_environment();
        let ran = build.store(&store).run();
        super::world::remove_tree(&store);
        // Go's cache is of no more use, and large.
        for home in ["root", "home"] {
            super::world::remove_tree(&world().dir.join(home).join("cache/go-build"));
        }
        if ran.code != Some(0) {
            return Err(format!(
                "the Go build failed ({})",
                ran.last_lines(12).replace('\n', " / ")
            ));
        }
        std::fs::rename(&part, &made).map_err(|error| error.to_string())?;
    }
    // The build directory may be closed to the plain user.
    let copy = world().dir.join("framework");
    super::run(
        std::process::Command::new("cp")
            .arg("-a")
            .arg(&made)
            .arg(&copy),
    );
    super::run(
        std::process::Command::new("chmod")
            .args(["-R", "a+rX"])
            .arg(&copy),
    );
    Ok(format!("oci:{}:v1", copy.display()))
}

/// Makes a framework directory of programs that only look like ones for this machine.
pub(crate) fn stand_ins(paths: &[&str]) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    // Several tests ask for the same ones.
    static LOCK: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _alone = LOCK
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let dir = world().own_dir(&format!("stand-ins-{}", paths.len()));
    for path in paths {
        let path = dir.join(path);
        if path.exists() {
            continue;
        }
        std::fs::create_dir_all(path.parent().expect("below the root")).expect("a directory");
        // The first bytes of our own program name the machine; what follows is never run.
        let mut head =
            std::fs::read(Path::new(env!("CARGO_BIN_EXE_kfactory"))).expect("our own program");
        head.truncate(4096);
        std::fs::write(&path, head).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("ours");
    }
    dir
}

/// Makes a framework directory of programs that dracut can take apart: those of this machine that do nothing.
pub(crate) fn programs() -> PathBuf {
    static LOCK: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _alone = LOCK
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let dir = world().own_dir("programs/usr/bin");
    for name in ["kairos-agent", "immucore"] {
        let place = dir.join(name);
        if !place.exists() {
            std::fs::copy("/bin/true", place).expect("readable by all");
        }
    }
    world().dir.join("programs")
}
