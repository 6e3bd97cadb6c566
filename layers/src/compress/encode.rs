//! Compresses on several threads.

use std::fmt;
use std::io::{self, Write};

use super::Compression;
use crate::gzip::GzipEncoder;

/// More threads than this gain nothing (a tar stream is made by one) and would cost memory.
pub const MAX_THREADS: usize = 16;

/// Returns the number of threads to compress with on this machine.
pub fn default_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    cores.min(MAX_THREADS)
}

/// Compresses what is written to it, on several threads.
///
/// The output depends on the input and the [`Compression`] only. Memory is bounded: some 5 MiB a thread for gzip; for
/// zstd 70 MiB with two threads and 130 MiB with eight at the default level, below 200 MiB at every level.
/// [`flush`](Write::flush) flushes the inner writer only: ending a block early would make the bytes depend on the caller's
/// habits. Dropping it without [`finish`](Self::finish) leaves a truncated stream.
pub struct Encoder<W: Write>(Inner<W>);

enum Inner<W: Write> {
    Plain(W),
    Gzip(GzipEncoder<W>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> Encoder<W> {
    /// Starts compressing into `out`, on `threads` threads (at least 1, at most [`MAX_THREADS`]).
    ///
    /// # Errors
    ///
    /// zstd may run out of memory. Threads of gzip start with the first full block.
    pub fn new(out: W, compression: Compression, threads: usize) -> io::Result<Self> {
        let threads = threads.clamp(1, MAX_THREADS);
        Ok(Self(match compression {
            Compression::None => Inner::Plain(out),
            Compression::Gzip { level } => Inner::Gzip(GzipEncoder::new(out, level, threads)?),
            Compression::Zstd { level } => Inner::Zstd(zstd_encoder(out, level, threads)?),
        }))
    }

    /// Compresses what is left, writes it, and returns the inner writer, not flushed.
    ///
    /// # Errors
    ///
    /// The inner writer's.
    pub fn finish(self) -> io::Result<W> {
        match self.0 {
            Inner::Plain(out) => Ok(out),
            Inner::Gzip(encoder) => encoder.finish(),
            Inner::Zstd(encoder) => encoder.finish(),
        }
    }
}

fn zstd_encoder<W: Write>(
    out: W,
    level: u8,
    threads: usize,
) -> io::Result<zstd::stream::write::Encoder<'static, W>> {
    let mut encoder = zstd::stream::write::Encoder::new(out, i32::from(level))?;
    let threads = threads.min(zstd_threads(level));
    let threads = u32::try_from(threads).expect("at most MAX_THREADS");
    // Never 0 workers: that is another code path of the library with other bytes.
    encoder.multithread(threads)?;
    Ok(encoder)
}

/// Returns the most threads at this level.
///
/// A thread's share of the input, and so its memory, grows with the level: 8 MiB at 3, 32 MiB at 19. Smaller shares compress
/// worse (by 5 % at level 3 with 1 MiB), so the number of threads gives way instead. It does not change the output.
fn zstd_threads(level: u8) -> usize {
    match level {
        0..=5 => 8,
        6..=9 => 4,
        10..=12 => 2,
        _ => 1,
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::Plain(out) => out.write(buf),
            Inner::Gzip(encoder) => encoder.write(buf),
            Inner::Zstd(encoder) => encoder.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Inner::Plain(out) => out.flush(),
            Inner::Gzip(encoder) => encoder.get_mut().flush(),
            Inner::Zstd(encoder) => encoder.get_mut().flush(),
        }
    }
}

impl<W: Write> fmt::Debug for Encoder<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match &self.0 {
            Inner::Plain(_) => "none",
            Inner::Gzip(_) => "gzip",
            Inner::Zstd(_) => "zstd",
        };
        write!(f, "Encoder({name})")
    }
}
