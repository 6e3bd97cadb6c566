//! The programs of Kubernetes distributions for a run.

use super::Engine;
use crate::distro::Arch;
use crate::error::{Error, Result};
use crate::provider::{self, Context, Event, Installer, Program, Provider};

/// Gets the program of every provider that we install ourselves.
pub(super) fn fetch(
    providers: &[Provider],
    arch: Arch,
    engine: Engine<'_>,
) -> Result<Vec<Program>> {
    let wanted: Vec<_> = providers
        .iter()
        .filter_map(|provider| match &provider.by {
            Installer::Native {
                distribution,
                version,
            } => Some((*distribution, version.clone())),
            Installer::Plugin { .. } => None,
        })
        .collect();
    let progress = |event: Event<'_>| {
        engine.reporter.note(&match event {
            Event::Downloading { name, url } => format!("provider: downloading {name} from {url}"),
            Event::Ready { name, version } => {
                format!(
                    "provider: {name} {version} matches the checksum published with the release"
                )
            }
        });
    };
    let context = Context {
        progress: &progress,
        ..Context::new(arch, engine.store.cache_dir("providers")?)
    };
    provider::fetch(&wanted, &context).map_err(|error| {
        Error::from_source(&error)
            .hints(error.hints())
            .context("cannot get the Kubernetes distribution")
    })
}
