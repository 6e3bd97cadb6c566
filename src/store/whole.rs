//! Whether blobs of the store still are what their names say, and the end of those that are not.
//!
//! Asked before a blob of an earlier run is used again: what is damaged is dropped with every record that counts on it, so
//! that it is fetched or made again as if it had never been there.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use kfactory_layers::digest::{Digest, VerifyError, VerifyingReader};
use kfactory_layers::manifest::Descriptor;

use super::Store;
use crate::error::{Context as _, Error, Result};

/// A blob that was found damaged, and is not in the store any more.
#[derive(Debug, Clone)]
pub struct Damage {
    /// The blob.
    pub digest: Digest,
    /// The file it was in.
    pub path: PathBuf,
    /// The layers whose step records have been dropped with it.
    pub layers: Vec<String>,
    cause: VerifyError,
}

/// What was found of some blobs.
#[derive(Debug, Default)]
pub struct Checked {
    /// Those that the store holds, each read through.
    pub whole: BTreeSet<Digest>,
    /// Those that it held damaged.
    pub damaged: Vec<Damage>,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, cause, .. } = self;
        write!(f, "the store is damaged: in {}, {cause}", path.display())?;
        match self.layers.as_slice() {
            [] => f.write_str("; it has been dropped"),
            layers => write!(
                f,
                "; it has been dropped with the record of layer {}",
                layers.join(", ")
            ),
        }
    }
}

impl Store {
    /// Reads `blobs` through, on `threads` threads, and drops those that are damaged with the records that count on them.
    ///
    /// # Errors
    ///
    /// A blob cannot be read, or a damaged one not be removed; a whole one has another size than its descriptor says, and stays;
    /// [`Kind::Interrupted`](crate::error::Kind) when the run is stopped.
    pub fn check<'a>(
        &self,
        blobs: impl IntoIterator<Item = &'a Descriptor>,
        threads: usize,
    ) -> Result<Checked> {
        let mut known = BTreeSet::new();
        let blobs: Vec<(Digest, u64)> = blobs
            .into_iter()
            .map(|blob| (blob.digest, blob.size))
            .filter(|blob| known.insert(*blob))
            .collect();
        let verdicts = Mutex::new(Vec::new());
        in_parallel(blobs.len(), threads, |index| {
            let (digest, size) = blobs[index];
            let verdict = self.check_one(&digest, size)?;
            let mut verdicts = verdicts.lock().expect("no panic while held");
            verdicts.push((digest, verdict));
            Ok(())
        })?;
        let mut out = Checked::default();
        for (digest, verdict) in verdicts.into_inner().expect("no panic while held") {
            match verdict {
                Verdict::Missing => {}
                Verdict::Whole => drop(out.whole.insert(digest)),
                Verdict::Damaged(cause) => out.damaged.push(Damage {
                    digest,
                    path: self.blobs.path(&digest),
                    layers: self.drop_blob(&digest)?,
                    cause,
                }),
            }
        }
        out.damaged.sort_by_key(|damage| damage.digest);
        Ok(out)
    }

    fn check_one(&self, digest: &Digest, size: u64) -> Result<Verdict> {
        let doing = || format!("reading {}", self.blobs.path(digest).display());
        let file = match self.blobs.open_file(digest) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Verdict::Missing),
            file => file.context(doing)?,
        };
        // By its own length: what somebody's manifest says about it is no reason to drop it.
        let length = file.metadata().context(doing)?.len();
        match VerifyingReader::new(self.stoppable(file), *digest, length).finish() {
            Ok(_) if length == size => Ok(Verdict::Whole),
            Ok(_) => Err(Error::user(format!(
                "blob {digest} has {length} bytes, not {size} as the image's manifest says"
            ))
            .hint("the manifest is wrong: have the image made again; the store is as it was")),
            Err(error) => match VerifyError::in_io(&error) {
                Some(cause) => Ok(Verdict::Damaged(*cause)),
                None => Err(error).context(doing),
            },
        }
    }

    /// Removes a blob, and every step record that has no other blob left; returns the layers of those records.
    fn drop_blob(&self, digest: &Digest) -> Result<Vec<String>> {
        let mut dropped = Vec::new();
        for (key, mut record) in self.records::<super::StepRecord>("steps") {
            let before = record.blobs.len();
            record.blobs.retain(|_, info| info.digest != *digest);
            let path = self.dir.join("steps").join(format!("{key}.json"));
            if record.blobs.is_empty() {
                std::fs::remove_file(&path).context(|| format!("removing {}", path.display()))?;
                dropped.push(record.layer);
            } else if record.blobs.len() < before {
                self.write_json(&path, &record)?;
            }
        }
        self.blobs.remove(digest)?;
        Ok(dropped)
    }
}

enum Verdict {
    Whole,
    Missing,
    Damaged(VerifyError),
}

/// Does `work` for every index below `count`, on at most `threads` threads.
///
/// # Errors
///
/// The first failure; work that has not begun by then is left out.
pub fn in_parallel(
    count: usize,
    threads: usize,
    work: impl Fn(usize) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, count.max(1)) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        return;
                    }
                    if let Err(error) = work(index) {
                        next.store(count, Ordering::Relaxed);
                        let mut failed = failed.lock().expect("no panic while held");
                        failed.get_or_insert(error);
                        return;
                    }
                }
            });
        }
    });
    match failed.into_inner().expect("no panic while held") {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kfactory_layers::layer::LayerInfo;

    use super::super::tests::store;
    use super::super::{StepRecord, boot_id};
    use super::*;

    fn record(blobs: &[(&str, Digest, u64)]) -> StepRecord {
        let info = |digest, size| LayerInfo {
            diff_id: digest,
            digest,
            size,
            uncompressed_size: size,
            media_type: String::new(),
        };
        StepRecord {
            layer: "packages".into(),
            parent: Digest::of(b""),
            changes: "1.0".into(),
            created: 0,
            blobs: BTreeMap::from_iter(
                blobs
                    .iter()
                    .map(|(name, digest, size)| ((*name).to_owned(), info(*digest, *size))),
            ),
            boot: boot_id(),
            findings: Vec::new(),
        }
    }

    #[test]
    fn a_manifest_that_is_wrong_about_a_blob_is_refused_and_the_blob_stays() {
        let (_dir, store) = store();
        let blob = store.blobs().put(b"good").unwrap();
        for size in [3, 5, 1 << 60] {
            let lie = Descriptor::new("x", blob.digest, size);
            let error = store.check([&lie], 1).unwrap_err().to_string();
            assert!(error.contains("has 4 bytes, not "), "{error}");
            assert!(store.blobs().contains(&blob.digest));
        }
    }

    #[test]
    fn a_damaged_blob_goes_with_the_records_that_have_no_other() {
        let (_dir, store) = store();
        let [bad, short, good] = [&b"bad"[..], b"short", b"good"].map(|bytes| {
            let blob = store.blobs().put(bytes).unwrap();
            Descriptor::new("x", blob.digest, blob.size)
        });
        let [one, two, three] = [&b"1"[..], b"2", b"3"].map(Digest::of);
        let of = |name, blob: &Descriptor| (name, blob.digest, blob.size);
        store.put_step(&one, &record(&[of("gzip", &bad)])).unwrap();
        store
            .put_step(&two, &record(&[of("gzip", &bad), of("zstd", &good)]))
            .unwrap();
        store
            .put_step(&three, &record(&[of("gzip", &good)]))
            .unwrap();
        std::fs::write(store.blobs().path(&bad.digest), b"bAd").unwrap();
        std::fs::write(store.blobs().path(&short.digest), b"sho").unwrap();
        let missing = Descriptor::new("x", Digest::of(b"nowhere"), 7);

        let all = [&bad, &short, &good, &missing];
        let checked = store.check(all, 2).unwrap();

        assert_eq!(checked.whole, BTreeSet::from([good.digest]));
        let text: Vec<String> = checked.damaged.iter().map(ToString::to_string).collect();
        assert_eq!(text.len(), 2, "{text:?}");
        assert!(
            text.iter().any(|it| it.contains("has the digest")
                && it.contains(&bad.digest.hex())
                && it.contains("layer packages")),
            "{text:?}"
        );
        assert!(!store.blobs().contains(&bad.digest));
        assert!(!store.blobs().contains(&short.digest));
        assert!(store.step(&one).is_none());
        assert_eq!(store.step(&two).unwrap().blobs.len(), 1);
        assert_eq!(store.step(&three).unwrap().blobs.len(), 1);
    }
}
