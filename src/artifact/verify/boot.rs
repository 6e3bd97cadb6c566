//! A kernel and the initrd that it is started with: each is one, and they belong together.

use std::io::BufReader;

use kfactory_sandbox::CancelToken;

use super::rule::{Report, telling};
use super::rules;
use crate::artifact::region::Region;
use crate::distro::Arch;
use crate::error::{Context as _, Result};
use crate::initrd::{Initrd, is_module};
use crate::stop::{Stoppable, Stopped};
use crate::validate::kernel_image;

const READ_BYTES: usize = 1 << 20;

/// One file by its name in what is checked, and its content.
pub(super) struct BootFile<'a> {
    pub(super) path: &'a str,
    pub(super) content: &'a Region,
}

/// Modules by which the root filesystem is reached, as the way of booting has it.
pub(super) const LIVE: &[&str] = &["squashfs", "isofs", "loop", "overlay"];
/// The same over the network: there is no medium.
pub(super) const NETBOOT: &[&str] = &["squashfs", "loop", "overlay"];

/// Checks both, and returns what the kernel runs on, where it tells.
pub(super) fn check(
    report: &mut Report,
    kernel: &BootFile<'_>,
    initrds: &[BootFile<'_>],
    modules: &[&str],
    stop: Option<&CancelToken>,
) -> Result<Option<Arch>> {
    let doing = || format!("reading the kernel {}", kernel.path);
    let input = Stoppable::new(kernel.content.reader(), stop);
    let input = BufReader::with_capacity(READ_BYTES, input);
    let image = kernel_image::read(input).context(doing)?;
    let mut held = report.hold(&rules::KERNEL);
    let Some(image) = image else {
        held.at(kernel.path, "it is no kernel that is known here");
        return Ok(None);
    };
    if image.version.is_none() {
        held.at(kernel.path, "its version cannot be told");
    }
    let version = image.version.as_deref();
    let arch = image.arch.map_or("unknown", |arch| arch.as_str());
    let text = format!("{} ({arch})", version.unwrap_or("unknown"));
    report.fact("kernel", text);
    for initrd in initrds {
        if let Some(content) = read(report, initrd, stop)? {
            pair(report, initrd.path, &content, version, modules);
        }
    }
    Ok(image.arch)
}

/// Reads an initrd; none where it cannot be looked into.
fn read(
    report: &mut Report,
    file: &BootFile<'_>,
    stop: Option<&CancelToken>,
) -> Result<Option<Initrd>> {
    let input = BufReader::with_capacity(READ_BYTES, file.content.reader());
    let read = Initrd::read(input, stop);
    match read {
        Ok(initrd) => {
            report.hold(&rules::INITRD);
            return Ok(Some(initrd));
        }
        Err(error) if Stopped::is_in(&error) => return Err(Stopped.into()),
        Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {
            let mut held = report.hold(&rules::INITRD_UNREAD);
            held.at(file.path, telling(&error));
        }
        Err(error) => report.hold(&rules::INITRD).at(file.path, telling(&error)),
    }
    Ok(None)
}

fn pair(report: &mut Report, path: &str, initrd: &Initrd, kernel: Option<&str>, modules: &[&str]) {
    let mut held = report.hold(&rules::INITRD_KERNEL);
    let versions = initrd.module_versions();
    for version in versions
        .iter()
        .filter(|it| kernel.is_some_and(|kernel| **it != kernel))
    {
        let kernel = kernel.unwrap_or_default();
        held.at(
            path,
            format!("it holds modules of {version}, the kernel is {kernel}"),
        );
    }
    if !initrd.has_program("immucore") {
        let mut held = report.hold(&rules::INITRD_IMMUCORE);
        held.at(path, "it does not hold immucore");
    }
    report.hold(&rules::INITRD_IMMUCORE);
    let mut held = report.hold(&rules::INITRD_MODULES);
    // Without that list nobody knows what is in the kernel itself.
    if let Some(builtin) = &initrd.builtin {
        let is_builtin = |name: &str| builtin.lines().any(|line| is_module(line, name));
        let is_there = |name: &str| initrd.has_module(name) || is_builtin(name);
        for name in modules.iter().filter(|name| !is_there(name)) {
            let text = format!("the module {name} is neither in it nor built into the kernel");
            held.at(path, text);
        }
    }
}
