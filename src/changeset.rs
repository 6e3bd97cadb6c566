//! Reads the changeset of a layer that is in the store, and says whether it is the one that the image's config promises.

use std::fs::File;
use std::io::{self, Read};

use kfactory_layers::compress::decoder;
use kfactory_layers::digest::{Digest, HashingReader};
use kfactory_layers::manifest::Descriptor;
use kfactory_layers::source::verified;

use crate::error::{Context as _, Error, Result};
use crate::progress::Transfer;
use crate::stop::Stoppable;
use crate::store::Store;

/// The uncompressed tar of one layer: its blob's digest and size are checked on the way, its diff ID by [`finish`](Self::finish).
pub struct Changeset<'a> {
    reader: HashingReader<Box<dyn Read + Send + 'a>>,
    expected: Digest,
}

impl<'a> Changeset<'a> {
    /// Opens `layer`, whose changeset must have the diff ID `expected`; `transfer` shows how much of the blob has been read.
    ///
    /// # Errors
    ///
    /// The blob is not in the store, or its first bytes are no layer.
    pub fn open(
        store: &Store,
        layer: &Descriptor,
        expected: Digest,
        transfer: Option<&'a Transfer>,
    ) -> Result<Self> {
        let path = store.blobs().path(&layer.digest);
        let inner = File::open(&path).context(|| format!("opening {}", path.display()))?;
        let inner = store.stoppable(inner);
        let blob = verified(Shown { inner, transfer }, layer);
        Ok(Self {
            reader: HashingReader::new(decoder(blob)?),
            expected,
        })
    }

    /// Reads what is left and checks the diff ID.
    ///
    /// # Errors
    ///
    /// The blob is damaged, or is not the layer that the config promises.
    pub fn finish(mut self) -> Result<()> {
        // What follows the archive's end counts too, or the digests would not be checked.
        io::copy(&mut self.reader, &mut io::sink())?;
        let (_, found, _) = self.reader.finish();
        if found == self.expected {
            return Ok(());
        }
        Err(Error::user(format!(
            "the config promises diff ID {}, the layer unpacks to {found}",
            self.expected
        ))
        .hint("the image is damaged or was tampered with: pull it from another place"))
    }
}

impl Read for Changeset<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

impl std::fmt::Debug for Changeset<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Changeset({})", self.expected)
    }
}

/// Reads on and shows how far it has come.
struct Shown<'a> {
    inner: Stoppable<File>,
    transfer: Option<&'a Transfer>,
}

impl Read for Shown<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if let Some(transfer) = self.transfer {
            transfer.advance(count as u64);
        }
        Ok(count)
    }
}
