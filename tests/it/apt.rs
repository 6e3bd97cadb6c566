//! What a real apt does with the command lines that it is given.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kfactory::distro::apt::{Operation, PackageUri, Workspace, parse_uris};

use crate::support::debs::{deb, index};
use crate::support::{need, run, web, world};

const PACKAGE: &str = "kfactory-test-package";

/// A workspace on this machine, whose apt knows one repository and of no package that is installed.
struct Machine {
    workspace: Workspace,
    dir: PathBuf,
}

impl Machine {
    /// Prepares one with fresh lists; `None` where the tools are missing.
    fn new() -> Option<Self> {
        if !need(&["apt-get", "dpkg-deb", "apt-ftparchive"]) {
            return None;
        }
        let repository = world().own_dir("apt/repository");
        deb(&repository, PACKAGE, "", &[]);
        index(&repository);
        let dir = world().own_dir("apt/workspace");
        let workspace = Workspace::new(dir.to_str().expect("UTF-8"), 0);
        for directory in workspace.directories() {
            fs::create_dir_all(directory).expect("a directory");
        }
        for file in workspace.files() {
            fs::write(file.path, file.content).expect("written");
        }
        let machine = Self { workspace, dir };
        machine.knows_only(&web::serve(&repository));
        machine.apt(Operation::Update);
        Some(machine)
    }

    /// Sets aside what apt would read of this machine's own packages and sources.
    fn knows_only(&self, repository: &str) {
        let config = self.dir.join("apt.conf");
        let state = self.dir.join("state");
        fs::create_dir(&state).expect("a fresh directory");
        fs::write(state.join("status"), "").expect("written");
        let source = format!("deb [trusted=yes] {repository} ./\n");
        fs::write(state.join("sources.list"), source).expect("written");
        let state = state.display();
        let own = format!(
            "Dir::State \"{state}\";\nDir::State::status \"{state}/status\";\n\
             Dir::Etc \"{state}\";\nDir::Etc::sourcelist \"{state}/sources.list\";\n"
        );
        let text = fs::read_to_string(&config).expect("the workspace's own");
        fs::write(config, text + &own).expect("written");
    }

    fn apt(&self, operation: Operation<'_>) {
        self.run(&self.workspace.command(operation).expect("valid names"));
    }

    fn run(&self, words: &[String]) -> String {
        run(Command::new(&words[0])
            .args(&words[1..])
            .envs(self.workspace.environment())
            .env("no_proxy", "127.0.0.1"))
    }

    fn list(&self) -> Vec<PackageUri> {
        let words = self
            .workspace
            .list_downloads(Operation::Install(&[PACKAGE]))
            .expect("a valid name");
        parse_uris(&self.run(&words)).expect("a listing")
    }
}

#[test]
fn listing_downloads_leaves_archives_of_another_size_where_dpkg_reads_them() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let listed = machine.list();
    let [uri] = listed.as_slice() else {
        panic!("{listed:?}");
    };
    // As a decompressed one is: what it installs is the same, its size is not what the lists say.
    let archives = machine.workspace.archives();
    let archive = Path::new(&archives).join(&uri.filename);
    let content = vec![0; usize::try_from(uri.size_bytes).expect("small") + 1];
    fs::write(&archive, &content).expect("written");

    assert_eq!(machine.list(), listed);
    let kept = fs::read(&archive).unwrap_or_else(|error| panic!("apt took it away: {error}"));
    assert!(kept == content, "apt changed it");
}
