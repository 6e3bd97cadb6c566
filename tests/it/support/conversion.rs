//! The one conversion that all judges look at: Debian 12, from registry to registry, as a plain user.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::framework::framework;
use super::program::Ran;
use super::tree::Tree;
use super::user::is_root;
use super::world::Scratch;
use super::{Kfactory, Server, base, need, run, skipped, world};

/// A converted image and how it was made.
#[derive(Debug)]
pub(crate) struct Conversion {
    pub(crate) server: Server,
    pub(crate) ran: Ran,
    /// The manifest's digest.
    pub(crate) digest: String,
    /// The store it was made in.
    pub(crate) store: PathBuf,
}

/// Where the converted image is in the registry.
pub(crate) const IMAGE: &str = "me/os:v1.0.0";
/// Where the base is.
pub(crate) const BASE: &str = "debian:12";

/// Returns the conversion, made when first asked for; `None` where none can be made.
pub(crate) fn conversion() -> Option<&'static Conversion> {
    static CONVERSION: OnceLock<Option<Conversion>> = OnceLock::new();
    let made = CONVERSION.get_or_init(Conversion::make).as_ref();
    if made.is_none() {
        skipped("there is no converted image to look at");
    }
    made
}

/// Returns a registry that holds the base; `None` where there is no base.
pub(crate) fn server_with_base() -> Option<Server> {
    if !need(&["docker-registry", "skopeo", "bwrap", "newuidmap"]) {
        return None;
    }
    let tar = base::debian_tar()?;
    let server = Server::open();
    server.push(&format!("tarball:{}", tar.display()), BASE);
    Some(server)
}

/// Prepares the conversion of `base` into `dest` with the store at `store`.
pub(crate) fn convert(base: &str, dest: &str, store: &Path) -> Kfactory {
    Kfactory::new([
        "convert",
        base,
        dest,
        "--framework",
        &framework().spec,
        "--progress",
        "plain",
    ])
    .store(store)
    .dated()
}

impl Conversion {
    fn make() -> Option<Self> {
        let server = server_with_base()?;
        let store = world().user_dir("store");
        let ran = convert(&server.reference(BASE), &server.reference(IMAGE), &store).succeed();
        Some(Self {
            digest: ran.digest(),
            server,
            ran,
            store,
        })
    }

    /// Returns the image's reference.
    pub(crate) fn reference(&self) -> String {
        self.server.reference(IMAGE)
    }

    /// Returns the reference of what it was made from.
    pub(crate) fn reference_of_base(&self) -> String {
        self.server.reference(BASE)
    }

    /// Returns the image's root filesystem as `kfactory unpack` makes it, with what could not be applied; unpacked once.
    pub(crate) fn tree(&self) -> &'static Tree {
        static TREE: OnceLock<Tree> = OnceLock::new();
        TREE.get_or_init(|| {
            let dir = world()
                .dir
                .join(if is_root() { "tree" } else { "home/tree" });
            let ledger = dir.with_extension("ledger");
            let arguments = [
                "unpack",
                &self.reference(),
                dir.to_str().expect("UTF-8"),
                "--ledger",
                ledger.to_str().expect("UTF-8"),
            ];
            let store = Scratch::of_caller("unpack-store");
            Kfactory::as_caller(arguments).store(&store.0).succeed();
            Tree::new(dir)
        })
    }

    /// Returns the image as an OCI layout that skopeo copied from the registry; copied once.
    pub(crate) fn layout(&self) -> &'static Path {
        static LAYOUT: OnceLock<PathBuf> = OnceLock::new();
        LAYOUT.get_or_init(|| {
            let dir = world().own_dir("judges").join("layout");
            let (from, to) = (
                format!("docker://{}", self.reference()),
                format!("oci:{}:v1", dir.display()),
            );
            run(Command::new("skopeo").args([
                "--insecure-policy",
                "copy",
                "--quiet",
                "--src-tls-verify=false",
                &from,
                &to,
            ]));
            dir
        })
    }
}
