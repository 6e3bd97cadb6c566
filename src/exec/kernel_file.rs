//! Installs a kernel that the user brought as a file.

use std::fs::File;
use std::path::Path;

use kfactory_layers::root::Root;

use super::packages::{Site, apt::Apt};
use super::{CommandOptions, Environment, Target, files};
use crate::error::{Context as _, Error, Result};
use crate::kernel_file::{KernelFile, module_files};

const MODULES: &str = "/usr/lib/modules";
/// What belongs to an image and lies beside it: its configuration says what it can read.
const BESIDE: [&str; 2] = ["config", "System.map"];

pub(super) fn install(
    env: &Environment<'_>,
    target: &Target<'_>,
    step: &str,
    file: &str,
) -> Result<()> {
    match KernelFile::open(Path::new(file))? {
        KernelFile::Package(path) => {
            let apt = Apt::open(Site { env, target, step })?;
            apt.refresh()?;
            apt.install_file(&path)
        }
        KernelFile::Image {
            path,
            release,
            modules,
        } => {
            let root = &target.root;
            copy(root, &path, &format!("/boot/vmlinuz-{release}"))?;
            for name in BESIDE {
                let name = format!("{name}-{release}");
                let beside = path.with_file_name(&name);
                if beside.is_file() {
                    copy(root, &beside, &format!("/boot/{name}"))?;
                }
            }
            match modules {
                Some(dir) => copy_modules(root, &dir, &release)?,
                None if root.exists(format!("{MODULES}/{release}"))? => {}
                None => {
                    return Err(Error::user(format!(
                        "there are no modules of kernel {release}, neither beside `{}` nor in the base",
                        path.display()
                    ))
                    .hint(format!("put them into `lib/modules/{release}` beside the file: `make modules_install INSTALL_MOD_PATH=DIR`")));
                }
            }
            env.command(
                target,
                step,
                &["depmod", "-a", &release],
                CommandOptions::default(),
            )?;
            Ok(())
        }
    }
}

fn copy(root: &Root, from: &Path, to: &str) -> Result<()> {
    let content = File::open(from).context(|| format!("opening {}", from.display()))?;
    files::make_parents(root, to)?;
    root.copy_in(content, to, 0o644, 0, 0)?;
    Ok(())
}

fn copy_modules(root: &Root, dir: &Path, release: &str) -> Result<()> {
    for entry in module_files(dir)? {
        let to = Path::new(MODULES).join(release).join(&entry.relative);
        let parent = to.parent().expect("below the directory of modules");
        if !root.exists(parent)? {
            root.create_dir_all(parent, 0o755)?;
        }
        match &entry.link {
            Some(link) => root.symlink(link, &to)?,
            None => {
                let content = File::open(&entry.path)
                    .context(|| format!("opening {}", entry.path.display()))?;
                root.copy_in(content, &to, 0o644, 0, 0)?;
            }
        }
    }
    Ok(())
}
