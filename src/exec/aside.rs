//! A throw-away view of the tree that a layer started from, for commands that run beside the layer's own.
//!
//! Two sandboxes must not share a root: each makes its mount points in it and takes them away again. What is written here is lost.

use std::fs;

use kfactory_layers::root::Root;
use kfactory_sandbox::overlay::OverlayMount;

use super::{Environment, Target};
use crate::error::{Context as _, Error, Result};

/// The mounted view; unmounted when dropped.
#[derive(Debug)]
pub(super) struct Aside {
    mount: OverlayMount,
}

impl Aside {
    /// Mounts what is below the layer that `target` belongs to, without what its steps have done so far.
    pub(super) fn open(env: &Environment<'_>, target: &Target<'_>) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("aside-")
            .tempdir_in(&env.scratch)
            .context(|| format!("preparing a second root in {}", env.scratch.display()))?
            // Removed with the run: the kernel's work directory in it is not ours to remove.
            .keep();
        let [upper, work, root] = ["upper", "work", "root"].map(|name| dir.join(name));
        for dir in [&upper, &work, &root] {
            fs::create_dir(dir).context(|| format!("creating {}", dir.display()))?;
        }
        let mount = OverlayMount::mount(target.lowers, &upper, &work, &root)
            .map_err(|error| Error::from_source(&error).hints(error.hints()))?;
        Ok(Self { mount })
    }

    /// Returns the view as something commands can run on.
    pub(super) fn target(&self) -> Result<Target<'_>> {
        let path = self.mount.target();
        Ok(Target {
            root: Root::open(path).context(|| format!("opening {}", path.display()))?,
            path,
            lowers: &[],
            mounts: &[],
        })
    }
}
