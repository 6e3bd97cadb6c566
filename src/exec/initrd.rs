//! The initrd: dracut (Alpine: mkinitfs) gathers the files, we write the archive.
//!
//! Their own compressors take most of their time on one core, so they write an uncompressed archive that is then made
//! reproducible and compressed on all cores: zstd where the kernel can read it, else gzip.

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io::BufReader;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use kfactory_layers::digest::Digest;
use kfactory_layers::metadata::{FileKind, Timestamp};
use kfactory_layers::root::Root;
use kfactory_sandbox::spec::Mount;

use super::cpio_twins::Twins;
use super::{CommandOptions, Environment, Target, cpio, files, gzip, kernel};
use crate::distro::policy::InitramfsTool;
use crate::error::{Context as _, Error, Kind, Result};
use crate::kairos::dracut::{DracutFacts, dracut_files};
use crate::progress::Level;

const INITRD: &str = "/boot/initrd";
/// Where dracut writes, inside the sandbox only.
const WORK: &str = "/run/kfactory-initrd";
/// Where dracut looks for its modules on every distribution.
const MODULES: &str = "/usr/lib/dracut/modules.d";
/// Where Debian's `setupcon` keeps the key map it has made, and what it makes it of.
const CONSOLE_SETUP: &str = "/etc/console-setup";
const KEYBOARD_SETTINGS: [&str; 2] = ["/etc/default/keyboard", "/etc/default/console-setup"];
/// Level 6 takes half the time of 9 and makes 2 % more.
const ZSTD_LEVEL: i32 = 6;
const GZIP_LEVEL: u32 = 6;
const READ_BYTES: usize = 1 << 20;

/// Writes the initramfs configuration for what is installed by now.
pub(super) fn configure(env: &Environment<'_>, root: &Root) -> Result<()> {
    let has = |path: &str| root.exists(path);
    let facts = DracutFacts {
        distro: env.facts.distro.base.as_str(),
        family: env.facts.distro.family.as_str(),
        // A derivative's own number says nothing about the tools it has.
        version: env.facts.distro.base_version.as_deref().unwrap_or_default(),
        model: &env.request.model,
        has_network_manager: has("/usr/sbin/NetworkManager")?,
        has_networkd: has("/usr/lib/systemd/systemd-networkd")?,
        has_resolved: has("/usr/lib/systemd/systemd-resolved")?,
        has_legacy_network: has_module(root, "network-legacy")?,
        fips: env.request.fips,
        built_in: &kernel::built_in(env, root)?,
        trusted: env.request.trusted,
    };
    for file in dracut_files(&facts) {
        files::file(root, &file.path, file.mode, file.content.as_bytes())?;
    }
    Ok(())
}

/// Tells whether dracut has the module of this name, whatever its number.
fn has_module(root: &Root, name: &str) -> Result<bool> {
    if !root.exists(MODULES)? {
        return Ok(false);
    }
    let is_it = |entry: &str| entry.trim_start_matches(|c: char| c.is_ascii_digit()) == name;
    let mut entries = root.read_dir(MODULES)?.into_iter();
    Ok(entries.any(|entry| entry.name.to_str().is_some_and(is_it)))
}

/// Removes every initrd but the file that is to be the only one.
fn remove_others(root: &Root) -> Result<()> {
    if !root.exists("/boot")? {
        return Ok(());
    }
    for entry in root.read_dir("/boot")? {
        let name = entry.name.as_bytes();
        let is_initrd = name.starts_with(b"initrd") || name.starts_with(b"initramfs");
        if is_initrd && name != b"initrd" {
            root.remove_all(Path::new("/boot").join(&entry.name))?;
        }
    }
    Ok(())
}

/// Makes the kernel's lists of modules anew. Those that come out as they were keep their times, so that they are no change.
fn depmod(env: &Environment<'_>, target: &Target<'_>, step: &str, version: &str) -> Result<()> {
    let before = module_lists(&target.root, version)?;
    let argv = ["depmod", "-a", version];
    env.command(target, step, &argv, CommandOptions::default())?;
    let after = module_lists(&target.root, version)?;
    for (path, (digest, mtime)) in before {
        if after.get(&path).is_some_and(|(now, _)| *now == digest) {
            target.root.set_mtime(&path, mtime)?;
        }
    }
    Ok(())
}

/// Returns the digest and the time of every file that depmod may write.
fn module_lists(root: &Root, version: &str) -> Result<BTreeMap<PathBuf, (Digest, Timestamp)>> {
    let dir = Path::new(kernel::modules_dir(root)?).join(version);
    let mut lists = BTreeMap::new();
    for entry in root.read_dir(&dir)? {
        let path = dir.join(&entry.name);
        if entry.kind != FileKind::File || !entry.name.as_bytes().starts_with(b"modules.") {
            continue;
        }
        if let (Some(content), Some(metadata)) = (root.read_opt(&path)?, root.metadata_opt(&path)?)
        {
            lists.insert(path, (Digest::of(&content), metadata.mtime));
        }
    }
    Ok(lists)
}

/// Builds `/boot/initrd` for the chosen kernel and removes every other one.
pub(super) fn build(
    env: &Environment<'_>,
    target: &Target<'_>,
    step: &str,
    tool: InitramfsTool,
) -> Result<()> {
    let root = &target.root;
    require(root, tool)?;
    let version = kernel::choose(env, root)?;
    remove_others(root)?;
    // Debian's kernel hooks leave these at the top; they would dangle.
    for link in ["/initrd.img", "/initrd.img.old"] {
        if root.read_link_opt(link)?.is_some() {
            root.remove_file(link)?;
        }
    }
    depmod(env, target, step, &version)?;
    let work = env.scratch.join("initrd");
    std::fs::create_dir_all(&work).context(|| format!("creating {}", work.display()))?;
    match tool {
        InitramfsTool::Dracut => run_dracut(env, target, step, &version, &work)?,
        InitramfsTool::Mkinitfs => run_mkinitfs(env, target, step, &version, &work)?,
    }
    let made = compress(env, root, &version, &work)?;
    let file = File::open(&made).context(|| format!("opening {}", made.display()))?;
    files::ensure(root, INITRD, 0o644, file)?;
    std::fs::remove_dir_all(&work).context(|| format!("removing {}", work.display()))?;
    Ok(())
}

/// Says that the tool is missing before a command line does.
fn require(root: &Root, tool: InitramfsTool) -> Result<()> {
    let name = tool.as_str();
    for dir in ["/usr/bin", "/usr/sbin", "/bin", "/sbin"] {
        if root.exists(format!("{dir}/{name}"))? {
            return Ok(());
        }
    }
    Err(
        Error::user(format!("the image has no {name} to build the initrd with"))
            .hint("the step `installPackages` installs it; if it is skipped, the base image must bring it"),
    )
}

/// mkinitfs pipes its archive through `pigz -9` where there is one, so ours comes first and passes on what it reads.
fn run_mkinitfs(
    env: &Environment<'_>,
    target: &Target<'_>,
    step: &str,
    version: &str,
    work: &Path,
) -> Result<()> {
    let doing = || format!("preparing {}", work.display());
    let bin = work.join("bin");
    std::fs::create_dir_all(&bin).context(doing)?;
    let pigz = bin.join("pigz");
    std::fs::write(&pigz, "#!/bin/sh\nexec cat\n").context(doing)?;
    std::fs::set_permissions(&pigz, Permissions::from_mode(0o755)).context(doing)?;
    let output = format!("{WORK}/raw");
    let argv = ["mkinitfs", "-C", "gzip", "-o", &output, version];
    let options = CommandOptions {
        mounts: vec![Mount::Bind {
            source: work.to_owned(),
            target: WORK.into(),
            read_only: false,
        }],
        env: vec![("PATH".into(), format!("{WORK}/bin:{}", super::PATH).into())],
        ..CommandOptions::default()
    };
    env.command(target, step, &argv, options).map(|_| ())
}

fn run_dracut(
    env: &Environment<'_>,
    target: &Target<'_>,
    step: &str,
    version: &str,
    work: &Path,
) -> Result<()> {
    let output = format!("{WORK}/raw");
    // Distributions ship binaries and modules stripped; doing it again changes nothing and takes seconds. `hardlink` joins equal
    // files that were made within the same second, so what it does depends on the clock; [`Twins`] does it instead.
    let mut argv = vec![
        "dracut",
        "--force",
        "--no-compress",
        "--nostrip",
        "--nohardlink",
        "--reproducible",
        "--tmpdir",
        WORK,
    ];
    if env.reporter.level() >= Level::Trace {
        argv.push("--verbose");
    }
    argv.extend([&output, version]);
    let mut mounts = vec![Mount::Bind {
        source: work.to_owned(),
        target: WORK.into(),
        read_only: false,
    }];
    mounts.extend(older_keyboard_settings(env, &target.root)?);
    let options = CommandOptions {
        mounts,
        // Its thousands of files, each by a `cp` of its own otherwise, are most of the time it takes.
        clones: true,
        answers: true,
        ..CommandOptions::default()
    };
    let result = env.command(target, step, &argv, options)?;
    // dracut ends with status 0 even when a wanted module could not be added.
    let mut lines = result.printed.lines();
    if let Some(line) = lines.find(|line| line.contains("cannot be found or installed")) {
        return Err(Error::new(
            Kind::Step,
            format!("dracut left out a module: {line}"),
        ));
    }
    Ok(())
}

/// Returns mounts that make Debian's keyboard settings look older than the key map made of them, where both have the same time.
///
/// They have it when times were clamped. `setupcon`, which dracut calls, then takes the key map for outdated and makes another
/// one under a random name.
fn older_keyboard_settings(env: &Environment<'_>, root: &Root) -> Result<Vec<Mount>> {
    if !root.exists(CONSOLE_SETUP)? {
        return Ok(Vec::new());
    }
    let mut made = Vec::new();
    for entry in root.read_dir(CONSOLE_SETUP)? {
        let name = entry.name.to_string_lossy();
        if name.starts_with("cached_") && name.contains(".kmap") {
            made.extend(root.metadata_opt(format!("{CONSOLE_SETUP}/{name}"))?);
        }
    }
    let Some(oldest) = made.iter().map(|metadata| metadata.mtime).min() else {
        return Ok(Vec::new());
    };
    let mut mounts = Vec::new();
    for path in KEYBOARD_SETTINGS {
        let (Some(metadata), Some(content)) = (root.metadata_opt(path)?, root.read_opt(path)?)
        else {
            continue;
        };
        if metadata.mtime != oldest {
            continue;
        }
        let copy = env
            .scratch
            .join(path.trim_start_matches('/').replace('/', "-"));
        let doing = || format!("writing {}", copy.display());
        std::fs::write(&copy, content).context(doing)?;
        let file = File::options().write(true).open(&copy).context(doing)?;
        file.set_permissions(Permissions::from_mode(metadata.mode & 0o777))
            .context(doing)?;
        file.set_modified(UNIX_EPOCH).context(doing)?;
        mounts.push(Mount::Bind {
            source: copy,
            target: path.into(),
            read_only: true,
        });
    }
    Ok(mounts)
}

/// Writes the finished initrd beside the raw archive.
fn compress(env: &Environment<'_>, root: &Root, version: &str, work: &Path) -> Result<PathBuf> {
    let (raw, made) = (work.join("raw"), work.join("initrd"));
    let doing = || "compressing the initrd".to_owned();
    let open = || File::open(&raw).map(|file| BufReader::with_capacity(READ_BYTES, file));
    let twins = Twins::find(open).context(doing)?;
    let input = open().context(doing)?;
    let mut early = File::create(&made).context(doing)?;
    // The same open file: what comes first stays uncompressed, and the compressed rest follows it.
    let main = early.try_clone().context(doing)?;
    let clamp = env
        .clamp_mtime
        .map_or(u32::MAX, |clamp| u32::try_from(clamp).unwrap_or(u32::MAX));
    if kernel_reads_zstd(root, version)? {
        let mut encoder = zstd::Encoder::new(main, ZSTD_LEVEL).context(doing)?;
        encoder
            .multithread(u32::try_from(env.jobs.max(1)).unwrap_or(1))
            .context(doing)?;
        encoder.include_checksum(true).context(doing)?;
        cpio::normalize(input, &twins, &mut early, &mut encoder, clamp).context(doing)?;
        encoder.finish().context(doing)?;
    } else {
        let mut encoder = gzip::ParallelGzip::new(main, GZIP_LEVEL, env.jobs);
        cpio::normalize(input, &twins, &mut early, &mut encoder, clamp).context(doing)?;
        encoder.finish().context(doing)?;
    }
    Ok(made)
}

/// Reads the kernel's configuration; a kernel that does not say is taken for one that cannot.
fn kernel_reads_zstd(root: &Root, version: &str) -> Result<bool> {
    for path in [
        format!("/boot/config-{version}"),
        format!("/usr/lib/modules/{version}/config"),
    ] {
        if let Some(config) = root.read_to_string_opt(&path)? {
            return Ok(config.lines().any(|line| line == "CONFIG_RD_ZSTD=y"));
        }
    }
    Ok(false)
}
