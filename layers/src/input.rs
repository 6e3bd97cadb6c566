//! Opening files that somebody named, without ever waiting for one.

use std::fs::{File, FileType, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;

/// What `fstatfs` calls the file system of pipes that have no name (`linux/magic.h`, `PIPEFS_MAGIC`).
const PIPEFS: i64 = 0x5049_5045;

/// Opens a regular file for reading.
///
/// # Errors
///
/// Those of opening; `InvalidData`, which says what it is, for anything but a regular file. A FIFO would keep a plain `open`
/// waiting for somebody who writes to it.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let file = open_any(path)?;
    let kind = file.metadata()?.file_type();
    if !kind.is_file() {
        return Err(wrong_kind(kind));
    }
    Ok(file)
}

/// Opens a regular file for reading, or a stream that this process was given: a pipe without a name, as `/dev/stdin` and the
/// shell's `<(command)` are.
///
/// # Errors
///
/// As [`open_regular`]. A FIFO, which has a name, may never get a writer, and is refused.
pub fn open_input(path: &Path) -> io::Result<File> {
    let file = open_any(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_fifo() && is_nameless(&file)? {
        return blocking(file);
    }
    if !kind.is_file() {
        return Err(wrong_kind(kind));
    }
    Ok(file)
}

/// As [`open_input`], also of a character device such as `/dev/null` or a terminal: for what is read up to a limit.
///
/// # Errors
///
/// As [`open_input`].
pub fn open_input_or_device(path: &Path) -> io::Result<File> {
    let file = open_any(path)?;
    match file.metadata()?.file_type().is_char_device() {
        true => blocking(file),
        false => open_input(path),
    }
}

/// Makes reading wait for what has not come yet.
fn blocking(file: File) -> io::Result<File> {
    let flags = rustix::fs::fcntl_getfl(&file)?;
    rustix::fs::fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
    Ok(file)
}

fn open_any(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
        .open(path)
}

#[allow(
    clippy::unnecessary_cast,
    reason = "the type of `f_type` differs between architectures and libraries"
)]
fn is_nameless(pipe: &File) -> io::Result<bool> {
    Ok(rustix::fs::fstatfs(pipe)?.f_type as i64 == PIPEFS)
}

fn wrong_kind(kind: FileType) -> io::Error {
    let message = format!("it is {}, not a file", kind_name(kind));
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// Returns what a kind of file is called, with its article.
pub fn kind_name(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else if kind.is_symlink() {
        "a link"
    } else {
        "a file"
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn what_is_no_file_is_refused_by_its_kind_and_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        let made = rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            0o600.into(),
            0,
        );
        made.unwrap();
        for (path, word) in [
            (fifo.as_path(), "it is a FIFO, not a file"),
            (dir.path(), "it is a directory, not a file"),
            (Path::new("/dev/zero"), "it is a device, not a file"),
        ] {
            for error in [open_regular(path), open_input(path)] {
                assert_eq!(error.unwrap_err().to_string(), word);
            }
        }
    }

    #[test]
    fn a_stream_that_was_handed_over_is_read_to_its_end() {
        let (from, mut to) = io::pipe().unwrap();
        let path = format!("/proc/self/fd/{}", from.as_raw_fd());
        let mut stream = open_input(Path::new(&path)).unwrap();
        let reading = std::thread::spawn(move || {
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        });
        std::thread::sleep(std::time::Duration::from_millis(50));
        to.write_all(b"late").unwrap();
        drop(to);
        assert_eq!(reading.join().unwrap(), "late");
        assert!(open_regular(Path::new(&path)).is_err());
    }
}
