//! The step cache: what names a layer, which layers of a plan it holds, and what the first missing one stands on.

use std::path::{Path, PathBuf};

use kfactory_layers::chain::{chain_id, extend};
use kfactory_layers::digest::Digest;
use kfactory_layers::manifest::Descriptor;
use serde_json::json;

use super::layers::{Builder, MadeLayer, uses_framework};
use super::{BaseImage, tree};
use crate::error::Result;
use crate::framework::Framework;
use crate::plan::{LayerUnit, Plan};
use crate::step::Step;

/// Part of every cache key: raised when the same actions begin to mean something else.
const CACHE_FORMAT: u32 = 2;

/// Returns the Kairos binaries, waiting for them if need be.
pub(super) type ResolveFramework<'a> = dyn Fn() -> Result<Framework> + Sync + 'a;

impl Builder<'_> {
    /// Returns a layer's key: what it stands on, its steps, and its inputs by content.
    pub(super) fn key(
        &self,
        parent: &Digest,
        plan: &Plan,
        unit: &LayerUnit,
        base: &BaseImage,
        framework: &ResolveFramework<'_>,
    ) -> Result<Digest> {
        let steps: Vec<&Step> = unit.steps.iter().map(|&index| &plan.steps[index]).collect();
        let inputs = if steps.iter().any(|step| uses_framework(step)) {
            identity(&framework()?)
        } else {
            String::new()
        };
        let definition = json!({
            "format": CACHE_FORMAT,
            "tool": env!("CARGO_PKG_VERSION"),
            "parent": parent,
            "layer": unit.name,
            "steps": steps,
            "inputs": inputs,
            "env": base.image.env(),
            "network": self.request.network,
            "clamp": self.clock.clamp(),
        });
        Ok(Digest::of(definition.to_string().as_bytes()))
    }

    /// Returns the key of the layer below layer `count`: the base's chain ID, carried through the first `count` layers.
    pub(super) fn key_after(
        &self,
        plan: &Plan,
        base: &BaseImage,
        count: usize,
        framework: &ResolveFramework<'_>,
    ) -> Result<Digest> {
        plan.layers[..count]
            .iter()
            .try_fold(base_chain(base), |key, unit| {
                self.key(&key, plan, unit, base, framework)
            })
    }

    /// Returns the layers, from the bottom, that the cache holds in the wanted compression, and their keys.
    pub(super) fn cached_prefix(
        &self,
        plan: &Plan,
        base: &BaseImage,
        framework: &ResolveFramework<'_>,
    ) -> Result<(Vec<MadeLayer>, Vec<Digest>)> {
        let (mut layers, mut keys) = (Vec::new(), Vec::new());
        let mut chain = base_chain(base);
        let mut key = chain;
        if self.engine.options.no_cache {
            return Ok((layers, keys));
        }
        for unit in &plan.layers {
            key = self.key(&key, plan, unit, base, framework)?;
            let record = self
                .engine
                .store
                .step(&key)
                .filter(|record| record.parent == chain);
            let Some((record, info)) = record.and_then(|record| {
                let info = record.blobs.get(&self.compression.to_string())?.clone();
                Some((record, info))
            }) else {
                break;
            };
            chain = extend(chain, info.diff_id);
            layers.push(MadeLayer {
                name: unit.name.clone(),
                info,
                created: record.created,
                cached: true,
            });
            keys.push(key);
        }
        Ok((layers, keys))
    }

    /// Returns the directories below the first layer that has to run.
    pub(super) fn stack_below(
        &self,
        base: &BaseImage,
        tree: &Path,
        cached: &[MadeLayer],
        keys: &[Digest],
    ) -> Result<Vec<PathBuf>> {
        let mut lowers = vec![tree.to_owned()];
        for key in keys {
            let changes = self
                .engine
                .store
                .step(key)
                .and_then(|record| self.engine.store.trusted_changes(&record));
            match changes {
                Some(changes) => lowers.insert(0, changes),
                None => return self.rebuilt_stack(base, cached),
            }
        }
        Ok(lowers)
    }

    /// Makes one flattened tree of the base and the cached layers, from their blobs.
    fn rebuilt_stack(&self, base: &BaseImage, cached: &[MadeLayer]) -> Result<Vec<PathBuf>> {
        let mut layers: Vec<(Descriptor, Digest)> = base
            .image
            .layers()
            .iter()
            .cloned()
            .zip(base.image.diff_ids().iter().copied())
            .collect();
        layers.extend(
            cached
                .iter()
                .map(|layer| (layer.info.descriptor(), layer.info.diff_id)),
        );
        Ok(vec![tree::flatten(&layers, self.engine, self.run)?])
    }
}

/// Returns what names the binaries by content, wherever they came from.
fn identity(framework: &Framework) -> String {
    framework
        .files
        .iter()
        .map(|file| format!("{}={}\n", file.target.display(), file.sha256))
        .collect()
}

/// Returns the chain ID of the base; an image without layers is named by the digest of nothing.
pub(super) fn base_chain(base: &BaseImage) -> Digest {
    chain_id(base.image.diff_ids()).unwrap_or_else(|| Digest::of(b""))
}
