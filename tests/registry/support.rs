//! Starts a real registry on loopback, and runs the programs that judge what is in it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kfactory::registry::{Digest, Reference, Registry, RegistryOptions};

pub(crate) const USER: &str = "keeper";
pub(crate) const PASSWORD: &str = "opensesame";
/// bcrypt of [`PASSWORD`], cheap on purpose.
const PASSWORD_HASH: &str = "$2y$05$xX2yAV6MncEae646btj4FuvLYI.t88Z3uLbJaEx1DGv1XN8na37lO";

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

/// A running `docker-registry`; stopped when dropped.
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) dir: tempfile::TempDir,
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    pub(crate) fn open() -> Self {
        Self::start("", "")
    }

    pub(crate) fn with_password() -> Self {
        Self::start("auth: {htpasswd: {realm: test, path: DIR/htpasswd}}", "")
    }

    /// Encrypted, with a certificate of the authority in `ca.pem` beside the store.
    pub(crate) fn with_tls() -> Self {
        Self::start(
            "",
            "tls: {certificate: DIR/server.pem, key: DIR/server.key}",
        )
    }

    fn start(auth: &str, tls: &str) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|free| free.local_addr())
            .expect("a free port")
            .port();
        let name = format!("127.0.0.1:{port}");
        std::fs::write(
            dir.path().join("htpasswd"),
            format!("{USER}:{PASSWORD_HASH}\n"),
        )
        .expect("written");
        if !tls.is_empty() {
            make_certificates(dir.path());
        }
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: DIR/store}}}}\n{auth}\n\
             http:\n  addr: {name}\n  secret: test\n  {tls}\n"
        );
        let config = config.replace("DIR", dir.path().to_str().expect("UTF-8"));
        let path = dir.path().join("config.yml");
        std::fs::write(&path, config).expect("written");
        let log = std::fs::File::create(dir.path().join("log")).expect("log");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("docker-registry starts");
        let server = Self { name, dir, child };
        server.wait();
        server
    }

    fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(&self.name).is_err() {
            assert!(
                Instant::now() < deadline,
                "docker-registry does not listen on {}",
                self.name
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn reference(&self, rest: &str) -> Reference {
        Reference::parse(&format!("{}/{rest}", self.name)).expect("valid")
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

fn make_certificates(dir: &Path) {
    let script = "
        openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj '/CN=test authority'
        openssl req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj '/CN=127.0.0.1'
        printf 'subjectAltName=IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\n' > server.ext
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile server.ext
    ";
    run(Command::new("sh").args(["-ec", script]).current_dir(dir));
}

pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().expect("the program starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
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
