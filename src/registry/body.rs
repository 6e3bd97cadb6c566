//! Request bodies that can be sent again: nothing, bytes, or part of a file read as it is sent.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::stream;
use reqwest::{Body, RequestBuilder};
use tokio::sync::mpsc;

/// Bytes read and sent at a time.
const PIECE: usize = 512 * 1024;

/// Pieces read ahead of the network.
const PIECES_AHEAD: usize = 4;

/// What a request carries.
#[derive(Clone)]
pub(super) enum Payload {
    Empty,
    Bytes(Bytes),
    File(FileSlice),
}

/// Where the bytes of a blob to push are.
#[derive(Clone)]
pub enum BlobSource {
    /// In a file, which must not change until the push is over.
    File(PathBuf),
    /// In memory.
    Bytes(Bytes),
}

impl BlobSource {
    /// Returns the size in bytes.
    pub(super) fn len(&self) -> io::Result<u64> {
        match self {
            Self::File(path) => Ok(std::fs::metadata(path)?.len()),
            Self::Bytes(bytes) => Ok(bytes.len() as u64),
        }
    }

    /// Returns `len` bytes from `start`, which must be inside.
    pub(super) fn slice(&self, start: u64, len: u64) -> Payload {
        match self {
            _ if len == 0 => Payload::Empty,
            Self::File(path) => Payload::File(FileSlice::new(path.clone(), start, len)),
            Self::Bytes(bytes) => {
                Payload::Bytes(bytes.slice(start as usize..(start + len) as usize))
            }
        }
    }
}

impl fmt::Debug for BlobSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
        }
    }
}

impl From<&Path> for BlobSource {
    fn from(path: &Path) -> Self {
        Self::File(path.to_owned())
    }
}

impl From<PathBuf> for BlobSource {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl From<Bytes> for BlobSource {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<Vec<u8>> for BlobSource {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

/// Part of a file.
#[derive(Clone)]
pub(super) struct FileSlice {
    pub(super) path: Arc<Path>,
    pub(super) start: u64,
    pub(super) len: u64,
    sent: Arc<AtomicU64>,
}

impl Payload {
    /// Returns the size in bytes.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(slice) => slice.len,
        }
    }

    pub(super) fn attach(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::Empty => request,
            Self::Bytes(bytes) => request.body(bytes.clone()),
            Self::File(slice) => request.body(slice.body()),
        }
    }
}

impl FileSlice {
    pub(super) fn new(path: PathBuf, start: u64, len: u64) -> Self {
        Self {
            path: path.into(),
            start,
            len,
            sent: Arc::default(),
        }
    }

    /// Returns how many bytes the network has taken since the latest [`body`](Self::body) was made.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    fn body(&self) -> Body {
        self.sent.store(0, Ordering::Relaxed);
        let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
        let (path, start, len) = (self.path.clone(), self.start, self.len);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = read_pieces(&path, start, len, &sender) {
                // Nobody listens any more when the request has ended, and then nobody cares.
                let _ = sender.blocking_send(Err(SourceFailed::new(&error)));
            }
        });
        let sent = self.sent.clone();
        Body::wrap_stream(stream::unfold(
            (receiver, sent),
            |(mut receiver, sent)| async move {
                let piece: Result<Bytes, SourceFailed> = receiver.recv().await?;
                if let Ok(bytes) = &piece {
                    sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                }
                Some((piece, (receiver, sent)))
            },
        ))
    }
}

type Pieces = mpsc::Sender<Result<Bytes, SourceFailed>>;

fn read_pieces(path: &Path, start: u64, len: u64, pieces: &Pieces) -> io::Result<()> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(start))?;
    let mut left = len;
    while left > 0 {
        let take = left.min(PIECE as u64);
        let mut piece = Vec::with_capacity(take as usize);
        file.by_ref().take(take).read_to_end(&mut piece)?;
        if piece.len() as u64 != take {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file became shorter",
            ));
        }
        left -= take;
        if pieces.blocking_send(Ok(piece.into())).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// A failure to read the file to send, told apart from failures to send it.
#[derive(Debug)]
pub(super) struct SourceFailed {
    kind: io::ErrorKind,
    text: String,
}

impl SourceFailed {
    fn new(error: &io::Error) -> Self {
        Self {
            kind: error.kind(),
            text: error.to_string(),
        }
    }

    /// Returns the failure as the I/O error it was.
    pub(super) fn to_io(&self) -> io::Error {
        io::Error::new(self.kind, self.text.clone())
    }
}

impl fmt::Display for SourceFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for SourceFailed {}
