//! Files with holes, read where they hold something.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use kfactory_layers::digest::{Digest, Hasher};
use kfactory_sandbox::CancelToken;
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use super::region::Extent;
use crate::progress::Transfer;
use crate::stop::Stopped;

/// Bytes read, and zeros hashed, at once.
const BUFFER_BYTES: u64 = 1 << 20;

/// Returns the next part of `file`, which has `len` bytes, from `at` on that is no hole; all of the rest, where the file system tells of
/// none.
///
/// # Errors
///
/// The file cannot be looked at.
pub(super) fn data_after(file: &File, at: u64, len: u64) -> io::Result<Option<Extent>> {
    let rest = |start: u64| Extent {
        start,
        len: len - start,
    };
    if at >= len {
        return Ok(None);
    }
    let start = match seek(file, SeekFrom::Data(at)) {
        Ok(start) if start < len => start,
        // Nothing more.
        Ok(_) | Err(Errno::NXIO) => return Ok(None),
        Err(Errno::INVAL) => return Ok(Some(rest(at))),
        Err(error) => return Err(error.into()),
    };
    let end = seek(file, SeekFrom::Hole(start))?.min(len);
    Ok(Some(Extent {
        start,
        len: end - start,
    }))
}

/// Returns the digest of the first `len` bytes of `file`, until the run is stopped; `progress` shows how far it is.
///
/// Holes are hashed, but not read: zeros that the system has to make, and keeps in memory in the place of something else, take longer than
/// their hash. That nothing spares; with the processor's own instructions for it, it is some 2 s for 4 GiB.
///
/// # Errors
///
/// The file cannot be read, or the run is stopped.
pub(super) fn digest(
    file: &File,
    len: u64,
    progress: Option<&Transfer>,
    stop: Option<&CancelToken>,
) -> io::Result<Digest> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; BUFFER_BYTES as usize];
    let zeros = vec![0; BUFFER_BYTES as usize];
    let check = |at: u64| {
        if let Some(progress) = progress {
            progress.reach(at);
        }
        match stop {
            Some(cancel) if cancel.is_cancelled() => Err(io::Error::from(Stopped)),
            _ => Ok(()),
        }
    };
    let mut at = 0;
    while at < len {
        let data = data_after(file, at, len)?;
        let data = data.unwrap_or(Extent { start: len, len: 0 });
        while at < data.start {
            check(at)?;
            let now = (data.start - at).min(BUFFER_BYTES);
            hasher.update(&zeros[..now as usize]);
            at += now;
        }
        let end = data.start + data.len;
        while at < end {
            check(at)?;
            let now = &mut buffer[..(end - at).min(BUFFER_BYTES) as usize];
            file.read_exact_at(now, at)?;
            hasher.update(now);
            at += now.len() as u64;
        }
    }
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(file: &File) -> io::Result<Digest> {
        digest(file, file.metadata()?.len(), None, None)
    }
    use std::io::Read as _;

    #[test]
    fn a_file_has_the_digest_of_its_bytes_wherever_its_holes_are() {
        const MIB: u64 = 1 << 20;
        for places in [
            &[][..],
            &[0],
            &[5 * MIB - 3],
            &[0, MIB + 17, 3 * MIB - 1],
            &[64 << 10, 4 * MIB],
        ] {
            let mut file = tempfile::tempfile().unwrap();
            file.set_len(5 * MIB + 100).unwrap();
            for at in places {
                file.write_all_at(b"something", *at).unwrap();
            }
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes.len() as u64, 5 * MIB + 100);
            assert_eq!(whole(&file).unwrap(), Digest::of(&bytes));
        }
        let empty = tempfile::tempfile().unwrap();
        assert_eq!(whole(&empty).unwrap(), Digest::of(b""));
    }

    #[test]
    fn the_user_ends_it() {
        let cancel = CancelToken::new().unwrap();
        cancel.cancel();
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 40).unwrap();
        let error = digest(&file, 1 << 20, None, Some(&cancel)).unwrap_err();
        assert!(Stopped::is_in(&error));
    }
}
