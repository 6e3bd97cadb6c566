//! `kfactory man`: the manual pages, made of the grammar and of what it cannot say.

use std::io;
use std::path::Path;

use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::print;
use crate::error::{Context as _, Kind, Result};

/// Every variable that is read, and what it does.
const ENVIRONMENT: &[(&str, &str)] = &[
    (
        "KFACTORY_STORE",
        "The store's directory, where --store does not name one. Else it is kfactory in XDG_DATA_HOME, which is ~/.local/share where it is not set.",
    ),
    (
        "SOURCE_DATE_EPOCH",
        "The moment, in seconds since 1970, that new layers and history entries are dated with; no file is younger. With it, equal inputs give the same digest.",
    ),
    (
        "KFACTORY_FRAMEWORK_MIRROR",
        "Replaces https://github.com for releases of the Kairos binaries.",
    ),
    (
        "KFACTORY_PROVIDER_MIRROR",
        "The same for the releases of k3s and k0s; KFACTORY_FRAMEWORK_MIRROR where it is not set.",
    ),
    (
        "REGISTRY_AUTH_FILE, DOCKER_CONFIG",
        "Where credentials are: a file as `podman login' writes it, and the directory of docker's config.json.",
    ),
    (
        "KFACTORY_REGISTRY_USER, KFACTORY_REGISTRY_PASSWORD",
        "Credentials, for the registry in KFACTORY_REGISTRY_HOST or, without it, for every one.",
    ),
    (
        "CONTAINERS_REGISTRIES_CONF",
        "A registries.conf instead of the user's and the system's.",
    ),
    (
        "HTTPS_PROXY, HTTP_PROXY, NO_PROXY",
        "Proxies, also for the package manager; a loopback registry is reached directly.",
    ),
];

const EXIT_STATUS: &[(Option<Kind>, &str)] = &[
    (None, "Done."),
    (
        Some(Kind::User),
        "Something outside is wrong: a reference, a credential, a disk.",
    ),
    (
        Some(Kind::Usage),
        "The command line or the recipe is wrong; nothing was read or written.",
    ),
    (
        Some(Kind::Step),
        "A command of a step failed; nothing was pushed.",
    ),
    (Some(Kind::Internal), "A defect of kfactory."),
    (Some(Kind::Interrupted), "Stopped by the user."),
];

/// Prints the page of the program, or writes one page per command into `dir`.
pub(super) fn run(grammar: clap::Command, dir: Option<&Path>) -> Result<i32> {
    let mut grammar = grammar.disable_help_subcommand(true);
    grammar.build();
    match dir {
        Some(dir) => {
            std::fs::create_dir_all(dir).context(|| format!("creating {}", dir.display()))?;
            write_all(&grammar, true, dir)?;
        }
        None => print(&String::from_utf8_lossy(&page(&grammar, true)?))?,
    }
    Ok(0)
}

fn write_all(command: &clap::Command, is_top: bool, dir: &Path) -> Result<()> {
    let path = dir.join(Man::new(command.clone()).get_filename());
    std::fs::write(&path, page(command, is_top)?)
        .context(|| format!("writing {}", path.display()))?;
    command
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .try_for_each(|command| write_all(command, false, dir))
}

fn page(command: &clap::Command, is_top: bool) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone());
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    man.render_options_section(&mut out)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut out)?;
    }
    let mut roff = Roff::new();
    if let Some(text) = command.get_after_help() {
        examples(&mut roff, &text.to_string());
    }
    if is_top {
        roff.control("SH", ["ENVIRONMENT"]);
        for (names, meaning) in ENVIRONMENT {
            definition(&mut roff, names, meaning);
        }
        roff.control("SH", ["EXIT STATUS"]);
        for (kind, meaning) in EXIT_STATUS {
            let code = kind.map_or(0, Kind::exit_code);
            definition(&mut roff, &code.to_string(), meaning);
        }
    } else {
        roff.control("SH", ["SEE ALSO"]);
        roff.text([
            bold("kfactory"),
            roman("(1) for the environment and the exit status"),
        ]);
    }
    roff.to_writer(&mut out)?;
    Ok(out)
}

fn definition(roff: &mut Roff, name: &str, meaning: &str) {
    roff.control("TP", []);
    roff.text([bold(name)]);
    roff.text([roman(meaning)]);
}

/// Writes the text of [`super::examples`]: a command stands two columns in, what it does six.
fn examples(roff: &mut Roff, text: &str) {
    roff.control("SH", ["EXAMPLES"]);
    for line in text.lines().skip(1) {
        if line.starts_with("      ") {
            roff.text([roman(line.trim())]);
        } else {
            roff.control("TP", []);
            roff.text([bold(line.trim())]);
        }
    }
}
