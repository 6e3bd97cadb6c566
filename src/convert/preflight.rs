//! What is tried before the long work: a run that must fail, fails in the first two seconds.

use std::path::{Path, PathBuf};

use kfactory_layers::archive::DockerArchive;
use kfactory_layers::input::kind_name;
use kfactory_layers::layout::{self, Layout, LayoutError};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::{Engine, replaced};
use crate::error::{Error, Kind, Result};
use crate::given;
use crate::location::Location;
use crate::registry::Registry;
use crate::staging;
use crate::stop;
use crate::store::Store;

/// Where every tar archive says what it is. Spec: POSIX.1-2017, pax, "ustar Interchange Format": the field `magic`.
const TAR_MAGIC: (usize, &[u8]) = (257, b"ustar");

/// Checks what this machine must offer: bubblewrap, a store, writable destinations.
///
/// # Errors
///
/// The first thing that is missing, with its remedy.
pub(super) fn local(store: &Path, destinations: &[Location]) -> Result<()> {
    bubblewrap()?;
    Store::make_dir(store)?;
    writable(destinations)
}

/// Checks that what is on this machine and of this machine at every destination can be written.
///
/// # Errors
///
/// The first destination that cannot: its name, what is in the way, or the directory it would be in.
pub(super) fn writable(destinations: &[Location]) -> Result<()> {
    for destination in destinations {
        local_destination(destination)
            .map_err(|error| error.context(format!("cannot write to `{destination}`")))?;
    }
    Ok(())
}

fn bubblewrap() -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|dir| dir.join("bwrap").is_file()) {
        return Ok(());
    }
    Err(
        Error::user("`bwrap` is not on the PATH: steps run in its sandbox")
            .hint("`apt-get install bubblewrap`, `dnf install bubblewrap` or `apk add bubblewrap`"),
    )
}

fn local_destination(destination: &Location) -> Result<()> {
    destination_name(destination)?;
    let dir = match destination {
        Location::Layout { dir, .. } => {
            let is_new = matches!(Layout::open(dir), Err(LayoutError::NotALayout { .. }))
                && staging::check_free(dir).is_ok();
            if !is_new {
                Layout::open(dir).map_err(|error| {
                    Error::from_source(&error)
                        .hint("write into a new directory, or one that holds an OCI layout")
                })?;
            }
            existing_ancestor(dir)
        }
        Location::OciArchive { file, .. } | Location::DockerArchive { file, .. } => {
            given::place_for(file)?;
            // The archive takes the place of what has its name, which must not be a device or a pipe.
            if let Ok(found) = std::fs::metadata(file)
                && !found.is_file()
            {
                return Err(Error::user(format!(
                    "{} is {}, not a file",
                    file.display(),
                    kind_name(found.file_type())
                )));
            }
            staging::check_replaceable(file, "archive", &[TAR_MAGIC])?;
            if std::fs::metadata(file).is_ok_and(|found| found.len() > 0) {
                replaced::check(destination, file)?;
            }
            given::directory_of(file).to_owned()
        }
        _ => return Ok(()),
    };
    staging::check_writable(&dir)
}

/// Returns the directory itself or the nearest one above it: what a run that fails leaves behind is nothing at all.
fn existing_ancestor(dir: &Path) -> PathBuf {
    let found = dir.ancestors().find(|path| path.is_dir());
    match found {
        Some(path) if path != Path::new("") => path.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Checks the name that the image gets inside its layout or archive.
fn destination_name(destination: &Location) -> Result<()> {
    let checked = match destination {
        Location::Layout { tag: Some(tag), .. } | Location::OciArchive { tag: Some(tag), .. } => {
            layout::check_name(tag)
                .map(|_| ())
                .map_err(|error| Error::from_source(&error))
        }
        Location::Registry(reference) if reference.digest().is_some() => Err(Error::usage(
            "the digest of what is written is known only when it is written",
        )
        .hint("name the destination by a tag")),
        Location::DockerArchive {
            reference: Some(reference),
            ..
        } => DockerArchive::check_tag(reference).map_err(|error| Error::from_source(&error)),
        _ => Ok(()),
    };
    checked.map_err(|error| error.kind_is(Kind::Usage))
}

/// Push checks under way in the background.
#[derive(Debug)]
pub(super) struct PushChecks {
    tasks: JoinSet<Result<()>>,
}

/// Starts asking every registry destination whether it would take an upload.
pub(super) fn start_push_checks(
    runtime: &Runtime,
    registry: &Registry,
    destinations: &[Location],
) -> PushChecks {
    let mut tasks = JoinSet::new();
    for destination in destinations {
        let Location::Registry(reference) = destination.clone() else {
            continue;
        };
        let registry = registry.clone();
        tasks.spawn_on(
            async move {
                registry.check_push(&reference).await.map_err(|error| {
                    Error::from_source(&error)
                        .hints(error.hints())
                        .context(format!("cannot push to `{reference}`"))
                })
            },
            runtime.handle(),
        );
    }
    PushChecks { tasks }
}

impl PushChecks {
    /// Waits for all answers.
    ///
    /// # Errors
    ///
    /// The first refusal, or the user's stop.
    pub(super) fn wait(mut self, engine: Engine<'_>) -> Result<()> {
        stop::block_on(engine.runtime, &engine.options.stop, async {
            while let Some(answer) = self.tasks.join_next().await {
                answer.map_err(|error| {
                    Error::internal(format!("a push check ended early: {error}"))
                })??;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_no_file_can_be_made_is_said_with_the_reason() {
        for place in ["oci:/proc/x", "oci:/sys/x:v1", "oci-archive:/proc/x.tar"] {
            let text = writable(&[place.parse().unwrap()])
                .unwrap_err()
                .render_text();
            for words in [
                &format!("cannot write to `{place}`"),
                " is what the kernel shows",
                "hint: ",
            ] {
                assert!(text.contains(words), "{text}");
            }
            assert!(!text.contains("os error"), "{text}");
        }
    }

    #[test]
    fn an_archive_takes_no_place_but_a_files() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("image.tar");
        std::fs::write(&file, "notes").unwrap();
        let archive = |file: &Path| {
            let text = format!("oci-archive:{}", file.display());
            writable(&[text.parse().unwrap()])
        };
        for refused in [Path::new("/dev/null"), dir.path()] {
            assert_eq!(archive(refused).unwrap_err().kind(), Kind::User);
        }
        let text = archive(&file).unwrap_err().render_text();
        assert!(
            text.contains("image.tar is there and is no archive"),
            "{text}"
        );
        let mut tar = vec![0; 2048];
        tar[257..262].copy_from_slice(b"ustar");
        std::fs::write(&file, tar).unwrap();
        let text = archive(&file).unwrap_err().render_text();
        assert!(text.contains("is no archive of images"), "{text}");
        std::fs::write(&file, "").unwrap();
        assert!(archive(&file).is_ok() && archive(&dir.path().join("new.tar")).is_ok());
    }
}
