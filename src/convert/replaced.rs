//! What would be lost where an archive takes the place of an older one.

use std::path::Path;

use kfactory_layers::archive::{ArchiveError, DockerArchive, OciArchive};

use crate::error::{Error, Result};
use crate::location::Location;
use crate::registry::Reference;

/// How many names a message lists.
const MOST_NAMES: usize = 5;

/// Checks that the archive `file` can be replaced by one for `destination`: that no image in it would be lost but the one that goes
/// by the same name, or that is alone there without any.
///
/// # Errors
///
/// It holds other images, or none at all.
pub(super) fn check(destination: &Location, file: &Path) -> Result<()> {
    let images = images(file)?;
    if let [None] = images.as_slice() {
        return Ok(());
    }
    let lost: Vec<String> = images
        .into_iter()
        .filter(|name| name.is_none() || !is_named(destination, name.as_deref()))
        .map(|name| name.map_or("an image without a name".into(), |name| format!("`{name}`")))
        .collect();
    if lost.is_empty() {
        return Ok(());
    }
    let mut shown = lost[..lost.len().min(MOST_NAMES)].join(", ");
    if lost.len() > MOST_NAMES {
        shown.push_str(&format!(" and {} more", lost.len() - MOST_NAMES));
    }
    Err(Error::user(format!(
        "{} is replaced as a whole, and {shown} in it would be lost",
        file.display()
    ))
    .hint("name another file, or remove this one first; `oci:DIR:TAG` keeps several images"))
}

/// Returns the name of every image in an archive of either kind.
fn images(file: &Path) -> Result<Vec<Option<String>>> {
    match OciArchive::open(file) {
        Ok(archive) => return Ok(archive.names()),
        Err(ArchiveError::NoMember { .. }) => {}
        Err(error) => return Err(no_archive(file, &error)),
    }
    match DockerArchive::open(file) {
        Ok(archive) => Ok(archive.names()),
        Err(error) => Err(no_archive(file, &error)),
    }
}

fn no_archive(file: &Path, error: &ArchiveError) -> Error {
    Error::from_source(error)
        .context(format!(
            "{} is there and is no archive of images: it is not replaced",
            file.display()
        ))
        .hint("name another file, or remove this one first")
}

/// Tells whether the image at `destination` will have this name.
fn is_named(destination: &Location, name: Option<&str>) -> bool {
    let wanted = match destination {
        Location::OciArchive { tag, .. } => tag.as_deref(),
        Location::DockerArchive { reference, .. } => reference.as_deref(),
        _ => None,
    };
    let (Some(wanted), Some(name)) = (wanted, name) else {
        return wanted == name;
    };
    let is_docker = matches!(destination, Location::DockerArchive { .. });
    let reference = |text: &str| text.parse::<Reference>().ok().filter(|_| is_docker);
    wanted == name || reference(wanted).is_some_and(|it| Some(it) == reference(name))
}
