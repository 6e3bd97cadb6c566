//! Which modules a module needs, as `moddep.lst` says: a line `name: needed needed ...` for every module.

use std::collections::{BTreeMap, BTreeSet};

/// The needs of every module.
#[derive(Debug)]
pub(super) struct Closure<'a> {
    needs: BTreeMap<&'a str, Vec<&'a str>>,
}

impl<'a> Closure<'a> {
    /// Reads `moddep.lst`.
    pub(super) fn new(list: &'a str) -> Self {
        let lines = list.lines().filter_map(|line| line.split_once(':'));
        let needs = lines
            .map(|(name, needs)| (name.trim(), needs.split_whitespace().collect()))
            .collect();
        Self { needs }
    }

    /// Returns whether there is a module `name`.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.needs.contains_key(name)
    }

    /// Returns the `wanted` modules and all that they need, each once and after what it needs, which is the order that GRUB
    /// links them in. Modules that need each other are in any order.
    ///
    /// # Errors
    ///
    /// The name of a module that there is not.
    pub(super) fn of<'b>(
        &self,
        wanted: impl Iterator<Item = &'b str>,
    ) -> Result<Vec<String>, String> {
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        for name in wanted {
            self.visit(name, &mut seen, &mut order)?;
        }
        Ok(order)
    }

    /// A list of its own instead of recursion: how deep the needs go is up to a file of the image.
    fn visit(
        &self,
        name: &str,
        seen: &mut BTreeSet<&'a str>,
        order: &mut Vec<String>,
    ) -> Result<(), String> {
        let mut open: Vec<(&'a str, usize)> = Vec::new();
        self.enter(name, seen, &mut open)?;
        while let Some((name, next)) = open.last_mut() {
            let name = *name;
            if let Some(need) = self.needs[name].get(*next) {
                *next += 1;
                self.enter(need, seen, &mut open)?;
            } else {
                open.pop();
                order.push(name.to_owned());
            }
        }
        Ok(())
    }

    fn enter(
        &self,
        name: &str,
        seen: &mut BTreeSet<&'a str>,
        open: &mut Vec<(&'a str, usize)>,
    ) -> Result<(), String> {
        let (name, _) = self.needs.get_key_value(name).ok_or(name)?;
        if seen.insert(name) {
            open.push((name, 0));
        }
        Ok(())
    }
}
