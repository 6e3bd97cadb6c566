//! Hashing beside the work that makes the bytes.

use std::fmt;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::digest::{Digest, Hasher};

/// Bytes handed to the hashing thread at a time.
const HASH_CHUNK: usize = 256 * 1024;

/// Chunks that may wait for the hashing thread: enough to even out short stalls, 1 MiB in all.
const HASH_QUEUE: usize = 4;

/// Computes a digest on a thread of its own, started when the first chunk is full: a small stream never pays for it.
pub(crate) struct ThreadedHasher {
    chunk: Vec<u8>,
    inline: Hasher,
    thread: Option<HashThread>,
}

struct HashThread {
    chunks: SyncSender<Vec<u8>>,
    spare: Receiver<Vec<u8>>,
    handle: JoinHandle<Hasher>,
}

impl ThreadedHasher {
    pub(crate) fn new() -> Self {
        Self {
            chunk: Vec::new(),
            inline: Hasher::new(),
            thread: None,
        }
    }

    pub(crate) fn update(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let len = bytes.len().min(HASH_CHUNK - self.chunk.len());
            self.chunk.extend_from_slice(&bytes[..len]);
            bytes = &bytes[len..];
            if self.chunk.len() == HASH_CHUNK {
                self.send_chunk()?;
            }
        }
        Ok(())
    }

    fn send_chunk(&mut self) -> io::Result<()> {
        let thread = match &mut self.thread {
            Some(thread) => thread,
            None => self.thread.insert(start_hash_thread()?),
        };
        let next = thread
            .spare
            .try_recv()
            .unwrap_or_else(|_| Vec::with_capacity(HASH_CHUNK));
        let full = std::mem::replace(&mut self.chunk, next);
        thread.chunks.send(full).map_err(|_| hash_thread_gone())
    }

    pub(crate) fn finish(self) -> io::Result<Digest> {
        let mut hasher = match self.thread {
            Some(thread) => {
                drop(thread.chunks);
                thread.handle.join().map_err(|_| hash_thread_gone())?
            }
            None => self.inline,
        };
        hasher.update(&self.chunk);
        Ok(hasher.finish())
    }
}

impl fmt::Debug for ThreadedHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ThreadedHasher(..)")
    }
}

fn start_hash_thread() -> io::Result<HashThread> {
    let (chunks, incoming) = sync_channel::<Vec<u8>>(HASH_QUEUE);
    let (give_back, spare) = sync_channel(HASH_QUEUE);
    let handle = std::thread::Builder::new()
        .name("diff-id".to_owned())
        .spawn(move || {
            let mut hasher = Hasher::new();
            for mut chunk in incoming {
                hasher.update(&chunk);
                chunk.clear();
                // A full return queue only means that the other side allocates anew.
                let _ = give_back.try_send(chunk);
            }
            hasher
        })?;
    Ok(HashThread {
        chunks,
        spare,
        handle,
    })
}

fn hash_thread_gone() -> io::Error {
    io::Error::other("internal error: the hashing thread ended early")
}
