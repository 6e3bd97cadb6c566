//! Changes which of a base's repositories are used.

use kfactory_layers::root::Root;

use super::super::Environment;
use crate::error::{Error, Result};

const DIR: &str = "/etc/yum.repos.d";

/// Switches a repository on in the file that describes it.
pub(in super::super) fn enable(env: &Environment<'_>, root: &Root, id: &str) -> Result<()> {
    let entries = if root.exists(DIR)? {
        root.read_dir(DIR)?
    } else {
        Vec::new()
    };
    for entry in entries {
        let Some(name) = entry.name.to_str().filter(|name| name.ends_with(".repo")) else {
            continue;
        };
        let path = format!("{DIR}/{name}");
        let Some(text) = root.read_to_string_opt(&path)? else {
            continue;
        };
        if let Some(changed) = enabled(&text, id) {
            let mode = root
                .metadata_opt(&path)?
                .map_or(0o644, |metadata| metadata.mode & 0o777);
            root.write(&path, changed.as_bytes(), mode, 0, 0)?;
            env.packages.sources_changed();
            return Ok(());
        }
    }
    Err(
        Error::user(format!("no file in {DIR} describes a repository `{id}`"))
            .hint("the kernel comes from it: add it to the base image"),
    )
}

/// Returns `text` with the section `id` switched on; `None` if it has no such section.
fn enabled(text: &str, id: &str) -> Option<String> {
    let header = format!("[{id}]");
    let (mut inside, mut found) = (false, false);
    let mut out = String::new();
    for line in text.lines() {
        let key = line.split('=').next().unwrap_or_default().trim();
        if line.trim_start().starts_with('[') {
            inside = line.trim() == header;
        } else if inside && key == "enabled" {
            continue;
        }
        out.push_str(line);
        out.push('\n');
        if line.trim() == header {
            found = true;
            out.push_str("enabled=1\n");
        }
    }
    found.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_repository_is_switched_on_and_the_others_stay_as_they_are() {
        let text = "[a]\nname=A\nenabled=0\n\n[b]\nname=B\nenabled = 0\ngpgcheck=1\n";
        assert_eq!(
            enabled(text, "b").as_deref(),
            Some("[a]\nname=A\nenabled=0\n\n[b]\nenabled=1\nname=B\ngpgcheck=1\n")
        );
        assert_eq!(enabled(text, "c"), None);
    }
}
