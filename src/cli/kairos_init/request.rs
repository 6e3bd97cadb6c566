//! From words to the request.

use std::path::{Path, PathBuf};

use kfactory_layers::root::Root;

use super::{Cli, versions};
use crate::error::{Context as _, Error, Result};
use crate::request::Request;
use crate::words;

const EXTENSIONS: &str = "/etc/kairos-init/stage-extensions";
const EXTENSIONS_ENV: &str = "KAIROS_INIT_STAGE_EXTENSIONS_DIR";

impl Cli {
    /// Returns the request for the tree at `root`, and what the user should write differently.
    pub(super) fn request(&self, root: &Path) -> Result<(Request, Vec<String>)> {
        let Some(version) = self.version.clone() else {
            return Err(Error::usage("the produced system needs a version")
                .hint("`kairos-init --version v1.0.0`"));
        };
        let mut request = Request {
            version: Some(version),
            model: self.model.clone(),
            stage: self.stage,
            skip_steps: given(&self.skip_step),
            platform: self.platform.clone(),
            framework: versions::apply(&self.framework, root)?,
            trusted: boolean("--trusted", self.trusted.as_deref())?,
            fips: boolean("--fips", self.fips.as_deref())?,
            secrets: self.secret.clone(),
            ..Request::new(format!("dir:{}", root.display()))
        };
        self.providers.set(&mut request)?;
        request.providers = given(&request.providers);
        let mut warnings = Vec::new();
        if boolean("--stage-extensions", self.stage_extensions.as_deref())? {
            match extensions(root)? {
                Some(dir) => request.stage_extensions.push(dir),
                None => warnings.push(format!(
                    "there are no stage extensions in {EXTENSIONS}, and ${EXTENSIONS_ENV} names no other directory"
                )),
            }
        }
        warnings.extend(self.old_provider(&mut request)?);
        Ok((request, warnings))
    }

    /// Takes the provider from the words that were used before there were several, and returns the warning that names the new ones.
    fn old_provider(&self, request: &mut Request) -> Result<Option<String>> {
        let word = |value: &Option<String>| value.clone().filter(|it| !it.trim().is_empty());
        let (name, version) = (word(&self.kubernetes_provider), word(&self.k8sversion));
        match (name, version) {
            (None, None) => Ok(None),
            (Some(name), version) => {
                let mut new = format!("--provider {name}");
                if !request.providers.contains(&name) {
                    request.providers.push(name.clone());
                }
                if let Some(version) = version {
                    new.push_str(&format!(" --provider-{name}-version {version}"));
                    let options = request.provider_options.entry(name).or_default();
                    options.version.get_or_insert(version);
                }
                Ok(Some(format!(
                    "`--kubernetes-provider` (`-k`) and `--k8sversion` are deprecated; write `{new}`"
                )))
            }
            (None, Some(version)) => Err(Error::usage(format!(
                "`--k8sversion {version}` is the version of no provider"
            ))
            .hint(format!("`--provider k3s --provider-k3s-version {version}`"))),
        }
    }
}

/// Returns the directory of the stage extensions, if there is one.
fn extensions(root: &Path) -> Result<Option<String>> {
    let named = std::env::var_os(EXTENSIONS_ENV).filter(|dir| !dir.is_empty());
    let dir = match named {
        Some(dir) => Some(dir.into()),
        None => Root::open(root)
            .context(|| format!("opening {}", root.display()))?
            .resolve(EXTENSIONS)?
            .map(|inside| root.join(inside)),
    };
    Ok(dir
        .filter(|dir: &PathBuf| dir.is_dir())
        .map(|dir| dir.display().to_string()))
}

/// Wrappers pass on options that they have no value for.
fn given(values: &[String]) -> Vec<String> {
    let values = values.iter().map(|value| value.trim().to_owned());
    values.filter(|value| !value.is_empty()).collect()
}

fn boolean(name: &str, value: Option<&str>) -> Result<bool> {
    words::boolean(name, value.unwrap_or_default())
}
