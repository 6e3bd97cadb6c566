//! Images that an extension unpacks into the tree.

use std::path::Path;

use kfactory_layers::apply::{ApplyOptions, Ownership, apply};
use kfactory_layers::diff::{CaptureOptions, Snapshot, capture_walk};
use kfactory_layers::root::Root;

use super::Context;
use super::tree;
use crate::error::{Context as _, Error, Result};

const DIRECTORY_MODE: u32 = 0o755;

/// Unpacks the flattened tree of `source` into the directory `path`; what is there and not in the image stays.
pub(super) fn unpack(
    context: &Context<'_>,
    source: &str,
    path: &str,
    platform: Option<&str>,
) -> Result<()> {
    let doing = || format!("unpacking {source} into {path}");
    let tree = (context.env.images)(source, platform)
        .context(|| format!("cannot get the image `{source}`"))?;
    let root = &context.target.root;
    tree::missing_directories(root, Path::new(path), DIRECTORY_MODE, (0, 0))?;
    let inside = root
        .resolve(path)?
        .ok_or_else(|| Error::user(format!("{path} is a link to nothing")))?;
    // Resolved within the root, so that joining it cannot lead out.
    let into = Root::open(context.target.path.join(inside)).context(doing)?;
    let from = Root::open(&tree).context(doing)?;
    let (reader, writer) = std::io::pipe().context(doing)?;
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || {
            capture_walk(
                &Snapshot::empty(),
                &from,
                &CaptureOptions::default(),
                writer,
            )
            .map(drop)
        });
        let options = ApplyOptions {
            ownership: Ownership::AsFarAsAllowed,
            ..ApplyOptions::default()
        };
        let applied = apply(&into, reader, &options);
        let written = writing
            .join()
            .map_err(|_| Error::internal("reading an image's tree panicked"))?;
        // Where unpacking fails, the other side only says that nobody listens.
        let applied = applied.context(doing)?;
        written.context(doing)?;
        if !applied.ledger.is_empty() {
            context.warn(&format!(
                "{} entries of {source} keep another owner, device or attribute than the image says",
                applied.ledger.len()
            ));
        }
        Ok(())
    })
}
