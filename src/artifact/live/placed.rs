//! A file of the image that goes to its place on the medium while `mksquashfs` writes behind it.
//!
//! The program empties the file when it opens it, before it reads its input; whatever is written earlier is lost. So the file holds
//! one byte when the program starts, and nobody writes before that is gone.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// The length of a file that the program has not opened yet.
const UNTOUCHED: u64 = 1;
/// Programs open their files within milliseconds; after this time one counts as opened without being emptied.
const PATIENCE: Duration = Duration::from_secs(20);

/// Makes `file` one that shows when it is emptied.
pub(super) fn mark_untouched(file: &File) -> io::Result<()> {
    file.set_len(UNTOUCHED)
}

/// A place on the medium, written from its start on.
#[derive(Debug)]
pub(super) struct Placed {
    file: Arc<File>,
    start: u64,
    written: u64,
    sum: crc32fast::Hasher,
}

impl Placed {
    pub(super) fn new(file: &Arc<File>, start: u64) -> Self {
        Self {
            file: Arc::clone(file),
            start,
            written: 0,
            sum: crc32fast::Hasher::new(),
        }
    }

    /// Checks that what was written is still there.
    pub(super) fn check(self) -> Result<()> {
        let mut sum = crc32fast::Hasher::new();
        let mut buffer = vec![0; 1 << 16];
        let (mut at, end) = (self.start, self.start + self.written);
        while at < end {
            let part = usize::try_from(end - at)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            self.file.read_exact_at(&mut buffer[..part], at)?;
            sum.update(&buffer[..part]);
            at += part as u64;
        }
        match sum.finalize() == self.sum.finalize() {
            true => Ok(()),
            false => Err(Error::internal(
                "`mksquashfs` wrote over the part of the medium before its own",
            )),
        }
    }

    fn wait_until_opened(&self) -> io::Result<()> {
        let start = Instant::now();
        while self.file.metadata()?.len() == UNTOUCHED && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl Write for Placed {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if self.written == 0 {
            self.wait_until_opened()?;
        }
        self.file.write_all_at(buffer, self.start + self.written)?;
        self.written += buffer.len() as u64;
        self.sum.update(buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
