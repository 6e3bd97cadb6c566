//! Why a program that is there cannot be executed: what it is executed by is not.

use std::io::Read as _;
use std::path::Path;

use kfactory_layers::root::Root;

use crate::error::Error;
use crate::printable;

/// What Linux reads of a file to see how it is executed (`BINPRM_BUF_SIZE`).
const HEAD_BYTES: u64 = 256;

/// How the kernel says that a program, or what it is executed by, is not there.
const NOT_FOUND: &str = "No such file or directory";

/// Says in `error`, about `program` that could not be executed for `reason`, what it lacks, where that is known.
pub(super) fn explain(error: Error, root: &Root, program: &Path, reason: &str) -> Error {
    let shown = printable::name(&program.display().to_string());
    match lacking(root, program, reason) {
        None => error,
        Some(Lacking::Interpreter(name)) => error
            .context_below(format!(
                "{shown} is there, but not the interpreter that its first line names: {}",
                printable::name(&name)
            ))
            .hint(match name.ends_with('\r') {
                true => "its lines end as on Windows (\\r\\n): save it with line ends of Unix",
                false => "install the interpreter in the base, or name one that it has",
            }),
        Some(Lacking::Loader) => error
            .context_below(format!(
                "{shown} is there, but not the dynamic loader that it was linked for"
            ))
            .hint("put a program into the base that was built for its C library, or a static one"),
    }
}

/// What a program needs and the image does not have.
#[derive(Debug, PartialEq, Eq)]
enum Lacking {
    /// The interpreter of a script, by its path.
    Interpreter(String),
    /// The one of a compiled program.
    Loader,
}

/// Looks at the head of `program`; `None` where it is not there either, or lacks nothing that is known.
fn lacking(root: &Root, program: &Path, reason: &str) -> Option<Lacking> {
    if !program.is_absolute() {
        return None;
    }
    let file = root.open_file_opt(program).ok()??;
    let mut head = Vec::new();
    file.take(HEAD_BYTES).read_to_end(&mut head).ok()?;
    if head.starts_with(b"\x7fELF") {
        // One for another machine lacks no loader.
        return reason.starts_with(NOT_FOUND).then_some(Lacking::Loader);
    }
    let line = head
        .strip_prefix(b"#!")?
        .split(|byte| *byte == b'\n')
        .next()?;
    let line = String::from_utf8_lossy(line);
    // A carriage return is part of the name: the usual reason why it is not there.
    let name = line.trim_matches([' ', '\t']).split([' ', '\t']).next()?;
    let is_there = root.metadata_opt(name).is_ok_and(|found| found.is_some());
    (!is_there).then(|| Lacking::Interpreter(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_without_its_interpreter_is_told_from_one_that_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("sh", "");
        write("lost", "#! /usr/bin/python9 -u\nx");
        write("windows", "#!/sh\r\n");
        write("good", "#!/sh -e\n");
        write("compiled", "\x7fELF");
        let root = Root::open(dir.path()).unwrap();
        let interpreter = |name: &str| Some(Lacking::Interpreter(name.to_owned()));
        for (program, reason, expected) in [
            ("/lost", NOT_FOUND, interpreter("/usr/bin/python9")),
            ("/windows", NOT_FOUND, interpreter("/sh\r")),
            ("/good", NOT_FOUND, None),
            ("/nothing", NOT_FOUND, None),
            ("sh", NOT_FOUND, None),
            ("/compiled", NOT_FOUND, Some(Lacking::Loader)),
            ("/compiled", "Exec format error", None),
        ] {
            let found = lacking(&root, Path::new(program), reason);
            assert_eq!(found, expected, "{program}");
        }
    }
}
