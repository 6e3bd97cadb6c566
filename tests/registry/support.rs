//! Starts a real registry on loopback, and runs the programs that judge what is in it.

use std::path::PathBuf;

use kfactory::registry::{Digest, Reference, Registry, RegistryOptions};

#[path = "../common/registry.rs"]
mod common;

pub(crate) use common::{Config, PASSWORD, Server, USER, run};

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Says why a test does nothing; `None` when every program is there.
pub(crate) fn missing(programs: &[&str]) -> Option<String> {
    let present = |program: &str| {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&paths).any(|dir| dir.join(program).is_file())
    };
    programs
        .iter()
        .find(|program| !present(program))
        .map(|program| format!("skipped: `{program}` is not installed"))
}

/// Says that a test was skipped.
#[allow(clippy::print_stderr)] // The harness shows it with `--nocapture`; there is no other way to say it.
pub(crate) fn skip(reason: &str) {
    eprintln!("{reason}");
}

impl Server {
    pub(crate) fn open() -> Self {
        Self::with(Config::default())
    }

    pub(crate) fn with_password() -> Self {
        Self::with(Config {
            password: true,
            ..Config::default()
        })
    }

    /// Encrypted, with a certificate of the authority in `ca.pem` beside the store.
    pub(crate) fn with_tls() -> Self {
        Self::with(Config {
            tls: true,
            ..Config::default()
        })
    }

    fn with(config: Config) -> Self {
        Self::start(tempfile::tempdir().expect("temporary directory"), &config)
    }

    pub(crate) fn reference(&self, rest: &str) -> Reference {
        Reference::parse(&format!("{}/{rest}", self.name)).expect("valid")
    }
}

/// A client that reads nothing of the machine's configuration.
pub(crate) fn client(options: RegistryOptions) -> Registry {
    let nothing = || Some(PathBuf::from("/dev/null"));
    let authfile = options.authfile.or_else(nothing);
    let options = RegistryOptions {
        registries_conf: nothing(),
        authfile,
        ..options
    };
    Registry::new(options).expect("nothing to read")
}

pub(crate) fn silent(_: u64) {}

/// A minimal image: one layer of `layer_len` bytes whose tar is a single file.
pub(crate) struct Image {
    pub(crate) layer: Vec<u8>,
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
}

impl Image {
    pub(crate) fn new(content: &[u8]) -> Self {
        let layer = tar_of(content);
        let diff_id = Digest::of(&layer);
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#
        )
        .into_bytes();
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":{}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{diff_id}","size":{}}}]}}"#,
            Digest::of(&config),
            config.len(),
            layer.len()
        )
        .into_bytes();
        Self {
            layer,
            config,
            manifest,
        }
    }

    pub(crate) async fn push(&self, registry: &Registry, to: &Reference) {
        for blob in [&self.layer, &self.config] {
            let (digest, size) = (Digest::of(blob), blob.len() as u64);
            registry
                .push_blob(to, &digest, size, blob.clone(), &silent)
                .await
                .expect("blob pushed");
        }
        registry
            .push_manifest(to, self.manifest.clone(), OCI_MANIFEST)
            .await
            .expect("manifest pushed");
    }
}

/// Writes a ustar archive with `content` as its one file.
fn tar_of(content: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 512];
    header[..4].copy_from_slice(b"file");
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    header[136..148].copy_from_slice(b"00000000000\0");
    header[148..156].fill(b' ');
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut tar = header.to_vec();
    tar.extend(content);
    tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
    tar
}
