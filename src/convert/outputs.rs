//! Destinations: layers are uploaded as soon as they are whole, the manifest goes last.

use std::sync::{Mutex, OnceLock};

use kfactory_layers::archive::{DockerArchive, OciArchive};
use kfactory_layers::digest::Digest;
use kfactory_layers::image::Image;
use kfactory_layers::layer::LayerInfo;
use kfactory_layers::layout::Layout;
use kfactory_layers::manifest::Descriptor;
use tokio::task::JoinHandle;

use super::{BaseImage, Engine};
use crate::error::{Context as _, Error, Result};
use crate::location::Location;
use crate::registry::{BlobOutcome, Reference};
use crate::store::ImageRecord;

/// Every destination of a run, and the uploads under way.
#[derive(Debug)]
pub(super) struct Outputs<'a> {
    destinations: &'a [Location],
    engine: Engine<'a>,
    permits: std::sync::Arc<tokio::sync::Semaphore>,
    uploads: Mutex<Vec<JoinHandle<Result<()>>>>,
}

impl<'a> Outputs<'a> {
    /// Prepares the destinations; nothing is sent yet.
    pub(super) fn new(destinations: &'a [Location], engine: Engine<'a>) -> Self {
        let permits = std::sync::Arc::new(tokio::sync::Semaphore::new(engine.options.jobs.max(1)));
        Self {
            destinations,
            engine,
            permits,
            uploads: Mutex::new(Vec::new()),
        }
    }

    /// Starts sending the base's layers, which are whole from the beginning.
    pub(super) fn base_layers(&self, base: &BaseImage) {
        for layer in base.image.layers() {
            self.send(layer.digest, layer.size, base.reference.clone());
        }
    }

    /// Starts sending a new layer.
    pub(super) fn layer(&self, info: &LayerInfo) {
        self.send(info.digest, info.size, None);
    }

    fn send(&self, digest: Digest, size: u64, mount_from: Option<Reference>) {
        for destination in self.destinations {
            let Location::Registry(reference) = destination.clone() else {
                continue;
            };
            let registry = self.engine.options.registry.clone();
            let path = self.engine.store.blobs().path(&digest);
            let mount_from = mount_from.clone();
            let permits = self.permits.clone();
            let reporter = self.engine.reporter.clone();
            let task = self.engine.runtime.spawn(async move {
                let _permit = permits
                    .acquire_owned()
                    .await
                    .map_err(|error| Error::internal(error.to_string()))?;
                let name = short(&digest);
                // Shown once bytes go out: most blobs are there already.
                let transfer = OnceLock::new();
                let progress = |bytes| {
                    transfer
                        .get_or_init(|| reporter.transfer("push", &name, size))
                        .reach(bytes);
                };
                let sent = registry
                    .ensure_blob(
                        &reference,
                        &digest,
                        size,
                        path.as_path(),
                        mount_from.as_ref(),
                        &progress,
                    )
                    .await;
                let outcome = sent.map_err(|error| {
                    Error::from_source(&error)
                        .hints(error.hints())
                        .context(format!("cannot push {name} to `{reference}`"))
                })?;
                match outcome {
                    // A small one may be gone before anybody asked how far it is.
                    BlobOutcome::Uploaded => progress(size),
                    BlobOutcome::Present => reporter.not_sent(&name, size, "already there"),
                    BlobOutcome::Mounted => {
                        reporter.not_sent(&name, size, "taken from the base's repository");
                    }
                }
                Ok(())
            });
            self.uploads.lock().expect("no panic while held").push(task);
        }
    }

    /// Waits for all uploads, writes config and manifest everywhere and records the result in the store.
    ///
    /// # Errors
    ///
    /// The first upload or destination that fails; no tag has been moved at a destination that failed.
    pub(super) fn finish(&self, image: &Image, store_name: &str) -> Result<()> {
        self.keep(image)?;
        self.engine.store.put_image(
            store_name,
            &ImageRecord {
                manifest: image.manifest_digest(),
                size: image.manifest_bytes().len() as u64,
            },
        )?;
        self.write_all(image)
    }

    /// As [`Outputs::finish`], without a record in the store.
    pub(super) fn finish_unrecorded(&self, image: &Image) -> Result<()> {
        self.keep(image)?;
        self.write_all(image)
    }

    fn keep(&self, image: &Image) -> Result<()> {
        for bytes in [image.config_bytes(), image.manifest_bytes()] {
            self.engine
                .store
                .blobs()
                .put(bytes)
                .context(|| "writing the image into the store".into())?;
        }
        Ok(())
    }

    fn write_all(&self, image: &Image) -> Result<()> {
        let config = image.manifest().config.clone();
        self.send(config.digest, config.size, None);
        let uploads = std::mem::take(&mut *self.uploads.lock().expect("no panic while held"));
        self.engine.runtime.block_on(async {
            for upload in uploads {
                upload.await.map_err(|error| {
                    Error::internal(format!("an upload ended early: {error}"))
                })??;
            }
            Ok::<(), Error>(())
        })?;
        for destination in self.destinations {
            self.write_one(destination, image)
                .map_err(|error| error.context(format!("cannot write to `{destination}`")))?;
        }
        Ok(())
    }

    fn write_one(&self, destination: &Location, image: &Image) -> Result<()> {
        match destination {
            Location::Registry(reference) => self
                .engine
                .runtime
                .block_on(self.engine.options.registry.push_manifest(
                    reference,
                    image.manifest_bytes().to_vec(),
                    image.manifest().media_type(),
                ))
                .map(|_| ())
                .map_err(|error| Error::from_source(&error).hints(error.hints())),
            Location::Layout { dir, tag } => {
                let layout = Layout::ensure(dir).map_err(|error| Error::from_source(&error))?;
                let store = self.engine.store.blobs();
                for blob in blobs_of(image) {
                    layout
                        .blobs()
                        .import(store, &blob.digest, blob.size)
                        .map_err(|error| Error::from_source(&error))?;
                }
                layout
                    .put_image(image, tag.as_deref())
                    .map(|_| ())
                    .map_err(|error| Error::from_source(&error))
            }
            Location::OciArchive { file, tag } => {
                OciArchive::write(file, image, tag.as_deref(), self.engine.store.blobs())
                    .map_err(|error| Error::from_source(&error))
            }
            Location::DockerArchive { file, reference } => {
                let tags: Vec<&str> = reference.iter().map(String::as_str).collect();
                DockerArchive::write(file, image, &tags, self.engine.store.blobs())
                    .map_err(|error| Error::from_source(&error))
            }
            Location::Store(name) => self.engine.store.put_image(
                name,
                &ImageRecord {
                    manifest: image.manifest_digest(),
                    size: image.manifest_bytes().len() as u64,
                },
            ),
            Location::Dir(_) | Location::Tar(_) => {
                Err(Error::internal("a root filesystem is not a destination"))
            }
        }
    }
}

fn blobs_of(image: &Image) -> Vec<Descriptor> {
    let mut blobs = vec![image.manifest().config.clone()];
    blobs.extend(image.layers().iter().cloned());
    blobs
}

/// Returns the first twelve digits of a digest, as people know them.
pub(super) fn short(digest: &Digest) -> String {
    digest.hex()[..12].to_owned()
}
