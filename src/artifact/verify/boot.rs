//! A kernel and the initrds that it is started with: each is one, and they belong together.

use std::io::{BufReader, ErrorKind, Read};

use kfactory_sandbox::CancelToken;

use super::rule::{Report, blame};
use super::rules;
use crate::error::Result;
use crate::initrd::{Initrd, is_module};
use crate::stop::Stoppable;
use crate::validate::kernel_image::{self, KernelImage};

const READ_BYTES: usize = 1 << 20;

/// One file by its name in what is checked, and its content from the start.
pub(super) struct BootFile<'a> {
    pub(super) path: String,
    pub(super) content: Box<dyn Read + 'a>,
}

/// How the root filesystem is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// From a medium.
    Live,
    /// Over the network.
    Netboot,
    /// On a disk, where a file in one file system is another.
    Disk,
}

impl Way {
    /// Returns the modules that it takes.
    fn modules(self) -> &'static [&'static str] {
        match self {
            Self::Live => &["squashfs", "isofs", "loop", "overlay"],
            Self::Netboot => &["squashfs", "loop", "overlay"],
            Self::Disk => &["ext4", "loop", "overlay"],
        }
    }
}

/// By what an initrd of dracut's is known, and by what it reaches a squashfs.
const DRACUT: &str = "lib/dracut-lib.sh";
const DRACUT_LIVE: &str = "dmsquash-live-root";

/// Checks a kernel and what it is started with, and returns what it says of itself, where it is one.
pub(super) fn check(
    report: &mut Report,
    kernel: BootFile<'_>,
    initrds: Vec<BootFile<'_>>,
    way: Way,
    stop: Option<&CancelToken>,
) -> Result<Option<KernelImage>> {
    let path = &kernel.path;
    let input = Stoppable::new(kernel.content, stop);
    let read = kernel_image::read(BufReader::with_capacity(READ_BYTES, input));
    let mut held = report.hold(&rules::KERNEL);
    let image = match read {
        Ok(Some(image)) => image,
        Ok(None) => {
            held.at(path, "it is no kernel that is known here");
            return Ok(None);
        }
        Err(error) => {
            held.at(path, format!("it cannot be read: {}", blame(error)?));
            return Ok(None);
        }
    };
    if image.version.is_none() {
        held.at(path, "its version cannot be told");
    }
    if !image.is_whole {
        held.at(path, "it is shorter than its header says");
    }
    let arch = image.arch.map_or("unknown", |arch| arch.as_str());
    let version = image.version.as_deref().unwrap_or("unknown");
    report.fact("kernel", format!("{version} ({arch})"));
    let (mut all, mut names) = (Vec::new(), Vec::new());
    for initrd in initrds {
        let path = initrd.path.clone();
        all.push(read_initrd(report, initrd, stop)?);
        names.push(path);
    }
    // The kernel unpacks one over the other: what one of them has is there.
    if let Some(read) = all.into_iter().collect::<Option<Vec<Initrd>>>() {
        pair(report, &names.join(", "), &read, &image, way);
    }
    Ok(Some(image))
}

/// Reads an initrd; none where it cannot be looked into.
fn read_initrd(
    report: &mut Report,
    file: BootFile<'_>,
    stop: Option<&CancelToken>,
) -> Result<Option<Initrd>> {
    let input = BufReader::with_capacity(READ_BYTES, file.content);
    let read = Initrd::read(input, stop);
    match read {
        Ok(initrd) => {
            report.hold(&rules::INITRD);
            return Ok(Some(initrd));
        }
        Err(error) => {
            let rule = match error.kind() {
                ErrorKind::Unsupported => &rules::INITRD_UNREAD,
                _ => &rules::INITRD,
            };
            report.hold(rule).at(&file.path, blame(error)?);
        }
    }
    Ok(None)
}

fn pair(report: &mut Report, path: &str, initrds: &[Initrd], kernel: &KernelImage, way: Way) {
    if initrds.is_empty() {
        report
            .hold(&rules::INITRD)
            .add("the kernel is started without one");
        return;
    }
    let mut held = report.hold(&rules::INITRD_KERNEL);
    let mut versions = initrds.iter().flat_map(Initrd::module_versions).peekable();
    if versions.peek().is_none() {
        held.at(path, "it holds no modules of any kernel");
    }
    if let Some(kernel) = &kernel.version {
        for version in versions.filter(|version| version != kernel) {
            held.at(
                path,
                format!("it holds modules of {version}, the kernel is {kernel}"),
            );
        }
    }
    let mut held = report.hold(&rules::INITRD_INIT);
    if !initrds.iter().any(Initrd::has_init) {
        held.at(path, "it has no /init, or one that leads nowhere");
    }
    let mut held = report.hold(&rules::INITRD_IMMUCORE);
    if !initrds.iter().any(|it| it.has_program("immucore")) {
        held.at(path, "it does not hold immucore");
    }
    let has_file = |end: &str| initrds.iter().any(|it| it.has_ending(end));
    if way != Way::Disk {
        let mut held = report.hold(&rules::INITRD_LIVE);
        if has_file(DRACUT) && !has_file(DRACUT_LIVE) {
            held.at(path, format!("it has no {DRACUT_LIVE}"));
        }
    }
    let mut held = report.hold(&rules::INITRD_MODULES);
    let builtin = initrds.iter().find_map(|it| it.builtin.as_deref());
    // Without that list nobody knows what is in the kernel itself.
    if let Some(builtin) = builtin {
        let is_builtin = |name: &str| builtin.lines().any(|line| is_module(line, name));
        let has = |name: &str| initrds.iter().any(|it| it.has_module(name)) || is_builtin(name);
        for name in way.modules().iter().filter(|name| !has(name)) {
            let text = format!("the module {name} is neither in it nor built into the kernel");
            held.at(path, text);
        }
    }
}
