//! A directory of files for network boot: an iPXE script and what it names.
//!
//! Spec: ipxe.org/cmd, ipxe.org/scripting.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::path::Path;

use kfactory_layers::input::open_regular;
use kfactory_sandbox::CancelToken;

use super::boot::{self, BootFile, Way};
use super::rule::Report;
use super::{rules, squashfs};
use crate::artifact::netboot::SCRIPT;
use crate::artifact::region::Region;
use crate::error::{Context as _, Error, Result};

/// What every script begins with.
const MAGIC: &[u8] = b"#!ipxe";
const MAX_SCRIPT_BYTES: u64 = 64 << 10;
/// Nobody boots from a directory with more entries.
const MAX_ENTRIES: usize = 4096;
/// More scripts of one directory are not looked into.
const MAX_SCRIPTS: usize = 8;
/// What all values together add to a script; words that go beyond it stay as they are written.
const MAX_VALUE_BYTES: usize = 1 << 20;

/// What a script loads, by the names of files beside it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Loads {
    kernel: Option<String>,
    args: Vec<String>,
    /// Each with the name that the kernel knows it by.
    initrds: Vec<(String, String)>,
}

/// The files of the directory, by their names.
struct Files<'a> {
    dir: &'a Path,
    names: BTreeSet<String>,
}

impl<'a> Files<'a> {
    fn list(dir: &'a Path) -> Result<Self> {
        let doing = || format!("reading {}", dir.display());
        let mut names = BTreeSet::new();
        for (number, entry) in fs::read_dir(dir).context(doing)?.enumerate() {
            if number == MAX_ENTRIES {
                return Err(Error::user(format!(
                    "it has more than {MAX_ENTRIES} entries, too many for what boots over the network"
                ))
                .hint("name a directory with these files alone"));
            }
            let entry = entry.context(doing)?;
            // A link may lead to a file, as where one kernel serves many.
            let is_file = fs::metadata(entry.path()).is_ok_and(|it| it.is_file());
            if let Some(name) = entry.file_name().to_str().filter(|_| is_file) {
                names.insert(name.to_owned());
            }
        }
        Ok(Self { dir, names })
    }

    /// Returns the names of the scripts, first the one that a server is configured with.
    fn scripts(&self) -> Result<Vec<&str>> {
        let mut scripts = Vec::new();
        for name in &self.names {
            let is_called_so = name == SCRIPT;
            let mut head = Vec::new();
            match self.open(name) {
                Ok(Some(file)) => {
                    _ = file
                        .reader()
                        .take(MAGIC.len() as u64)
                        .read_to_end(&mut head)?
                }
                // What else is there may be anybody's.
                Err(error) if is_called_so => return Err(error),
                Ok(None) | Err(_) => {}
            }
            if head == MAGIC {
                scripts.push(name.as_str());
            }
        }
        scripts.sort_by_key(|name| (*name != SCRIPT, *name));
        Ok(scripts)
    }

    fn open(&self, name: &str) -> Result<Option<Region>> {
        if !self.names.contains(name) {
            return Ok(None);
        }
        let path = self.dir.join(name);
        let doing = || format!("reading {}", path.display());
        let file = open_regular(&path).context(doing)?;
        let len = file.metadata().context(doing)?.len();
        Ok(Some(Region::of_file(file.into(), len)))
    }

    fn text(&self, name: &str) -> Result<String> {
        let mut text = Vec::new();
        if let Some(file) = self.open(name)? {
            let doing = || format!("reading {}", self.dir.join(name).display());
            let mut file = file.reader().take(MAX_SCRIPT_BYTES);
            file.read_to_end(&mut text).context(doing)?;
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// Checks the files in `dir`.
pub(super) fn check(report: &mut Report, dir: &Path, stop: Option<&CancelToken>) -> Result<()> {
    let files = Files::list(dir)?;
    let scripts = files.scripts()?;
    let mut held = report.hold(&rules::SCRIPT);
    if scripts.is_empty() {
        held.add("no file begins as an iPXE script does");
        return without_script(report, &files, stop);
    }
    for name in scripts.into_iter().take(MAX_SCRIPTS) {
        script(report, name, &files.text(name)?, &files, stop)?;
    }
    Ok(())
}

/// Checks files that are called as upstream's server calls them, which tells machines what to load by itself.
fn without_script(
    report: &mut Report,
    files: &Files<'_>,
    stop: Option<&CancelToken>,
) -> Result<()> {
    let kernels = files.names.iter();
    let kernel = kernels.filter_map(|name| Some((name, name.strip_suffix("-kernel")?)));
    let Some((kernel, stem)) = kernel.into_iter().next() else {
        let mut held = report.hold(&rules::SCRIPT_FILES);
        held.add("nothing here is called NAME-kernel either");
        return Ok(());
    };
    let (initrd, root) = (format!("{stem}-initrd"), format!("{stem}.squashfs"));
    for name in [&initrd, &root] {
        let is_there = files.names.contains(name);
        let mut held = report.hold(&rules::SCRIPT_FILES);
        if !is_there {
            held.at(kernel, format!("{name} is not beside it"));
        }
    }
    let initrd = files.open(&initrd)?.map(|content| (initrd, content));
    let root = files.open(&root)?.map(|content| (root, content));
    let kernel = files.open(kernel)?.map(|content| (kernel.clone(), content));
    contents(report, kernel, initrd.into_iter().collect(), root, stop)
}

type Named = (String, Region);

/// Checks what there is of the files that boot together.
fn contents(
    report: &mut Report,
    kernel: Option<Named>,
    initrds: Vec<Named>,
    root: Option<Named>,
    stop: Option<&CancelToken>,
) -> Result<()> {
    let mut image = None;
    if let Some(kernel) = kernel {
        let file = |(path, content): Named| BootFile {
            path,
            content: Box::new(content.reader()),
        };
        let initrds = initrds.into_iter().map(file).collect();
        image = boot::check(report, file(kernel), initrds, Way::Netboot, stop)?;
    }
    if let Some((path, content)) = root {
        squashfs::check(report, &path, &content, image.as_ref())?;
    }
    Ok(())
}

fn script(
    report: &mut Report,
    name: &str,
    text: &str,
    files: &Files<'_>,
    stop: Option<&CancelToken>,
) -> Result<()> {
    report.fact("script", name);
    let loads = read(text);
    let mut held = report.hold(&rules::SCRIPT_BOOT);
    let Some(kernel) = &loads.kernel else {
        held.at(name, "it loads no kernel");
        return Ok(());
    };
    let mut all = text.lines().flat_map(commands);
    if !all.any(|(_, words)| matches!(words.first(), Some(&("boot" | "imgexec")))) {
        held.at(name, "it boots nothing");
    }
    let arg = |key: &str| {
        let mut args = loads.args.iter().rev();
        args.find_map(|arg| arg.strip_prefix(key)?.strip_prefix('='))
    };
    let mut held = report.hold(&rules::SCRIPT_INITRD);
    for (_, known) in &loads.initrds {
        let is_told = |arg: &String| arg.strip_prefix("initrd=") == Some(known);
        if !loads.args.iter().any(is_told) {
            held.at(
                name,
                format!("the kernel's arguments lack `initrd={known}`"),
            );
        }
    }
    let mut held = report.hold(&rules::MENU_ARGUMENTS);
    let overlay = ["rd.live.overlay.overlayfs", "rd.overlay"];
    let is_overlay = |arg: &String| overlay.contains(&arg.split('=').next().unwrap_or(arg));
    if !loads.args.iter().any(is_overlay) {
        held.at(
            name,
            format!("the kernel's arguments lack `{}`", overlay[0]),
        );
    }
    let mut held = report.hold(&rules::SCRIPT_ROOT);
    let root = arg("root").and_then(|root| root.strip_prefix("live:"));
    if root.is_none() {
        held.at(name, "the kernel's arguments lack `root=live:URL`");
    }
    let root = root.and_then(file_of);
    let mut missing = Vec::new();
    let mut open = |file: &str| -> Result<Option<Region>> {
        let found = files.open(file)?;
        if found.is_none() {
            missing.push(file.to_owned());
        }
        Ok(found)
    };
    let mut named = |file: &str| -> Result<Option<Named>> {
        Ok(open(file)?.map(|content| (file.to_owned(), content)))
    };
    let kernel = named(kernel)?;
    let mut initrds = Vec::new();
    for (file, _) in &loads.initrds {
        initrds.extend(named(file)?);
    }
    let root = root.map_or(Ok(None), |file| named(&file))?;
    if let Some(config) = arg("config_url").and_then(file_of) {
        named(&config)?;
    }
    let mut held = report.hold(&rules::SCRIPT_FILES);
    for file in missing {
        held.at(name, format!("it names {file}, which is not beside it"));
    }
    contents(report, kernel, initrds, root, stop)
}

/// Reads what `script` loads: the first kernel, and the initrds up to the next one, which is another entry's.
fn read(script: &str) -> Loads {
    let mut loads = Loads::default();
    let mut settings = Settings::default();
    let mut kernels = 0;
    let all = script.lines().flat_map(commands);
    for (_, words) in all.filter(|(is_always, _)| *is_always) {
        let expanded = settings.expand(&words.join(" "));
        let mut words = expanded.split_whitespace();
        match words.next() {
            Some("set") => {
                if let Some(name) = words.next() {
                    let value = words.collect::<Vec<_>>().join(" ");
                    settings.values.insert(name.to_owned(), value);
                }
            }
            Some("kernel") if kernels > 0 => break,
            Some("kernel") => {
                let (_, uri, args) = image(words);
                kernels += 1;
                loads.kernel = uri.and_then(file_of);
                loads.args = args.into_iter().map(str::to_owned).collect();
            }
            Some("initrd") => {
                let (name, uri, _) = image(words);
                if let Some(file) = uri.and_then(file_of) {
                    let name = name.map_or(file.clone(), str::to_owned);
                    loads.initrds.push((file, name));
                }
            }
            _ => {}
        }
    }
    loads
}

/// Returns the commands of a line, each with whether it is tried whatever becomes of others.
fn commands(line: &str) -> Vec<(bool, Vec<&str>)> {
    let mut all = vec![(true, Vec::new())];
    for word in line.split_whitespace() {
        match (word, all.last_mut()) {
            (";" | "||" | "&&", _) => all.push((word == ";", Vec::new())),
            (_, Some((_, words))) => words.push(word),
            (_, None) => {}
        }
    }
    all
}

/// What a script has set so far.
#[derive(Debug, Default)]
struct Settings {
    /// With the values of others in them.
    values: BTreeMap<String, String>,
    used: usize,
}

impl Settings {
    /// Puts what was set in the place of `${name}`. What was not set stays, as iPXE may know it.
    fn expand(&mut self, text: &str) -> String {
        let mut all = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            all.push_str(before);
            let (name, behind) = after.split_once('}').unwrap_or((after, ""));
            match self.values.get(name) {
                Some(value) if self.used + value.len() <= MAX_VALUE_BYTES => {
                    self.used += value.len();
                    all.push_str(value);
                }
                _ => all.push_str(&rest[before.len()..rest.len() - behind.len()]),
            }
            rest = behind;
        }
        all + rest
    }
}

/// Returns the name that is given to an image, its address, and its arguments.
fn image<'a>(
    words: impl Iterator<Item = &'a str>,
) -> (Option<&'a str>, Option<&'a str>, Vec<&'a str>) {
    let (mut name, mut words) = (None, words.peekable());
    while let Some(option) = words.next_if(|word| word.starts_with('-')) {
        match option {
            "-n" | "--name" => name = words.next(),
            "-t" | "--timeout" => _ = words.next(),
            _ => name = option.strip_prefix("--name=").or(name),
        }
    }
    (name, words.next(), words.collect())
}

/// Returns the name of the file that an address ends in; none where what was never set stands in it.
fn file_of(uri: &str) -> Option<String> {
    let path = uri.split(['?', '#']).next().unwrap_or(uri);
    let name = path.rsplit(['/', '}', ':']).next()?;
    (!name.is_empty() && !name.contains("${")).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loads(kernel: &str, args: &[&str], initrds: &[(&str, &str)]) -> Loads {
        Loads {
            kernel: Some(kernel.to_owned()),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            initrds: initrds
                .iter()
                .map(|(file, name)| ((*file).to_owned(), (*name).to_owned()))
                .collect(),
        }
    }

    #[test]
    fn what_a_script_loads_is_named_by_the_files_beside_it() {
        let plain =
            "#!ipxe\nkernel k initrd=i root=live:${cwduri}r.squashfs a || shell\ninitrd i\nboot\n";
        let args = ["initrd=i", "root=live:${cwduri}r.squashfs", "a"];
        assert_eq!(read(plain), loads("k", &args, &[("i", "i")]));
        assert_eq!(
            file_of(args[1].strip_prefix("root=live:").unwrap()),
            Some("r.squashfs".to_owned())
        );
        let settings = "#!ipxe\nset url http://h:80/d\nset k kernel\n\
             kernel --timeout 5 ${url}/${k}?x=1 root=live:${url}/r initrd=disk\ninitrd --name disk ${url}/i\nboot\n";
        let args = ["root=live:http://h:80/d/r", "initrd=disk"];
        assert_eq!(read(settings), loads("kernel", &args, &[("i", "disk")]));
        let nested = "set base http://h/d\nset all ${base}/k a=b root=live:${base}/r\nkernel ${all} ${mac}\n";
        let args = ["a=b", "root=live:http://h/d/r", "${mac}"];
        assert_eq!(read(nested), loads("k", &args, &[]));
    }

    #[test]
    fn of_several_entries_the_first_is_read_and_of_a_line_what_is_always_tried() {
        let script = "isset ${a} && set k other || set k none ; set k first\ninitrd i\nkernel ${k} x || shell\n\
             boot\n:second\nkernel second\ninitrd j\nboot\n";
        assert_eq!(read(script), loads("first", &["x"], &[("i", "i")]));
    }

    #[test]
    fn values_that_double_again_and_again_end() {
        let mut script = "set a 0123456789\n".to_owned();
        script.push_str(&"set a ${a}${a}${a}${a}\n".repeat(2000));
        let mut settings = Settings::default();
        for (_, words) in script.lines().flat_map(commands) {
            let value = settings.expand(&words[2..].join(" "));
            settings.values.insert("a".to_owned(), value);
        }
        assert!(settings.used <= MAX_VALUE_BYTES);
        assert!(settings.values["a"].len() <= MAX_VALUE_BYTES);
        read(&script);
    }

    #[test]
    fn any_script_is_read() {
        for text in [
            "",
            "kernel",
            "kernel -n",
            "set",
            "set a",
            "initrd ${",
            "kernel ${a",
            "; || &&",
        ] {
            read(text);
        }
        assert_eq!(file_of("${a}/${b}"), None);
        assert_eq!(file_of("http://h/"), None);
    }
}
