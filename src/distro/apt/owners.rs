//! A package's files without the names of their owner where that is root.
//!
//! An archive names the owner of each file, and dpkg looks each name up, which reads `/etc/passwd` and `/etc/group` once a file.
//! Of a file without names it takes the numbers that are there as well. Root is 0 on every system; other names keep their meaning.
//!
//! Spec: ustar of POSIX.1-2001, pax(1).

use std::io::{self, Read};
use std::ops::Range;

use super::ustar::{
    BLOCK_BYTES, CHECKSUM, GID, GROUP, Header, SIZE, TYPE, UID, USER, checksum, is_whole, octal,
    text,
};

const ROOT: &[u8] = b"root";

/// Reads a tar archive and leaves root's names out. From the first header on that it does not understand, the archive is as it was.
#[derive(Debug)]
pub(super) struct WithoutRoot<R> {
    archive: R,
    block: [u8; BLOCK_BYTES],
    /// What of `block` has not been handed out yet.
    waiting: Range<usize>,
    /// Bytes to hand out as they are before the next header.
    untouched: u64,
}

impl<R: Read> WithoutRoot<R> {
    pub(super) fn new(archive: R) -> Self {
        Self {
            archive,
            block: [0; BLOCK_BYTES],
            waiting: 0..0,
            untouched: 0,
        }
    }

    /// Reads the next header, or what there is of it.
    fn next_header(&mut self) -> io::Result<()> {
        let mut length = 0;
        while length < BLOCK_BYTES {
            match self.archive.read(&mut self.block[length..]) {
                Ok(0) => break,
                Ok(count) => length += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.waiting = 0..length;
        let content = (length == BLOCK_BYTES)
            .then(|| content_bytes(&self.block))
            .flatten();
        match content {
            Some(bytes) => {
                leave_root_out(&mut self.block);
                self.untouched = bytes.next_multiple_of(BLOCK_BYTES as u64);
            }
            None => self.untouched = u64::MAX,
        }
        Ok(())
    }
}

impl<R: Read> Read for WithoutRoot<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.waiting.is_empty() {
            if self.untouched > 0 {
                let most = usize::try_from(self.untouched).unwrap_or(usize::MAX);
                let most = most.min(buffer.len());
                let count = self.archive.read(&mut buffer[..most])?;
                self.untouched -= count as u64;
                return Ok(count);
            }
            self.next_header()?;
        }
        let count = self.waiting.len().min(buffer.len());
        let end = self.waiting.start + count;
        buffer[..count].copy_from_slice(&self.block[self.waiting.start..end]);
        self.waiting.start = end;
        Ok(count)
    }
}

/// Returns how many bytes of content follow a header, or nothing where that is not certain.
fn content_bytes(header: &Header) -> Option<u64> {
    // Two blocks of zeros are the end.
    if header.iter().all(|&byte| byte == 0) {
        return Some(0);
    }
    if !is_whole(header) {
        return None;
    }
    let bytes = octal(&header[SIZE])?;
    // Links, directories and devices have none, whatever is said; readers do not agree where it is said.
    let may_have_content = !matches!(header[TYPE], b'1'..=b'6');
    (may_have_content || bytes == 0).then_some(bytes)
}

fn leave_root_out(header: &mut Header) {
    let mut changed = false;
    for (number, name) in [(UID, USER), (GID, GROUP)] {
        if octal(&header[number]) == Some(0) && text(&header[name.clone()]) == ROOT {
            header[name].fill(0);
            changed = true;
        }
    }
    if changed {
        let sum = format!("{:06o}\0 ", checksum(header));
        header[CHECKSUM].copy_from_slice(sum.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::super::ustar::MAGIC;
    use super::*;

    /// A header of a file with `bytes` of content, owned by `user` (`uid`) and group root (0).
    fn header(kind: u8, bytes: u64, user: &str, uid: u32) -> [u8; BLOCK_BYTES] {
        let mut header = [0; BLOCK_BYTES];
        header[..4].copy_from_slice(b"./a\0");
        header[UID].copy_from_slice(format!("{uid:07o}\0").as_bytes());
        header[GID].copy_from_slice(b"0000000\0");
        header[SIZE].copy_from_slice(format!("{bytes:011o}\0").as_bytes());
        header[TYPE] = kind;
        header[MAGIC].copy_from_slice(b"ustar");
        header[USER][..user.len()].copy_from_slice(user.as_bytes());
        header[GROUP][..4].copy_from_slice(ROOT);
        let sum = format!("{:06o}\0 ", checksum(&header));
        header[CHECKSUM].copy_from_slice(sum.as_bytes());
        header
    }

    /// The same header without the names given as `false`.
    fn renamed(mut header: [u8; BLOCK_BYTES], user: bool, group: bool) -> [u8; BLOCK_BYTES] {
        for (kept, name) in [(user, USER), (group, GROUP)] {
            if !kept {
                header[name].fill(0);
            }
        }
        let sum = format!("{:06o}\0 ", checksum(&header));
        header[CHECKSUM].copy_from_slice(sum.as_bytes());
        header
    }

    fn read(archive: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        WithoutRoot::new(archive).read_to_end(&mut out).unwrap();
        // Whoever asks for little at a time gets the same.
        let mut one_by_one: Vec<u8> = Vec::new();
        let mut reader = WithoutRoot::new(archive);
        let mut few = [0; 7];
        loop {
            match reader.read(&mut few).unwrap() {
                0 => break,
                count => one_by_one.extend(&few[..count]),
            }
        }
        assert_eq!(out, one_by_one);
        out
    }

    #[test]
    fn only_roots_names_are_left_out() {
        let content = [7; BLOCK_BYTES * 2];
        let (of_root, of_daemon) = (header(b'0', 513, "root", 0), header(b'5', 0, "daemon", 1));
        // A name that says otherwise than the number counts more than it.
        let otherwise = header(b'0', 0, "root", 5);
        let end = [0; BLOCK_BYTES * 2];
        let archive = [&of_root[..], &content, &of_daemon, &otherwise, &end].concat();
        let expected = [
            &renamed(of_root, false, false)[..],
            &content,
            &renamed(of_daemon, true, false),
            &renamed(otherwise, true, false),
            &end,
        ];
        assert_eq!(read(&archive), expected.concat());
    }

    #[test]
    fn from_what_is_not_understood_on_nothing_changes() {
        let of_root = header(b'0', 0, "root", 0);
        let mut wrong_sum = of_root;
        wrong_sum[0] = b'!';
        let directory_with_content = header(b'5', 1, "root", 0);
        let mut huge = of_root;
        huge[SIZE.start] = 0x80;
        for odd in [
            &wrong_sum[..],
            &directory_with_content,
            &huge,
            &of_root[..99],
        ] {
            let archive = [&of_root[..], odd, &of_root].concat();
            let expected = [&renamed(of_root, false, false)[..], odd, &of_root].concat();
            assert_eq!(read(&archive), expected);
        }
    }
}
