//! The system that boots: its root filesystem has an init, says what it is, and has the kernel's modules.

use std::io;

use super::rule::Report;
use super::rules;
use crate::kairos::dotenv;
use crate::kairos::release::RELEASE_PATH;
use crate::validate::kernel_image::KernelImage;

/// A file system of which small files are read. Paths are from its root; links are followed inside it.
pub(super) trait RootFs {
    /// Returns the content of a file of `most` bytes at most.
    fn read(&mut self, path: &str, most: usize) -> io::Result<Result<Vec<u8>, Lack>>;
    /// Tells whether there is a file.
    fn is_file(&mut self, path: &str) -> io::Result<bool>;
    /// Tells whether there is a directory.
    fn is_dir(&mut self, path: &str) -> io::Result<bool>;
}

/// Why the content of a file is not at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lack {
    /// There is no such file.
    Missing,
    /// It has `size` bytes, and `most` are read of such a file.
    TooLarge { size: u64, most: usize },
}

impl Lack {
    /// Says it of the file `path`.
    pub(super) fn of(self, path: &str) -> String {
        match self {
            Self::Missing => format!("it has no /{path}"),
            Self::TooLarge { size, most } => {
                format!("its /{path} has {size} bytes, and of such a file {most} are read at most")
            }
        }
    }
}

/// What the initrd starts, and by which everybody else finds out what the system is.
const NEEDED: [&str; 2] = ["sbin/init", RELEASE_PATH];
const MAX_RELEASE_BYTES: usize = 64 << 10;
/// Those of distributions have 300 kB.
const MAX_CONFIG_BYTES: usize = 2 << 20;

/// Checks the root filesystem called `path`, which `kernel` starts.
pub(super) fn check(
    report: &mut Report,
    path: &str,
    root: &mut dyn RootFs,
    kernel: Option<&KernelImage>,
) -> io::Result<()> {
    for needed in NEEDED {
        let is_there = root.is_file(needed)?;
        let mut held = report.hold(&rules::ROOT_FILES);
        if !is_there {
            let needed = needed.trim_start_matches('/');
            held.at(path, format!("it has no /{needed}"));
        }
    }
    match root.read(RELEASE_PATH, MAX_RELEASE_BYTES)? {
        Ok(text) => report.fact("system", system(&String::from_utf8_lossy(&text))),
        // That was told with what else is needed.
        Err(Lack::Missing) => {}
        Err(lack) => report
            .hold(&rules::ROOT_FILES)
            .at(path, lack.of(RELEASE_PATH)),
    }
    if let Some(version) = kernel.and_then(|kernel| kernel.version.as_deref()) {
        let is_there = root.is_dir(&format!("lib/modules/{version}"))?;
        let mut held = report.hold(&rules::ROOT_MODULES);
        if !is_there {
            held.at(
                path,
                format!("it has no /lib/modules/{version}, which the kernel is for"),
            );
        }
    }
    Ok(())
}

/// Returns what a system says of itself in its release file.
fn system(text: &str) -> String {
    let keys = dotenv::parse(text).unwrap_or_default();
    let value = |key: &str| keys.get(key).cloned().unwrap_or_default();
    let words = ["KAIROS_FLAVOR", "KAIROS_FLAVOR_RELEASE", "KAIROS_VERSION"].map(value);
    let words: Vec<String> = words.into_iter().filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

/// Returns the configuration that `kernel` was built with, where the root filesystem has it.
pub(super) fn kernel_config(
    root: &mut dyn RootFs,
    kernel: Option<&KernelImage>,
) -> io::Result<Option<String>> {
    let Some(version) = kernel.and_then(|kernel| kernel.version.as_deref()) else {
        return Ok(None);
    };
    for path in [
        format!("boot/config-{version}"),
        format!("lib/modules/{version}/config"),
    ] {
        if let Ok(bytes) = root.read(&path, MAX_CONFIG_BYTES)? {
            return Ok(Some(String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
    Ok(None)
}
