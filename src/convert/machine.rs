//! Which machine the programs of a root filesystem are for.
//!
//! Nothing says so of a bare root filesystem, and an image may claim the wrong one. What it is wrongly taken for would show only when
//! the first package is installed.

use std::io::Read;
use std::path::Path;

use kfactory_layers::platform::Platform;

use crate::error::{Error, Result};
use crate::framework::elf;

/// Programs of which every base has one. No libraries, not even the dynamic loader: those of other machines may stand beside them.
const PROGRAMS: [&str; 4] = ["/bin/sh", "/usr/bin/env", "/bin/bash", "/bin/busybox"];
/// What the names of [`PROGRAMS`] may be links to.
const NAMES: [&str; 10] = [
    "sh",
    "env",
    "bash",
    "busybox",
    "dash",
    "ash",
    "ksh",
    "mksh",
    "toybox",
    "coreutils",
];

/// Returns whether [`check`] may ask for the file at `path`, which has no leading slash.
pub fn reads(path: &Path) -> bool {
    let named = path
        .file_name()
        .is_some_and(|name| NAMES.iter().any(|known| name == *known));
    named && path.parent().is_some_and(|dir| dir.ends_with("bin"))
}

/// Checks that the base's programs are for the architecture of `claimed`; `open` opens one by its path, links followed.
///
/// A base without any such program is believed.
///
/// # Errors
///
/// A program for another machine, by name; or it cannot be read.
pub fn check<R: Read, E: Into<Error>>(
    open: impl Fn(&'static str) -> Result<Option<R>, E>,
    claimed: &Platform,
    base: &str,
) -> Result<()> {
    for program in PROGRAMS {
        let mut head = Vec::new();
        if let Some(file) = open(program).map_err(Into::into)? {
            file.take(elf::HEAD_LEN as u64).read_to_end(&mut head)?;
        }
        let (found, right) = match elf::kind(&head) {
            elf::Kind::Other => continue,
            elf::Kind::Elf(arch) if arch.as_str() == claimed.architecture => return Ok(()),
            elf::Kind::Elf(arch) => (arch.to_string(), Some(arch)),
            elf::Kind::OtherElf(machine) => (format!("ELF machine {machine}"), None),
        };
        let error = Error::user(format!(
            "{program} is a program for {found}, not for {claimed}"
        ))
        .context(format!("cannot convert `{base}`"));
        return Err(match right {
            Some(arch) => error.hint(format!("`--platform linux/{arch}` takes it for what it is")),
            None => error.hint("Kairos images exist for amd64, arm64 and riscv64"),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framework::Arch;
    use crate::tree::samples::Sample;

    fn refusal(sample: Sample, arch: &str) -> Option<String> {
        let tree = sample.tree();
        let claimed = Platform::parse(&format!("linux/{arch}")).unwrap();
        let checked = check(|path| tree.open(path), &claimed, "tar:x");
        checked.err().map(|error| error.render_text())
    }

    #[test]
    fn a_program_for_another_machine_is_found_through_links_and_behind_scripts() {
        let program = elf::head_for_tests(Arch::Amd64);
        let base = Sample::new()
            .link("bin", "usr/bin")
            .link("usr/bin/sh", "dash")
            .file("usr/bin/dash", 0o755, b"#!/usr/bin/env a script")
            .link("usr/bin/env", "/usr/bin/coreutils")
            .file("usr/bin/coreutils", 0o755, &program);
        assert_eq!(refusal(base.clone(), "amd64"), None);
        let text = refusal(base, "arm64").expect("refused");
        assert!(
            text.contains("/usr/bin/env is a program for amd64, not for linux/arm64")
                && text.contains("`--platform linux/amd64`"),
            "{text}"
        );
    }

    #[test]
    fn a_base_without_programs_is_believed() {
        assert_eq!(
            refusal(Sample::new().file("etc/x", 0o644, b""), "arm64"),
            None
        );
    }

    #[test]
    fn programs_are_read_from_every_directory_of_programs_and_no_other() {
        for (path, read) in [
            ("bin/busybox", true),
            ("usr/bin/dash", true),
            ("usr/share/bash", false),
            ("usr/bin/perl", false),
        ] {
            assert_eq!(reads(Path::new(path)), read, "{path}");
        }
    }
}
