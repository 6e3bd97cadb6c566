//! The step cache: what names a layer, which layers of a plan it holds, and what the first missing one stands on.

use std::path::{Path, PathBuf};

use kfactory_layers::chain::{chain_id, extend};
use kfactory_layers::digest::Digest;
use kfactory_layers::layer::{LayerInfo, LayerWriter};
use kfactory_layers::manifest::Descriptor;
use serde_json::json;

use super::inputs::Inputs;
use super::layers::{Builder, MadeLayer};
use super::{BaseImage, Engine, tree};
use crate::changeset::Changeset;
use crate::error::Result;
use crate::plan::{LayerUnit, Plan};
use crate::step::Step;
use crate::stop;
use crate::store::{Damage, StepRecord};

/// Part of every cache key: raised when the same actions begin to mean something else.
const CACHE_FORMAT: u32 = 5;

impl Builder<'_> {
    /// Returns a layer's key: what it stands on, its steps, and its inputs by content.
    pub(super) fn key(
        &self,
        parent: &Digest,
        plan: &Plan,
        unit: &LayerUnit,
        base: &BaseImage,
        inputs: &Inputs<'_>,
    ) -> Result<Digest> {
        // Without the places they were written in: a line that moves changes nothing.
        let steps: Vec<Step> = unit
            .steps
            .iter()
            .map(|&index| plan.steps[index].without_place())
            .collect();
        let definition = json!({
            "format": CACHE_FORMAT,
            "tool": env!("CARGO_PKG_VERSION"),
            "parent": parent,
            "layer": unit.name,
            "steps": steps,
            "inputs": inputs.identity(&steps)?,
            "env": base.image.env(),
            "network": self.request.network,
            // What steps look at beside their own words.
            "image": [&self.request.model, &self.request.trusted.to_string(), &self.request.fips.to_string()],
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
        inputs: &Inputs<'_>,
    ) -> Result<Digest> {
        plan.layers[..count]
            .iter()
            .try_fold(base_chain(base), |key, unit| {
                self.key(&key, plan, unit, base, inputs)
            })
    }

    /// Returns the layers, from the bottom, that the cache holds, and their keys. Every blob of theirs has been read through:
    /// a damaged one is dropped with its record and told, and its layer is not among them.
    pub(super) fn cached_prefix(
        &self,
        plan: &Plan,
        base: &BaseImage,
        inputs: &Inputs<'_>,
    ) -> Result<(Vec<MadeLayer>, Vec<Digest>)> {
        loop {
            let (layers, keys) = self.recorded_prefix(plan, base, inputs)?;
            let blobs: Vec<_> = layers.iter().map(|layer| layer.info.descriptor()).collect();
            // What was dropped has no record any more, so this comes to an end.
            if self.drop_damaged(&blobs)?.is_empty() {
                return Ok((layers, keys));
            }
        }
    }

    /// Drops those of `blobs` that are damaged and says so; returns them.
    fn drop_damaged(&self, blobs: &[Descriptor]) -> Result<Vec<Damage>> {
        let damaged = self.engine.check(blobs)?.damaged;
        for damage in &damaged {
            let text = format!("{damage}, and the layer is made again");
            self.engine.reporter.warn(&text);
        }
        Ok(damaged)
    }

    fn recorded_prefix(
        &self,
        plan: &Plan,
        base: &BaseImage,
        inputs: &Inputs<'_>,
    ) -> Result<(Vec<MadeLayer>, Vec<Digest>)> {
        let (mut layers, mut keys) = (Vec::new(), Vec::new());
        let mut chain = base_chain(base);
        let mut key = chain;
        if self.engine.options.no_cache {
            return Ok((layers, keys));
        }
        for unit in &plan.layers {
            key = self.key(&key, plan, unit, base, inputs)?;
            let record = self
                .engine
                .store
                .step(&key)
                .filter(|record| record.parent == chain);
            let Some(record) = record else { break };
            let Some(info) = self.in_wanted_compression(&key, &record)? else {
                break;
            };
            chain = extend(chain, info.diff_id);
            layers.push(MadeLayer {
                name: unit.name.clone(),
                info,
                created: record.created,
                cached: true,
                findings: record.findings,
            });
            keys.push(key);
        }
        Ok((layers, keys))
    }

    /// Returns the layer of `record` in the wanted compression, made of another one if need be; `None` when no blob is left.
    fn in_wanted_compression(
        &self,
        key: &Digest,
        record: &StepRecord,
    ) -> Result<Option<LayerInfo>> {
        let wanted = self.compression.to_string();
        if let Some(info) = record.blobs.get(&wanted) {
            return Ok(Some(info.clone()));
        }
        // From the last by name: what is not compressed, or with zstd, is read faster than gzip.
        let mut present = None;
        for info in record.blobs.values().rev() {
            if self.drop_damaged(&[info.descriptor()])?.is_empty() {
                present = Some(info);
                break;
            }
        }
        let Some(present) = present else {
            return Ok(None);
        };
        let info = self.recompress(&record.layer, present).map_err(|error| {
            error.context(format!("compressing layer `{}` again", record.layer))
        })?;
        // Without what has been dropped.
        let Some(mut record) = self.engine.store.step(key) else {
            return Ok(None);
        };
        record.blobs.insert(wanted, info.clone());
        self.engine.store.put_step(key, &record)?;
        Ok(Some(info))
    }

    /// Writes the changeset of a layer that is in the store as another blob. The diff ID, and with it the image's
    /// content, stays what it was.
    fn recompress(&self, name: &str, layer: &LayerInfo) -> Result<LayerInfo> {
        let Engine {
            store,
            options,
            reporter,
            ..
        } = self.engine;
        stop::check(&options.cancel)?;
        let transfer = reporter.transfer("recompress", name, layer.size);
        let mut changeset =
            Changeset::open(store, &layer.descriptor(), layer.diff_id, Some(&transfer))?;
        let blob = store.blob_writer()?;
        let mut writer = LayerWriter::new(blob, self.compression, options.jobs)?;
        std::io::copy(&mut changeset, &mut writer)?;
        changeset.finish()?;
        let (blob, info) = writer.finish()?;
        let blob = blob.into_inner();
        blob.commit_as(&info.digest, info.size)?;
        Ok(info)
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

    /// Returns whether the changes of every cached layer can be built upon as they are.
    pub(super) fn stack_is_at_hand(&self, keys: &[Digest]) -> bool {
        let store = self.engine.store;
        keys.iter().all(|key| {
            let record = store.step(key);
            record.is_some_and(|record| store.trusted_changes(&record).is_some())
        })
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

/// Returns the chain ID of the base; an image without layers is named by the digest of nothing.
pub(super) fn base_chain(base: &BaseImage) -> Digest {
    chain_id(base.image.diff_ids()).unwrap_or_else(|| Digest::of(b""))
}
