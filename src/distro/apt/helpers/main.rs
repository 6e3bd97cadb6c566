//! What dpkg starts three programs for with every package, done by one that starts fast.
//!
//! dpkg asks `dpkg-split` whether an archive is a part of one, and `dpkg-deb` for the control files and for the files; that one
//! starts `tar`. Each is linked dynamically and starts a second time where it forks: together a sixth of an installation. This
//! program stands under those names in front of them on dpkg's path, answers what is plain, and hands everything else to the
//! program it stands for.
//!
//! The build script compiles it by itself, without crates, to a static program that runs on every base image.
//!
//! Spec: dpkg-deb(1), dpkg-split(1), deb(5).

#[path = "../ar.rs"]
mod ar;
mod control;
#[path = "../ustar.rs"]
#[allow(dead_code, reason = "the rest of the program needs more of a header")]
mod ustar;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

/// The version of the format that a package states first.
const FORMAT: &[u8] = b"2.0\n";

/// Why a question was not answered.
enum Unanswered {
    /// It is not plain, and nothing has been written: the program itself answers it.
    NotPlain,
    /// Answering it failed.
    Failed(io::Error),
}

impl From<io::Error> for Unanswered {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

fn main() -> ExitCode {
    // Callers may give a program any name they like; its own path tells which one they started.
    let own = std::env::current_exe().unwrap_or_default();
    let name = own.file_name().unwrap_or_default();
    let mut words = std::env::args_os();
    let called = words.next().unwrap_or_default();
    let words: Vec<OsString> = words.collect();
    match answer(name, &words) {
        Ok(code) => code,
        Err(Unanswered::NotPlain) => hand_over(name, &called, &words),
        Err(Unanswered::Failed(error)) => {
            eprintln!("{}: error: {error}", name.display());
            ExitCode::from(2)
        }
    }
}

fn answer(name: &OsStr, words: &[OsString]) -> Result<ExitCode, Unanswered> {
    let words: Vec<&OsStr> = words.iter().map(OsString::as_os_str).collect();
    let is = |word: &OsStr, text: &str| word == OsStr::new(text);
    match *words.as_slice() {
        [option, _, archive] if is(name, "dpkg-split") && is(option, "-Qao") => is_no_part(archive),
        [option, archive, dir] if is(name, "dpkg-deb") && is(option, "--control") => {
            unpack_control(archive, Path::new(dir))
        }
        [option, archive] if is(name, "dpkg-deb") && is(option, "--fsys-tarfile") => {
            print_files(archive)
        }
        _ => Err(Unanswered::NotPlain),
    }
}

/// Replaces this program by the one it stands for.
fn hand_over(name: &OsStr, called: &OsStr, words: &[OsString]) -> ExitCode {
    let program = Path::new("/usr/bin").join(name);
    let error = Command::new(&program).arg0(called).args(words).exec();
    eprintln!("{}: {error}", program.display());
    ExitCode::from(127)
}

/// Says, with status 1, that a package which begins as a whole one does is not a part of one.
fn is_no_part(archive: &OsStr) -> Result<ExitCode, Unanswered> {
    open_package(archive).map(|_| ExitCode::from(1))
}

fn unpack_control(archive: &OsStr, dir: &Path) -> Result<ExitCode, Unanswered> {
    let mut package = open_package(archive)?;
    let size = go_to(&mut package, "control.tar")?;
    if size > control::MAX_BYTES {
        return Err(Unanswered::NotPlain);
    }
    let mut archive = Vec::new();
    package.take(size).read_to_end(&mut archive)?;
    let files = control::files(&archive).ok_or(Unanswered::NotPlain)?;
    if fs::create_dir(dir).is_err() {
        return Err(Unanswered::NotPlain);
    }
    for file in files {
        file.write_below(dir)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print_files(archive: &OsStr) -> Result<ExitCode, Unanswered> {
    let mut package = open_package(archive)?;
    go_to(&mut package, "control.tar")
        .and_then(|size| skip(&mut package, size).map_err(Unanswered::from))?;
    let size = go_to(&mut package, "data.tar")?;
    // Without the buffer of `Stdout`, the kernel moves the pages.
    let mut stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    if io::copy(&mut package.take(size), &mut stdout)? != size {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(ExitCode::SUCCESS)
}

/// Opens a package behind the member that states the format.
fn open_package(archive: &OsStr) -> Result<File, Unanswered> {
    let mut package = File::open(archive).map_err(|_| Unanswered::NotPlain)?;
    ar::read_magic(&mut package).map_err(|_| Unanswered::NotPlain)?;
    let mut format = [0; FORMAT.len()];
    let size = go_to(&mut package, "debian-binary")?;
    if size != FORMAT.len() as u64 || package.read_exact(&mut format).is_err() || format != *FORMAT
    {
        return Err(Unanswered::NotPlain);
    }
    Ok(package)
}

/// Reads the next member's header, which must be that of `wanted`, and returns its size.
fn go_to(package: &mut File, wanted: &str) -> Result<u64, Unanswered> {
    let header = ar::read_header(package).ok().flatten();
    let header = header.ok_or(Unanswered::NotPlain)?;
    match (ar::name_of(&header), ar::size_of(&header)) {
        (Ok(name), Ok(size)) if name == wanted => Ok(size),
        _ => Err(Unanswered::NotPlain),
    }
}

/// Goes to the header behind a member of `size` bytes.
fn skip(package: &mut File, size: u64) -> io::Result<()> {
    let padded = size
        .checked_add(size % 2)
        .and_then(|size| i64::try_from(size).ok());
    let padded = padded.ok_or_else(|| ar::invalid("a member is larger than any file"))?;
    package.seek(SeekFrom::Current(padded)).map(|_| ())
}
