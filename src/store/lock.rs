//! Locks that other runs look at.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use kfactory_sandbox::CancelToken;
use rustix::fs::OFlags;

use crate::error::{Context as _, Result};
use crate::progress::Reporter;
use crate::stop;

/// How long a run waits before it says so.
const SILENT: Duration = Duration::from_millis(500);
/// How often it looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Opens the lock at `path`, made where it is missing. What a link leads to is nobody's lock.
pub(super) fn file(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
}

/// Takes the `lock` of the store at `dir` beside other runs.
///
/// # Errors
///
/// It cannot be locked, or `cancel` was cancelled meanwhile.
pub(super) fn shared(
    lock: &File,
    dir: &Path,
    cancel: &CancelToken,
    reporter: &Reporter,
) -> Result<()> {
    let (start, mut told) = (Instant::now(), false);
    loop {
        match lock.try_lock_shared() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => stop::check(cancel)?,
            Err(TryLockError::Error(error)) => {
                return Err(error).context(|| "waiting for the store's lock".into());
            }
        }
        if !told && start.elapsed() >= SILENT {
            told = true;
            reporter.note(&format!(
                "waiting for another run that is cleaning the store in {}",
                dir.display()
            ));
        }
        std::thread::sleep(PAUSE);
    }
}
