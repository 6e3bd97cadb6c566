//! A squashfs file system, written by `mksquashfs` from an archive on its standard input, straight to its place in a larger file.
//!
//! The archive carries owners, devices and attributes, so the program needs no privilege. It is told a share of memory, or it would
//! take a quarter of the machine's. Spec: squashfs 4.0, Documentation/filesystems/squashfs.rst of Linux; mksquashfs(1).

use std::collections::VecDeque;
use std::io::{self, BufRead as _, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, Command, ExitStatus, Stdio};
use std::str::FromStr;
use std::thread::JoinHandle;
use std::time::Duration;

use kfactory_sandbox::CancelToken;

use crate::error::{Error, Result};
use crate::stop;
use crate::tree::{Node, Tree};

/// The program.
const PROGRAM: &str = "mksquashfs";
/// The package that brings it, by the same name everywhere.
const PACKAGE: &str = "squashfs-tools";
/// The first version that reads archives.
const OLDEST: (u32, u32) = (4, 5);
/// Upstream's block size, the largest there is: what is read at once is decompressed at once, and compresses best.
const BLOCK: &str = "1M";
/// For its queues and caches.
const MEMORY: &str = "256M";
/// Lines of the program's that an error tells.
const LAST_LINES: usize = 30;
/// Time between two looks at whether the program has ended.
const TICK: Duration = Duration::from_millis(10);

/// How a squashfs file system is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compressor {
    /// By which algorithm.
    pub algorithm: Algorithm,
    /// How hard; `None` for what the program takes by itself.
    pub level: Option<u32>,
}

/// What the kernel unpacks again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// Every kernel's.
    Gzip,
    /// Smallest and slowest.
    Xz,
    /// Fast on both sides, where the kernel has it.
    Zstd,
    /// Fastest, and largest.
    Lz4,
}

impl Algorithm {
    const ALL: [Self; 4] = [Self::Gzip, Self::Xz, Self::Zstd, Self::Lz4];

    /// Returns the name that `mksquashfs` knows it by.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
        }
    }

    /// Returns the kernel's switch for it.
    pub const fn kernel_option(self) -> &'static str {
        match self {
            Self::Gzip => "CONFIG_SQUASHFS_ZLIB",
            Self::Xz => "CONFIG_SQUASHFS_XZ",
            Self::Zstd => "CONFIG_SQUASHFS_ZSTD",
            Self::Lz4 => "CONFIG_SQUASHFS_LZ4",
        }
    }

    /// Returns the levels it has.
    fn levels(self) -> Option<(u32, u32)> {
        match self {
            Self::Gzip => Some((1, 9)),
            Self::Zstd => Some((1, 22)),
            Self::Xz | Self::Lz4 => None,
        }
    }
}

impl FromStr for Compressor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, level) = match text.split_once(':') {
            Some((name, level)) => (name, Some(level)),
            None => (text, None),
        };
        let known = Algorithm::ALL.map(Algorithm::name).join("`, `");
        let algorithm = Algorithm::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
            .ok_or_else(|| {
                Error::usage(format!("`{name}` compresses no squashfs")).hint(format!(
                    "one of `{known}`, the first and the third with a level if wanted: `zstd:3`"
                ))
            })?;
        let level = level.map(|text| level_of(algorithm, text)).transpose()?;
        Ok(Self { algorithm, level })
    }
}

impl std::fmt::Display for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.algorithm.name())?;
        match self.level {
            Some(level) => write!(f, ":{level}"),
            None => Ok(()),
        }
    }
}

fn level_of(algorithm: Algorithm, text: &str) -> Result<u32> {
    let name = algorithm.name();
    let Some((least, most)) = algorithm.levels() else {
        return Err(Error::usage(format!("`{name}` has no levels")).hint(format!("`{name}`")));
    };
    text.parse()
        .ok()
        .filter(|level| (least..=most).contains(level))
        .ok_or_else(|| {
            Error::usage(format!(
                "`{text}` is no level of `{name}`, which has {least} to {most}"
            ))
        })
}

/// Where and how a file system is to be written.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The file; what it holds is lost.
    pub file: &'a Path,
    /// Where in the file the file system begins; before that are holes afterwards.
    pub offset: u64,
    /// How it is compressed.
    pub compressor: Compressor,
    /// The root directory, which no archive can tell the program about.
    pub root: &'a Node,
    /// The time of making, and the latest that any file may have; in seconds since 1970.
    pub created: i64,
    /// Threads that compress.
    pub threads: usize,
}

/// The running program.
#[derive(Debug)]
pub struct Squashfs {
    child: Child,
    /// The last lines of what it says.
    stderr: JoinHandle<VecDeque<String>>,
}

/// Extended attributes that squashfs has room for begin so; access control lists do not.
const KEPT_ATTRIBUTES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];

/// Returns the first object of `tree` with an attribute that a squashfs cannot hold, and how many such objects there are.
pub fn lost_attributes(tree: &Tree) -> Option<(PathBuf, usize)> {
    let is_kept = |name: &[u8]| KEPT_ATTRIBUTES.iter().any(|kept| name.starts_with(kept));
    let mut lost = None;
    tree.walk("", &mut |path, node| {
        let mut names = node.xattrs.iter().flat_map(|all| all.keys());
        if names.any(|name| !is_kept(name)) {
            let (_, count) = lost.get_or_insert_with(|| (path.to_owned(), 0));
            *count += 1;
        }
    });
    lost
}

/// Checks that the program is there, and new enough.
///
/// # Errors
///
/// It is not, with the package that brings it.
pub fn check() -> Result<()> {
    let output = Command::new(PROGRAM).arg("-version").output();
    let output = output.map_err(cannot_run)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = version(&text).ok_or_else(|| {
        Error::user(format!(
            "`{PROGRAM} -version` answers {:?}",
            text.lines().next().unwrap_or_default()
        ))
        .hint(format!("install the package `{PACKAGE}`"))
    })?;
    if version < OLDEST {
        return Err(Error::user(format!(
            "`{PROGRAM}` is version {}.{}, which reads no archives",
            version.0, version.1
        ))
        .hint(format!(
            "install `{PACKAGE}` {}.{} or later",
            OLDEST.0, OLDEST.1
        )));
    }
    Ok(())
}

fn cannot_run(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::user(format!("there is no `{PROGRAM}` on this machine"))
            .hint(format!("install the package `{PACKAGE}`")),
        _ => Error::from(error).context(format!("starting `{PROGRAM}`")),
    }
}

/// Returns the version in `mksquashfs version 4.5.1 (2022/03/17)`.
fn version(text: &str) -> Option<(u32, u32)> {
    let number = text.split_once("version ")?.1;
    let mut parts = number.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

impl Squashfs {
    /// Starts the program.
    ///
    /// # Errors
    ///
    /// It is not there.
    pub fn start(target: &Target<'_>) -> Result<Self> {
        let mut command = Command::new(PROGRAM);
        command
            .arg("-")
            .arg(target.file)
            .args(["-tar", "-noappend"]);
        command.args(["-offset", &target.offset.to_string()]);
        command.args(["-b", BLOCK, "-mem", MEMORY]);
        command.args(["-processors", &target.threads.max(1).to_string()]);
        command.args(["-comp", target.compressor.algorithm.name()]);
        if let Some(level) = target.compressor.level {
            command.args(["-Xcompression-level", &level.to_string()]);
        }
        command.args(["-root-mode", &format!("{:o}", target.root.mode)]);
        command.args(["-root-uid", &target.root.uid.to_string()]);
        command.args(["-root-gid", &target.root.gid.to_string()]);
        command.args(["-no-progress", "-quiet"]);
        // Also the time of the root directory, which has no option of its own in older versions.
        command.env("SOURCE_DATE_EPOCH", target.created.max(0).to_string());
        command
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(cannot_run)?;
        let stderr = child.stderr.take().expect("it is piped");
        Ok(Self {
            child,
            stderr: std::thread::spawn(move || listen(stderr)),
        })
    }

    /// Has `write` write the archive, and waits for the program.
    ///
    /// # Errors
    ///
    /// Those of `write`, the program's end with another status than 0, or the user's stop.
    pub fn feed(
        mut self,
        cancel: &CancelToken,
        write: impl FnOnce(&mut dyn Write) -> Result<()>,
    ) -> Result<()> {
        let stdin = self.child.stdin.take().expect("it is piped");
        let mut stdin = BufWriter::with_capacity(
            1 << 16,
            Pipe {
                stdin,
                broken: false,
            },
        );
        let fed = write(&mut stdin).and_then(|()| Ok(stdin.flush()?));
        let (pipe, _) = stdin.into_parts();
        let broken = pipe.broken;
        drop(pipe);
        if let Err(error) = fed
            && !broken
        {
            self.kill();
            return Err(error);
        }
        // A program that ended early is the reason why nothing could be written to it.
        let status = self.wait(cancel)?;
        let said = self.stderr.join().unwrap_or_default();
        if !status.success() {
            return Err(failed(status, said.into()));
        }
        match broken {
            true => Err(Error::user(format!(
                "`{PROGRAM}` ended before it had read everything"
            ))),
            false => Ok(()),
        }
    }

    fn wait(&mut self, cancel: &CancelToken) -> Result<ExitStatus> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if let Err(error) = stop::check(cancel) {
                self.kill();
                return Err(error);
            }
            std::thread::sleep(TICK);
        }
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the program reads, and whether it is still reading.
#[derive(Debug)]
struct Pipe {
    stdin: ChildStdin,
    broken: bool,
}

impl Write for Pipe {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.stdin.write(buffer);
        self.broken |= written.is_err();
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stdin.flush()
    }
}

/// Reads what the program says, until it ends.
fn listen(stderr: ChildStderr) -> VecDeque<String> {
    let mut last = VecDeque::new();
    for line in BufReader::new(stderr)
        .split(b'\n')
        .map_while(io::Result::ok)
    {
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        if last.len() == LAST_LINES {
            last.pop_front();
        }
        last.push_back(line);
    }
    last
}

/// Says why the program failed; a full disk it tells only in words.
fn failed(status: ExitStatus, said: Vec<String>) -> Error {
    let full = rustix::io::Errno::NOSPC;
    if said
        .iter()
        .any(|line| line.ends_with("No space left on device"))
    {
        return Error::from(io::Error::from(full)).context("writing the root filesystem");
    }
    Error::user(format!("`{PROGRAM}` ended with {status}")).output(said)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn a_full_disk_is_told_with_its_remedy_and_any_other_failure_in_the_programs_words() {
        let failed = |line: &str| {
            let status = ExitStatus::from_raw(1 << 8);
            failed(status, vec![line.to_owned()]).render_text()
        };
        let text = failed("Write failed because No space left on device");
        assert!(text.contains("hint: that file system is full"), "{text}");
        let text = failed("FATAL ERROR: x");
        assert!(
            text.contains("exit status: 1") && text.contains("FATAL ERROR: x"),
            "{text}"
        );
    }

    /// Has a shell's `script` stand for the program, which `write` feeds; returns what is said of it.
    fn fed(script: &str, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> String {
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        let program = Squashfs {
            child,
            stderr: std::thread::spawn(move || listen(stderr)),
        };
        let fed = program.feed(&CancelToken::new().unwrap(), write);
        fed.unwrap_err().render_text()
    }

    #[test]
    fn what_the_archive_failed_by_is_told_and_not_that_it_is_short() {
        let text = fed("cat > /dev/null; echo short archive >&2; exit 1", |out| {
            out.write_all(b"half of it")?;
            Err(Error::user("a layer is damaged"))
        });
        assert!(text.contains("a layer is damaged"), "{text}");
        assert!(!text.contains("short archive"), "{text}");
    }

    #[test]
    fn a_program_that_ends_early_is_the_reason_and_not_that_nothing_reads() {
        let text = fed("echo no such option >&2; exit 1", |out| {
            loop {
                out.write_all(&[0; 1 << 16])?;
            }
        });
        assert!(text.contains("no such option"), "{text}");
        assert!(!text.contains("Broken pipe"), "{text}");
    }

    #[test]
    fn a_compressor_is_an_algorithm_with_a_level_it_has() {
        let zstd: Compressor = "zstd:3".parse().unwrap();
        assert_eq!((zstd.algorithm, zstd.level), (Algorithm::Zstd, Some(3)));
        assert_eq!("gzip".parse::<Compressor>().unwrap().to_string(), "gzip");
        for bad in [
            "",
            "lzma",
            "zstd:0",
            "zstd:23",
            "xz:6",
            "gzip:",
            "gzip:fast",
        ] {
            assert!(bad.parse::<Compressor>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_version_is_read_of_what_the_program_says() {
        let text = "mksquashfs version 4.5.1 (2022/03/17)\ncopyright (C) 2022\n";
        assert_eq!(version(text), Some((4, 5)));
        assert_eq!(
            version("mksquashfs version 4.7-g1234 (2025/06/03)"),
            Some((4, 7))
        );
        assert_eq!(version("something else"), None);
    }
}
