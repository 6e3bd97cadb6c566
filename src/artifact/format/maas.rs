//! The raw disk compressed with gzip, which MAAS calls `ddgz`.

use std::io::{self, Write};

use kfactory_layers::compress::{Compression, Encoder};

use super::RawDisk;

/// Zeros written at once.
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// Writes `disk` to `out`, compressed on `threads` threads, whose number does not change the bytes.
///
/// # Errors
///
/// The disk cannot be read, or `out` not be written.
pub fn write(disk: &RawDisk, out: impl Write, threads: usize) -> io::Result<()> {
    let mut encoder = Encoder::new(out, Compression::GZIP, threads)?;
    let mut done = 0;
    disk.chunks(|at, chunk| {
        zeros(&mut encoder, at - done)?;
        done = at + chunk.len() as u64;
        encoder.write_all(chunk)
    })?;
    zeros(&mut encoder, disk.size() - done)?;
    encoder.finish()?.flush()
}

fn zeros(out: &mut impl Write, mut count: u64) -> io::Result<()> {
    while count > 0 {
        let now = count.min(ZEROS.len() as u64);
        out.write_all(&ZEROS[..now as usize])?;
        count -= now;
    }
    Ok(())
}
