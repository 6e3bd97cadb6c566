//! A raw disk, read past its holes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use kfactory_sandbox::CancelToken;

use super::CHUNK_BYTES;
use crate::artifact::region::Extent;
use crate::artifact::sparse;
use crate::progress::Transfer;
use crate::stop::Stopped;

/// How many chunks each thread is given at once.
const CHUNKS_PER_THREAD: usize = 16;
/// Bytes read at once.
const BUFFER_BYTES: u64 = 16 * CHUNK_BYTES;

/// A raw disk in a file.
#[derive(Debug)]
pub struct RawDisk<'a> {
    file: &'a File,
    size: u64,
    cancel: Option<&'a CancelToken>,
    progress: Option<&'a Transfer>,
}

impl<'a> RawDisk<'a> {
    /// Takes all of `file` for the disk.
    ///
    /// # Errors
    ///
    /// The file's size cannot be told.
    pub fn new(file: &'a File) -> io::Result<Self> {
        let size = file.metadata()?.len();
        Ok(Self {
            file,
            size,
            cancel: None,
            progress: None,
        })
    }

    /// Has reading it fail once `cancel` is cancelled.
    #[must_use]
    pub fn stopped_by(self, cancel: &'a CancelToken) -> Self {
        Self {
            cancel: Some(cancel),
            ..self
        }
    }

    /// Has `progress` show how far it has been read.
    #[must_use]
    pub fn shown_by(self, progress: &'a Transfer) -> Self {
        Self {
            progress: Some(progress),
            ..self
        }
    }

    /// Returns the size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Calls `act` with every chunk of 64 KiB that holds anything but zeros, and where it is, from the start on.
    ///
    /// The last chunk is shorter where the disk ends inside of it.
    pub(super) fn chunks(
        &self,
        mut act: impl FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER_BYTES as usize];
        let mut at = 0;
        while let Some(data) = self.data_after(at)? {
            at = data.start;
            let end = data.start + data.len;
            while at < end {
                let now = &mut buffer[..(end - at).min(BUFFER_BYTES) as usize];
                self.read_exact_at(now, at)?;
                if let Some(progress) = self.progress {
                    progress.reach(at);
                }
                for chunk in now.chunks(CHUNK_BYTES as usize) {
                    if !is_zero(chunk) {
                        act(at, chunk)?;
                    }
                    at += chunk.len() as u64;
                }
            }
        }
        Ok(())
    }

    /// Calls `act` as [`chunks`](Self::chunks) does, with what `work` made of the chunk before, on `threads` threads at once.
    pub(super) fn worked_chunks<T: Send>(
        &self,
        threads: usize,
        work: impl Fn(&[u8]) -> T + Sync,
        mut act: impl FnMut(u64, &[u8], T) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut batch: Vec<(u64, Vec<u8>)> = Vec::new();
        let mut end_batch = |batch: &mut Vec<(u64, Vec<u8>)>| {
            let made = on_threads(threads, batch, |(_, chunk)| work(chunk));
            let mut all = batch.drain(..).zip(made);
            all.try_for_each(|((at, chunk), made)| act(at, &chunk, made))
        };
        self.chunks(|at, chunk| {
            batch.push((at, chunk.to_owned()));
            match batch.len() < threads * CHUNKS_PER_THREAD {
                true => Ok(()),
                false => end_batch(&mut batch),
            }
        })?;
        end_batch(&mut batch)
    }

    /// Returns where anything but zeros is, in whole chunks.
    pub(super) fn data(&self) -> io::Result<Vec<Extent>> {
        let mut all: Vec<Extent> = Vec::new();
        self.chunks(|start, chunk| {
            let len = chunk.len() as u64;
            match all.last_mut() {
                Some(last) if last.start + last.len == start => last.len += len,
                _ => all.push(Extent { start, len }),
            }
            Ok(())
        })?;
        Ok(all)
    }

    /// Fills `bytes` with what stands at `offset`.
    pub(super) fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        match self.cancel {
            Some(cancel) if cancel.is_cancelled() => Err(Stopped.into()),
            _ => self.file.read_exact_at(bytes, offset),
        }
    }

    /// Returns the next part of the file that is no hole, widened to whole chunks.
    fn data_after(&self, at: u64) -> io::Result<Option<Extent>> {
        let Some(found) = sparse::data_after(self.file, at, self.size)? else {
            return Ok(None);
        };
        let start = found.start / CHUNK_BYTES * CHUNK_BYTES;
        let end = (found.start + found.len).next_multiple_of(CHUNK_BYTES);
        let end = end.min(self.size);
        // What was widened last time is behind us.
        let start = start.max(at);
        Ok(Some(Extent {
            start,
            len: end - start,
        }))
    }
}

/// Returns what `work` makes of each of `all`, in their order.
fn on_threads<S: Sync, T: Send>(
    threads: usize,
    all: &[S],
    work: impl Fn(&S) -> T + Sync,
) -> Vec<T> {
    let share = all.len().div_ceil(threads).max(1);
    let work = &work;
    std::thread::scope(|scope| {
        let shares: Vec<_> = all
            .chunks(share)
            .map(|share| scope.spawn(move || share.iter().map(work).collect::<Vec<T>>()))
            .collect();
        let done = shares.into_iter().map(|share| share.join());
        done.flat_map(|made| made.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0, |all, byte| all | byte) == 0
}
