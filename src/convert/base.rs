//! The base image: opened, its blobs brought into the store, recognised.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Mutex;

use kfactory_layers::archive::{DockerArchive, OciArchive};
use kfactory_layers::blobs::BlobWriter;
use kfactory_layers::compress::{Compression, decoder};
use kfactory_layers::diff::{CaptureOptions, Snapshot, capture_walk};
use kfactory_layers::digest::Digest;
use kfactory_layers::image::Image;
use kfactory_layers::input::open_input;
use kfactory_layers::layer::LayerWriter;
use kfactory_layers::layout::Layout;
use kfactory_layers::manifest::{Descriptor, Document};
use kfactory_layers::platform::Platform;
use kfactory_layers::root::Root;
use kfactory_layers::source::ImageSource;
use kfactory_layers::tar::ArchiveReader;

use super::outputs::short;
use super::{Engine, machine, space};
use crate::bare_path;
use crate::distro::os_release::OsRelease;
use crate::distro::{Arch, Distro};
use crate::error::{Context as _, Error, Result};
use crate::location::Location;
use crate::plan::Facts;
use crate::registry::Reference;
use crate::stop::{self, Stoppable, Stopped};
use crate::store::{Run, Store, in_parallel};
use crate::tree::{self as files, Tree, Wanted};

/// Configs and manifests are small; the largest seen are a few hundred KiB.
const MAX_DOCUMENT_BYTES: u64 = 8 << 20;

/// Files of os-release are shorter than a KiB.
pub(crate) const MAX_OS_RELEASE_BYTES: u64 = 64 << 10;

/// An image whose blobs are all in the store.
#[derive(Debug, Clone)]
pub struct BaseImage {
    /// Manifest and config.
    pub image: Image,
    /// The manifest's digest as it was found.
    pub digest: Digest,
    /// Where it was pulled from, for mounting its layers into another repository of the same registry.
    pub reference: Option<Reference>,
}

/// Opens `location` and brings every blob of the image for `platform` into the store.
pub(super) fn open(
    location: &Location,
    platform: &Platform,
    engine: Engine<'_>,
    run: &Run,
) -> Result<BaseImage> {
    let opened = location.check_there().and_then(|()| match location {
        Location::Registry(reference) => from_registry(reference, platform, engine, run)
            .map_err(|error| error.hints(bare_path::hint_for(reference))),
        Location::Layout { .. } | Location::OciArchive { .. } | Location::DockerArchive { .. } => {
            local_source(location, platform, run)
                .and_then(|source| from_source(source.as_ref(), engine))
        }
        Location::Store(name) => from_store(name, engine),
        Location::Dir(dir) => from_rootfs(dir, platform, engine),
        Location::Tar(file) => from_tar(file, platform, engine),
    });
    let base = opened.map_err(|error| error.context(format!("cannot read `{location}`")))?;
    check_platform(&base.image, platform, location)?;
    Ok(base)
}

/// Opens the image in a layout or an archive.
fn local_source(
    location: &Location,
    platform: &Platform,
    run: &Run,
) -> Result<Box<dyn ImageSource>> {
    fn boxed<E: std::error::Error + 'static>(
        source: std::result::Result<impl ImageSource + 'static, E>,
    ) -> Result<Box<dyn ImageSource>> {
        match source {
            Ok(source) => Ok(Box::new(source)),
            Err(error) => Err(Error::from_source(&error)),
        }
    }
    match location {
        Location::Layout { dir, tag } => {
            boxed(Layout::open(dir).and_then(|layout| layout.resolve(tag.as_deref(), platform)))
        }
        Location::OciArchive { file, tag } => boxed(
            OciArchive::open_with_scratch(file, run.dir())
                .and_then(|archive| archive.resolve(tag.as_deref(), platform)),
        ),
        Location::DockerArchive { file, reference } => boxed(
            DockerArchive::open_with_scratch(file, run.dir())
                .and_then(|archive| archive.resolve(reference.as_deref())),
        ),
        _ => Err(Error::internal("neither a layout nor an archive")),
    }
}

/// Checks that a layout or an archive holds every layer of its image whole, whatever the store has of them.
///
/// # Errors
///
/// Every layer that is missing or damaged there, by name.
pub fn check_source(location: &Location, platform: &Platform, engine: Engine<'_>) -> Result<()> {
    if !matches!(
        location,
        Location::Layout { .. } | Location::OciArchive { .. } | Location::DockerArchive { .. }
    ) {
        return Ok(());
    }
    let run = engine.store.start_run()?;
    let source = local_source(location, platform, &run)?;
    let layers = source.image().layers();
    let bad = Mutex::new(BTreeMap::new());
    in_parallel(layers.len(), engine.options.jobs, |index| {
        let read = source.open_blob(&layers[index]).and_then(|blob| {
            std::io::copy(&mut engine.store.stoppable(blob), &mut std::io::sink())
        });
        match read {
            Ok(_) => Ok(()),
            Err(error) if Stopped::is_in(&error) => Err(error.into()),
            Err(error) => {
                let mut bad = bad.lock().expect("no panic while held");
                bad.insert(index, error.to_string());
                Ok(())
            }
        }
    })?;
    let bad = bad.into_inner().expect("no panic while held");
    if bad.is_empty() {
        return Ok(());
    }
    let mut error = Error::user(format!(
        "`{location}` lacks {} of its {} layers",
        bad.len(),
        layers.len()
    ));
    for (index, cause) in bad {
        let layer = &layers[index];
        error = error.context_below(format!(
            "layer {} of {} ({}): {cause}",
            index + 1,
            layers.len(),
            layer.digest
        ));
    }
    Err(error.hint("it is damaged: copy the image there again"))
}

fn check_platform(image: &Image, wanted: &Platform, location: &Location) -> Result<()> {
    if image.os() == wanted.os && image.architecture() == wanted.architecture {
        return Ok(());
    }
    Err(Error::user(format!(
        "`{location}` is for {}, not for {wanted}",
        image.platform()
    ))
    .hint(format!(
        "`--platform {}` takes it as it is",
        image.platform()
    )))
}

fn from_registry(
    reference: &Reference,
    platform: &Platform,
    engine: Engine<'_>,
    run: &Run,
) -> Result<BaseImage> {
    let registry = &engine.options.registry;
    let remote =
        |error: crate::registry::RegistryError| Error::from_source(&error).hints(error.hints());
    stop::block_on(engine.runtime, &engine.options.stop, async {
        let mut found = registry.fetch_manifest(reference).await.map_err(remote)?;
        let parsed = |bytes: &[u8], media_type: &str| {
            Document::parse(bytes, Some(media_type)).map_err(|error| Error::from_source(&error))
        };
        if let Document::Index(index) = parsed(&found.bytes, &found.media_type)? {
            let chosen = index
                .select(platform)
                .map_err(|error| Error::from_source(&error))?;
            found = registry
                .fetch_entry(reference, chosen)
                .await
                .map_err(remote)?;
        }
        let Document::Manifest(manifest) = parsed(&found.bytes, &found.media_type)? else {
            return Err(Error::user("an index points at another index"));
        };
        Image::check_is_image(&manifest).map_err(|error| Error::from_source(&error))?;
        let mut wanted = vec![manifest.config.clone()];
        wanted.extend(manifest.layers.iter().cloned());
        fetch_blobs(reference, &wanted, engine, run).await?;
        let config = read_document(engine.store, &manifest.config.digest)?;
        let image = Image::new(found.bytes.to_vec(), Some(&found.media_type), config)
            .map_err(|error| Error::from_source(&error))?;
        Ok(BaseImage {
            image,
            digest: found.digest,
            reference: Some(reference.clone()),
        })
    })
}

async fn fetch_blobs(
    reference: &Reference,
    wanted: &[Descriptor],
    engine: Engine<'_>,
    run: &Run,
) -> Result<()> {
    let Engine {
        store,
        options,
        reporter,
        ..
    } = engine;
    use futures_util::{StreamExt as _, TryStreamExt as _};
    let missing = missing(wanted, engine)?;
    futures_util::stream::iter(missing.into_iter().map(|blob| async move {
        let path = run.dir().join(format!("pull-{}", blob.digest.hex()));
        let transfer = reporter.transfer("pull", &short(&blob.digest), blob.size);
        let progress = |bytes| transfer.reach(bytes);
        options
            .registry
            .fetch_blob(reference, &blob.digest, blob.size, &path, &progress)
            .await
            .map_err(|error| {
                Error::from_source(&error)
                    .hints(error.hints())
                    .context(format!("pulling blob {}", blob.digest))
            })?;
        let file = File::open(&path).context(|| format!("opening {}", path.display()))?;
        store
            .blobs()
            .import_file(&file, &blob.digest, blob.size)
            .context(|| format!("taking blob {} into the store", blob.digest))?;
        std::fs::remove_file(&path).context(|| format!("removing {}", path.display()))
    }))
    .buffer_unordered(options.jobs.max(1))
    .try_collect::<Vec<()>>()
    .await
    .map(|_| ())
}

/// Returns those of `wanted` that have to be brought into the store, each once: what it held damaged is dropped and told.
fn missing<'a>(wanted: &'a [Descriptor], engine: Engine<'_>) -> Result<Vec<&'a Descriptor>> {
    let checked = engine.check(wanted)?;
    for damage in &checked.damaged {
        engine
            .reporter
            .warn(&format!("{damage}, and is fetched again"));
    }
    let mut known = checked.whole;
    let missing: Vec<_> = wanted
        .iter()
        .filter(|blob| known.insert(blob.digest))
        .collect();
    let bytes = missing.iter().map(|blob| blob.size).sum();
    space::fits(engine.store.dir(), "what is missing of the image", bytes)?;
    Ok(missing)
}

/// Copies every blob of a local source into the store, verified.
fn from_source(source: &dyn ImageSource, engine: Engine<'_>) -> Result<BaseImage> {
    let store = engine.store;
    let image = source.image().clone();
    for document in [image.config_bytes(), image.manifest_bytes()] {
        store
            .blobs()
            .put(document)
            .context(|| "copying the image's documents".into())?;
    }
    let missing = missing(image.layers(), engine)?;
    in_parallel(missing.len(), engine.options.jobs, |index| {
        let blob = missing[index];
        let reader = source
            .open_blob(blob)
            .context(|| format!("opening blob {}", blob.digest))?;
        store
            .blobs()
            .put_reader(store.stoppable(reader), &blob.digest, blob.size)
            .context(|| format!("copying blob {}", blob.digest))
            .map(|_| ())
    })?;
    Ok(BaseImage {
        digest: image.manifest_digest(),
        image,
        reference: None,
    })
}

fn from_store(name: &str, engine: Engine<'_>) -> Result<BaseImage> {
    let store = engine.store;
    let record = store.image(name).ok_or_else(|| {
        Error::user(format!("the store holds no image called `{name}`"))
            .hint("`kfactory store ls` lists them")
    })?;
    let named = Descriptor::new("", record.manifest, record.size);
    demand(name, &[named], |_| "its manifest".into(), engine)?;
    let manifest = read_document(store, &record.manifest)?;
    let Document::Manifest(parsed) =
        Document::parse(&manifest, None).map_err(|error| Error::from_source(&error))?
    else {
        return Err(Error::internal("the store names an index as an image"));
    };
    let mut blobs = vec![parsed.config.clone()];
    blobs.extend(parsed.layers.iter().cloned());
    let what = |index| match index {
        0 => "its config".to_owned(),
        layer => format!("layer {layer} of {}", parsed.layers.len()),
    };
    demand(name, &blobs, what, engine)?;
    let config = read_document(store, &parsed.config.digest)?;
    let image = Image::new(manifest, None, config).map_err(|error| Error::from_source(&error))?;
    Ok(BaseImage {
        digest: record.manifest,
        image,
        reference: None,
    })
}

/// Checks that the store holds all of `blobs`, the parts of its image `name`, whole; `what` says which part one is.
fn demand(
    name: &str,
    blobs: &[Descriptor],
    what: impl Fn(usize) -> String,
    engine: Engine<'_>,
) -> Result<()> {
    let checked = engine.check(blobs)?;
    let bad = blobs.iter().enumerate();
    let mut bad = bad.filter(|(_, blob)| !checked.whole.contains(&blob.digest));
    let Some((index, blob)) = bad.next() else {
        return Ok(());
    };
    let mut error = Error::user(format!("{} ({}) is lost", what(index), blob.digest));
    for damage in &checked.damaged {
        error = error.context_below(damage);
    }
    for (index, blob) in bad {
        error = error.context_below(format!("{} ({}) is lost", what(index), blob.digest));
    }
    Err(error.hint(format!(
        "convert or copy the image into the store again; `kfactory store rm {name}` forgets it"
    )))
}

/// Reads a config or manifest out of the store, checked against its digest.
fn read_document(store: &Store, digest: &Digest) -> Result<Vec<u8>> {
    let doing = || format!("reading {digest} from the store");
    let mut bytes = Vec::new();
    store
        .blobs()
        .open_digest(digest)
        .context(doing)?
        .take(MAX_DOCUMENT_BYTES)
        .read_to_end(&mut bytes)
        .context(doing)?;
    Ok(bytes)
}

/// Makes a one-layer image of an unpacked root filesystem.
fn from_rootfs(dir: &Path, platform: &Platform, engine: Engine<'_>) -> Result<BaseImage> {
    let Engine { store, options, .. } = engine;
    let doing = || format!("reading {}", dir.display());
    let root = Root::open(dir).context(doing)?;
    let blob = store.blob_writer().context(doing)?;
    let mut writer = LayerWriter::new(blob, Compression::default(), options.jobs).context(doing)?;
    capture_walk(
        &Snapshot::empty(),
        &root,
        &CaptureOptions::default(),
        &mut writer,
    )
    .context(doing)?;
    finish_base_layer(writer, platform, store)
}

/// Makes a one-layer image of a root filesystem in a tar file.
fn from_tar(file: &Path, platform: &Platform, engine: Engine<'_>) -> Result<BaseImage> {
    let Engine { store, options, .. } = engine;
    let doing = || format!("reading {}", file.display());
    let input = open_input(file).context(doing)?;
    let mut input = decoder(input).context(doing)?;
    let blob = store.blob_writer().context(doing)?;
    let mut writer = LayerWriter::new(blob, Compression::default(), options.jobs).context(doing)?;
    let mut archive = ArchiveReader::new(Tee {
        input: &mut input,
        copy: &mut writer,
    });
    check_whole(&mut archive).map_err(|error| error.context(doing()))?;
    finish_base_layer(writer, platform, store)
}

/// Reads an archive to its end: one that was cut off, or is none, must not become a layer.
fn check_whole(archive: &mut ArchiveReader<impl Read>) -> Result<()> {
    let mut entries = 0_u64;
    while let Some(_entry) = archive
        .next_entry()
        .map_err(|error| Error::from_source(&error))?
    {
        entries += 1;
    }
    files::check_end(entries, archive)
}

/// Reads the tree of a base that is an archive of a root filesystem, without making an image of it.
///
/// # Errors
///
/// As a conversion of the base fails.
pub fn tree_of_tar(
    location: &Location,
    file: &Path,
    store: &Store,
    wanted: Wanted,
) -> Result<Tree> {
    let doing = || format!("reading {}", file.display());
    let read = || {
        location.check_there()?;
        let input = decoder(open_input(file).context(doing)?).context(doing)?;
        files::of_archive(store.stoppable(input), store, wanted)
            .map_err(|error| error.context(doing()))
    };
    read().map_err(|error| error.context(format!("cannot read `{location}`")))
}

/// A reader that writes what it reads to another place too.
struct Tee<R, W> {
    input: R,
    copy: W,
}

impl<R: Read, W: Write> Read for Tee<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.copy.write_all(&buffer[..count]).map_err(|error| {
            std::io::Error::new(error.kind(), format!("writing it into the store: {error}"))
        })?;
        Ok(count)
    }
}

fn finish_base_layer(
    writer: LayerWriter<Stoppable<BlobWriter>>,
    platform: &Platform,
    store: &Store,
) -> Result<BaseImage> {
    let doing = || "writing the base layer".to_owned();
    let (blob, info) = writer.finish().context(doing)?;
    let blob = blob.into_inner();
    blob.commit_as(&info.digest, info.size).context(doing)?;
    let image = Image::from_rootfs_layer(&info, platform);
    store.blobs().put(image.config_bytes()).context(doing)?;
    store.blobs().put(image.manifest_bytes()).context(doing)?;
    Ok(BaseImage {
        digest: image.manifest_digest(),
        image,
        reference: None,
    })
}

/// Reads what the plan needs to know from a root filesystem for `platform` at `dir`.
///
/// # Errors
///
/// As for [`facts_of`], or the directory cannot be read.
pub fn facts_of_dir(dir: &Path, platform: &Platform, base: &str) -> Result<Facts> {
    facts_of_tree(dir, &Image::empty(platform), base)
}

/// Reads what the plan needs to know from an unpacked tree.
pub(super) fn facts_of_tree(tree: &Path, image: &Image, base: &str) -> Result<Facts> {
    let root = Root::open(tree).context(|| format!("opening {}", tree.display()))?;
    let mut text = None;
    for path in ["/etc/os-release", "/usr/lib/os-release"] {
        let bytes = root
            .read_at_most(path, MAX_OS_RELEASE_BYTES)
            .map_err(|error| unusable(Error::from_source(&error), path, base))?;
        if let Some(bytes) = bytes {
            text = Some(String::from_utf8_lossy(&bytes).into_owned());
            break;
        }
    }
    machine::check(|path| root.open_file_opt(path), &image.platform(), base)?;
    facts_of(text.as_deref(), image, base)
}

/// Names the base whose os-release at `path` cannot be read for `error`.
pub(crate) fn unusable(error: Error, path: &str, base: &str) -> Error {
    error
        .context(format!(
            "its {path} cannot be used, so its distribution is unknown"
        ))
        .context(format!("cannot convert `{base}`"))
        .hint("it is a short text file (`man os-release`): put a good one into the base")
        .hint(format!(
            "known distributions: {}",
            crate::distro::known_ids()
        ))
}

/// Makes facts of the text of `/etc/os-release`; `None` means that the base has none.
///
/// # Errors
///
/// No os-release, an unknown distribution or an unknown architecture, each named.
pub fn facts_of(os_release: Option<&str>, image: &Image, base: &str) -> Result<Facts> {
    let doing = |error: Error| error.context(format!("cannot convert `{base}`"));
    let Some(text) = os_release else {
        return Err(doing(
            Error::user("it has no /etc/os-release, so its distribution is unknown").hint(format!(
                "known distributions: {}",
                crate::distro::known_ids()
            )),
        ));
    };
    let distro = Distro::detect(&OsRelease::parse(text)).map_err(|error| {
        doing(Error::from_source(&error).hint(format!(
            "known distributions, by ID or ID_LIKE: {}",
            crate::distro::known_ids()
        )))
    })?;
    let arch: Arch = image
        .architecture()
        .parse()
        .map_err(|error| doing(Error::from_source(&error)))?;
    Ok(Facts { distro, arch })
}
