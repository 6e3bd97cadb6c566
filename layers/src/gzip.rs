//! gzip on several threads: fixed blocks of input, each a gzip member of its own, written in order.
//!
//! Members are independent, so a block's bytes cannot depend on which thread compressed it or what that thread did
//! before. Readers see one stream (RFC 1952, section 2.2: a gzip file is a series of members).

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};

use libdeflater::{CompressionLvl, Compressor};

/// Input bytes of one member. Below 256 KiB the output grows by 0.4 % and more; above 1 MiB it hardly shrinks.
const BLOCK_LEN: usize = 1024 * 1024;

/// Blocks in work per thread: one being compressed, one ready for when it is done.
const BLOCKS_PER_THREAD: usize = 2;

/// Writes gzip members of [`BLOCK_LEN`] bytes of input to `out`.
pub(crate) struct GzipEncoder<W> {
    out: W,
    level: CompressionLvl,
    threads: usize,
    block: Vec<u8>,
    wrote_member: bool,
    pool: Option<Pool>,
}

/// Worker threads, and the blocks they are at, in input order.
struct Pool {
    jobs: SyncSender<Job>,
    in_work: VecDeque<Receiver<Done>>,
    spare: Vec<Vec<u8>>,
}

struct Job {
    input: Vec<u8>,
    reply: Sender<Done>,
}

struct Done {
    member: io::Result<Vec<u8>>,
    input: Vec<u8>,
}

impl<W: Write> GzipEncoder<W> {
    pub(crate) fn new(out: W, level: u8, threads: usize) -> io::Result<Self> {
        let level = CompressionLvl::new(i32::from(level)).map_err(|_| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("gzip level {level} is not 1 to 12"),
            )
        })?;
        Ok(Self {
            out,
            level,
            threads,
            block: Vec::new(),
            wrote_member: false,
            pool: None,
        })
    }

    pub(crate) fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }

    pub(crate) fn finish(mut self) -> io::Result<W> {
        while self.write_oldest()? {}
        // The remainder is compressed here: it is the last thing to do, and a stream of less than one block starts no
        // thread at all. No input at all still has to be a gzip file.
        if !self.block.is_empty() || !self.wrote_member {
            let member = Member::new(self.level).compress(&self.block)?;
            self.out.write_all(&member)?;
        }
        Ok(self.out)
    }

    /// Hands the full block to a thread, after making room by writing out the oldest one if there is none.
    fn submit(&mut self) -> io::Result<()> {
        let limit = self.threads * BLOCKS_PER_THREAD;
        if self
            .pool
            .as_ref()
            .is_some_and(|pool| pool.in_work.len() >= limit)
        {
            self.write_oldest()?;
        }
        let pool = match &mut self.pool {
            Some(pool) => pool,
            None => self.pool.insert(Pool::start(self.level, self.threads)?),
        };
        let next = pool
            .spare
            .pop()
            .unwrap_or_else(|| Vec::with_capacity(BLOCK_LEN));
        let input = std::mem::replace(&mut self.block, next);
        let (reply, done) = channel();
        pool.jobs
            .send(Job { input, reply })
            .map_err(|_| workers_gone())?;
        pool.in_work.push_back(done);
        Ok(())
    }

    /// Waits for the oldest block and writes it; returns whether there was one.
    fn write_oldest(&mut self) -> io::Result<bool> {
        let Some(pool) = &mut self.pool else {
            return Ok(false);
        };
        let Some(oldest) = pool.in_work.pop_front() else {
            return Ok(false);
        };
        let Done { member, mut input } = oldest.recv().map_err(|_| workers_gone())?;
        self.out.write_all(&member?)?;
        self.wrote_member = true;
        input.clear();
        pool.spare.push(input);
        Ok(true)
    }
}

impl<W: Write> Write for GzipEncoder<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.block.len() == BLOCK_LEN {
            self.submit()?;
        }
        let len = buf.len().min(BLOCK_LEN - self.block.len());
        self.block.extend_from_slice(&buf[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Pool {
    /// Starts the threads; they end when the pool is dropped.
    fn start(level: CompressionLvl, threads: usize) -> io::Result<Self> {
        let (jobs, incoming) = sync_channel(threads * BLOCKS_PER_THREAD);
        let incoming = Arc::new(Mutex::new(incoming));
        for _ in 0..threads {
            let incoming = Arc::clone(&incoming);
            std::thread::Builder::new()
                .name("gzip".to_owned())
                .spawn(move || work(level, &incoming))?;
        }
        Ok(Self {
            jobs,
            in_work: VecDeque::new(),
            spare: Vec::new(),
        })
    }
}

fn work(level: CompressionLvl, incoming: &Mutex<Receiver<Job>>) {
    let mut member = Member::new(level);
    loop {
        let next = match incoming.lock() {
            Ok(jobs) => jobs.recv(),
            Err(_) => return,
        };
        let Ok(Job { input, reply }) = next else {
            return;
        };
        let result = member.compress(&input);
        // Nobody waits when the encoder was dropped half-way.
        let _ = reply.send(Done {
            member: result,
            input,
        });
    }
}

/// A compressor with its output buffer.
struct Member {
    compressor: Compressor,
    buffer: Vec<u8>,
}

impl Member {
    fn new(level: CompressionLvl) -> Self {
        Self {
            compressor: Compressor::new(level),
            buffer: Vec::new(),
        }
    }

    fn compress(&mut self, input: &[u8]) -> io::Result<Vec<u8>> {
        let bound = self.compressor.gzip_compress_bound(input.len());
        if self.buffer.len() < bound {
            self.buffer.resize(bound, 0);
        }
        let len = self
            .compressor
            .gzip_compress(input, &mut self.buffer)
            .map_err(|error| io::Error::other(format!("internal error: gzip: {error}")))?;
        Ok(self.buffer[..len].to_vec())
    }
}

fn workers_gone() -> io::Error {
    io::Error::other("internal error: a gzip thread ended early")
}
