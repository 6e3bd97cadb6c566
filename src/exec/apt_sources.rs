//! Changes apt's sources: enables a component that packages of a step are in.

use kfactory_layers::root::Root;

use super::Environment;
use crate::error::{Error, Result};

const LIST: &str = "/etc/apt/sources.list";
const DIR: &str = "/etc/apt/sources.list.d";

/// Adds `component` to every source that has the component `main` and not this one.
pub(super) fn enable(env: &Environment<'_>, root: &Root, component: &str) -> Result<()> {
    let mut paths = vec![LIST.to_owned()];
    if root.exists(DIR)? {
        let mut names: Vec<String> = root
            .read_dir(DIR)?
            .iter()
            .filter_map(|entry| entry.name.to_str().map(str::to_owned))
            .filter(|name| name.ends_with(".list") || name.ends_with(".sources"))
            .collect();
        names.sort();
        paths.extend(names.into_iter().map(|name| format!("{DIR}/{name}")));
    }
    let mut found = false;
    for path in paths {
        let Some(text) = root.read_to_string_opt(&path)? else {
            continue;
        };
        let (new, has_main) = with_component(&text, path.ends_with(".sources"), component);
        found |= has_main;
        if new != text {
            let mode = root
                .metadata_opt(&path)?
                .map_or(0o644, |it| it.mode & 0o7777);
            root.write(&path, new.as_bytes(), mode, 0, 0)?;
            env.packages.sources_changed();
        }
    }
    if found {
        return Ok(());
    }
    Err(Error::user(format!(
        "component `{component}` cannot be enabled: no source in {LIST} or {DIR} has the component `main`"
    ))
    .hint("give the base the sources of its distribution"))
}

/// Returns `text` with the component, and whether it has a source with the component `main` at all.
fn with_component(text: &str, is_deb822: bool, component: &str) -> (String, bool) {
    let mut found = false;
    let mut out = String::with_capacity(text.len() + 64);
    for line in text.split_inclusive('\n') {
        let bare = line.trim_end();
        let mut words = bare.split_ascii_whitespace();
        let is_source = match is_deb822 {
            true => words
                .next()
                .is_some_and(|key| key.eq_ignore_ascii_case("Components:")),
            false => words.next() == Some("deb"),
        };
        let words: Vec<&str> = words.collect();
        if !is_source || !words.contains(&"main") {
            out.push_str(line);
            continue;
        }
        found = true;
        out.push_str(bare);
        if !words.contains(&component) {
            out.push(' ');
            out.push_str(component);
        }
        out.push_str(&line[bare.len()..]);
    }
    (out, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_component_comes_to_every_source_of_the_distribution_once() {
        let wanted = "non-free-firmware";
        let deb822 = "Types: deb\nURIs: http://deb.debian.org/debian\nComponents: main\n\nTypes: deb\nComponents: other\n";
        let (new, found) = with_component(deb822, true, wanted);
        assert!(found);
        assert_eq!(
            new,
            deb822.replace("Components: main", "Components: main non-free-firmware")
        );
        assert_eq!(with_component(&new, true, wanted), (new.clone(), true));
        let list = "# deb x bookworm main\ndeb [arch=amd64] http://x bookworm main contrib\ndeb-src http://x bookworm main";
        let (new, found) = with_component(list, false, wanted);
        assert!(found);
        assert_eq!(
            new,
            list.replace("main contrib", "main contrib non-free-firmware")
        );
    }

    #[test]
    fn a_source_of_somebody_else_stays_as_it_is() {
        let flat = "deb http://x ./\n";
        assert_eq!(with_component(flat, false, "y"), (flat.into(), false));
    }
}
