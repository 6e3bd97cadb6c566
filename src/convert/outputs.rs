//! Destinations: layers are uploaded as soon as they are whole, the manifest goes last.

use std::path::Path;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use kfactory_layers::archive::{DockerArchive, OciArchive};
use kfactory_layers::digest::Digest;
use kfactory_layers::image::Image;
use kfactory_layers::layer::LayerInfo;
use kfactory_layers::layout::{Layout, LayoutError};
use kfactory_layers::manifest::Descriptor;
use tokio::task::JoinHandle;

use super::{BaseImage, Engine};
use crate::error::{Context as _, Error, Kind, Result};
use crate::location::Location;
use crate::registry::{BlobOutcome, Reference};
use crate::staging::Staging;
use crate::stop;
use crate::store::{ImageRecord, in_parallel};

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
        self.write_everywhere(image)
            .map_err(|error| self.explained(error, image))
    }

    /// Names the store where one of its blobs was damaged since it was checked: the destination only refused it.
    fn explained(&self, error: Error, image: &Image) -> Error {
        if error.kind() == Kind::Interrupted {
            return error;
        }
        match self.engine.check(&blobs_of(image)) {
            Ok(checked) if !checked.damaged.is_empty() => checked
                .damaged
                .iter()
                .fold(error, |error, damage| error.context_below(damage))
                .hint("run the same command again: what was dropped is fetched or made again"),
            _ => error,
        }
    }

    fn write_everywhere(&self, image: &Image) -> Result<()> {
        let config = image.manifest().config.clone();
        self.send(config.digest, config.size, None);
        let uploads = std::mem::take(&mut *self.uploads.lock().expect("no panic while held"));
        let Engine {
            runtime, options, ..
        } = self.engine;
        stop::block_on(runtime, &options.stop, async {
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
            Location::Registry(reference) => {
                let Engine {
                    runtime, options, ..
                } = self.engine;
                stop::block_on(runtime, &options.stop, async {
                    let pushing = options.registry.push_manifest(
                        reference,
                        image.manifest_bytes().to_vec(),
                        image.manifest().media_type(),
                    );
                    let pushed = pushing.await.map(|_| ());
                    pushed.map_err(|error| Error::from_source(&error).hints(error.hints()))
                })
            }
            Location::Layout { dir, tag } => self.write_layout(dir, tag.as_deref(), image),
            Location::OciArchive { file, tag } => {
                OciArchive::write(file, image, tag.as_deref(), self.engine.store)
                    .map_err(|error| Error::from_source(&error))
            }
            Location::DockerArchive { file, reference } => {
                let tags: Vec<&str> = reference.iter().map(String::as_str).collect();
                DockerArchive::write(file, image, &tags, self.engine.store)
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

    /// Adds the image to the layout at `dir`; where there is none, one appears there with the image in it.
    fn write_layout(&self, dir: &Path, tag: Option<&str>, image: &Image) -> Result<()> {
        let layout = match self.open_or_begin(dir)? {
            LayoutPlace::There(layout) => layout,
            LayoutPlace::New(staging) => {
                let layout =
                    Layout::create(&staging.path()).map_err(|error| Error::from_source(&error))?;
                self.add(&layout, image, tag)?;
                match staging.finish() {
                    // Another run made one in the meantime.
                    Err(error) => Layout::open(dir).map_err(|_| error)?,
                    Ok(()) => return Ok(()),
                }
            }
        };
        let missing = |blob: &Descriptor| !layout.blobs().contains(&blob.digest);
        let new: Vec<Digest> = blobs_of(image)
            .into_iter()
            .chain([image.descriptor()])
            .filter(missing)
            .map(|blob| blob.digest)
            .collect();
        // Those of a run that was killed while it wrote here.
        let _ = layout.blobs().remove_abandoned();
        self.add(&layout, image, tag).inspect_err(|_| {
            // The layout is as it was, whether or not this works.
            let _ = layout.remove_unnamed(&new);
        })
    }

    /// Opens the layout at `dir`, or begins to make it; where another run is making it, waits for that.
    fn open_or_begin(&self, dir: &Path) -> Result<LayoutPlace> {
        // Copying an image takes a moment, rarely minutes.
        const PAUSE: Duration = Duration::from_millis(50);
        let mut is_told = false;
        loop {
            match Layout::open(dir) {
                Err(LayoutError::NotALayout { .. }) => {}
                opened => {
                    let opened = opened.map_err(|error| Error::from_source(&error))?;
                    return Ok(LayoutPlace::There(opened));
                }
            }
            match Staging::begin(dir) {
                Ok(Ok(staging)) => return Ok(LayoutPlace::New(staging)),
                Ok(Err(_)) => {}
                // Another run made one since it was looked for.
                Err(error) => {
                    let opened = Layout::open(dir).map_err(|_| error)?;
                    return Ok(LayoutPlace::There(opened));
                }
            }
            if !is_told {
                let reporter = self.engine.reporter;
                reporter.note(&format!(
                    "waiting for another run that makes {}",
                    dir.display()
                ));
                is_told = true;
            }
            stop::check(&self.engine.options.stop)?;
            std::thread::sleep(PAUSE);
        }
    }

    /// Brings an image's blobs into a layout, and names it.
    fn add(&self, layout: &Layout, image: &Image, tag: Option<&str>) -> Result<()> {
        let Engine { store, options, .. } = self.engine;
        let blobs = blobs_of(image);
        in_parallel(blobs.len(), options.jobs, |index| {
            stop::check(&options.stop)?;
            let Descriptor { digest, size, .. } = &blobs[index];
            layout.blobs().import(store.blobs(), digest, *size)?;
            Ok(())
        })?;
        layout
            .put_image(image, tag)
            .map(|_| ())
            .map_err(|error| Error::from_source(&error))
    }
}

/// Where a layout is, or will be.
enum LayoutPlace {
    There(Layout),
    New(Staging),
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
