//! Which kernel the image boots, and the link that names it.

use kfactory_layers::metadata::FileKind;
use kfactory_layers::root::Root;

use super::Environment;
use crate::choice::KernelChoice;
use crate::error::{Error, Result};
use crate::kairos::kernel::{self, KernelCandidate, KernelError};
use crate::request::Request;

const MODULES: &str = "/usr/lib/modules";
const LEGACY_MODULES: &str = "/lib/modules";

/// Returns the chosen kernel's version: the name of its directory below `/lib/modules`.
///
/// # Errors
///
/// No kernel is installed.
pub(super) fn choose(env: &Environment<'_>, root: &Root) -> Result<String> {
    if !root.exists(MODULES)? && !root.exists(LEGACY_MODULES)? {
        return Err(none_installed(env.request));
    }
    let candidates = candidates(root)?;
    let chosen = kernel::choose(&candidates, &env.request.model)
        .map_err(|_: KernelError| none_installed(env.request))?;
    if candidates.len() > 1 {
        let names: Vec<&str> = candidates.iter().map(|c| c.name.as_str()).collect();
        env.reporter.warn(&format!(
            "{} kernels are installed ({}); {chosen} is used",
            names.len(),
            names.join(", ")
        ));
    }
    Ok(chosen.to_owned())
}

/// Returns the drivers that the chosen kernel has built in, by their names with underscores; none where there is no kernel.
pub(super) fn built_in(env: &Environment<'_>, root: &Root) -> Result<Vec<String>> {
    if !root.exists(MODULES)? && !root.exists(LEGACY_MODULES)? {
        return Ok(Vec::new());
    }
    let candidates = candidates(root)?;
    let Ok(version) = kernel::choose(&candidates, &env.request.model) else {
        return Ok(Vec::new());
    };
    let list = format!("{}/{version}/modules.builtin", modules_dir(root)?);
    let text = root.read_to_string_opt(list)?.unwrap_or_default();
    let names = text.lines().filter_map(|path| {
        let (_, file) = path.rsplit_once('/')?;
        Some(file.split_once(".ko")?.0.replace('-', "_"))
    });
    Ok(names.collect())
}

/// Returns what is below the directory of modules.
fn candidates(root: &Root) -> Result<Vec<KernelCandidate>> {
    let dir = modules_dir(root)?;
    let mut candidates = Vec::new();
    for entry in root.read_dir(dir)? {
        let Some(name) = entry
            .name
            .to_str()
            .map(str::to_owned)
            .filter(|_| entry.kind == FileKind::Directory)
        else {
            continue;
        };
        candidates.push(KernelCandidate {
            has_modules_dep: root.exists(format!("{dir}/{name}/modules.dep"))?
                || root.exists(format!("{dir}/{name}/modules.order"))?,
            has_vmlinuz: in_boot(root, &name)?.is_some()
                || root.exists(format!("{dir}/{name}/vmlinuz"))?,
            name,
        });
    }
    Ok(candidates)
}

pub(super) fn modules_dir(root: &Root) -> Result<&'static str> {
    for dir in [MODULES, LEGACY_MODULES] {
        if root.exists(dir)? {
            return Ok(dir);
        }
    }
    Err(Error::user(
        "no kernel is installed: /usr/lib/modules does not exist",
    ))
}

/// Says that there is no kernel, and who was to bring one.
fn none_installed(request: &Request) -> Error {
    match request.kernel.parse() {
        Ok(KernelChoice::Package { name, .. }) => Error::user(format!(
            "no kernel is installed: the package `{name}` of `--kernel {}` brings none",
            request.kernel
        ))
        .hint("name a package that holds a kernel, or drop `--kernel` for the one that the rules choose"),
        _ => Error::user("no kernel is installed: there are no modules of one in /usr/lib/modules").hint(
            "the step `installKernel` installs one; if it is skipped, the base image must bring its own",
        ),
    }
}

/// Makes `/boot/vmlinuz` name the chosen kernel and drops links and copies that could be taken for it.
pub(super) fn link(env: &Environment<'_>, root: &Root) -> Result<()> {
    let version = choose(env, root)?;
    if !root.exists("/boot")? {
        root.create_dir_all("/boot", 0o755)?;
    }
    remove_link(root, "/boot/Image")?;
    root.remove_all("/boot/vmlinuz.old")?;
    if env.facts.architecture() != "riscv64" {
        // The uncompressed kernel with debug information; on riscv64 it is the kernel.
        root.remove_all(format!("/boot/vmlinux-{version}"))?;
    }
    copy_from_modules(root, &version)?;
    let hmac = format!("/boot/.vmlinuz-{version}.hmac");
    if root.exists(&hmac)? {
        root.symlink(&hmac, "/boot/.vmlinuz.hmac")?;
    } else {
        remove_link(root, "/boot/.vmlinuz.hmac")?;
    }
    let jetson = root
        .exists("/boot/Image")?
        .then(|| "/boot/Image".to_owned());
    if let Some(image) = in_boot(root, &version)?.or(jetson) {
        root.symlink(&image, "/boot/vmlinuz")?;
        return Ok(());
    }
    remove_link(root, "/boot/vmlinuz")?;
    if root.exists("/boot/vmlinuz")? {
        return Ok(());
    }
    Err(Error::user(format!(
        "kernel {version} has modules but no image in /boot"
    ))
    .hint(format!(
        "expected /boot/vmlinuz-{version}; the kernel package of the base image may be incomplete"
    )))
}

/// Returns where the kernel of this version is in `/boot`: under its whole name, or as Alpine does it, under that of its flavor.
fn in_boot(root: &Root, version: &str) -> Result<Option<String>> {
    let mut names = vec![
        format!("vmlinuz-{version}"),
        format!("vmlinux-{version}"),
        format!("Image-{version}"),
    ];
    if let Some((_, flavor)) = version.rsplit_once('-') {
        names.push(format!("vmlinuz-{flavor}"));
    }
    for name in names {
        let path = format!("/boot/{name}");
        if root.exists(&path)? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Copies the kernel, and the checksum by which FIPS knows it, from beside its modules into `/boot`, as `kernel-install` would.
fn copy_from_modules(root: &Root, version: &str) -> Result<()> {
    let dir = modules_dir(root)?;
    for (from, to) in [
        ("vmlinuz", format!("/boot/vmlinuz-{version}")),
        (".vmlinuz.hmac", format!("/boot/.vmlinuz-{version}.hmac")),
    ] {
        if root.exists(&to)? {
            continue;
        }
        let from = format!("{dir}/{version}/{from}");
        let (Some(metadata), Some(file)) = (root.metadata_opt(&from)?, root.open_file_opt(&from)?)
        else {
            continue;
        };
        // Where a dangling link has the name, the copy is to replace it.
        root.remove_file(&to)?;
        root.copy_in(file, &to, metadata.mode & 0o777, 0, 0)?;
    }
    Ok(())
}

/// Removes a link that may lead to another kernel; a file under that name stays.
fn remove_link(root: &Root, path: &str) -> Result<()> {
    if root.read_link_opt(path)?.is_some() {
        root.remove_file(path)?;
    }
    Ok(())
}
