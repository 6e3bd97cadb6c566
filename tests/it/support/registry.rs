//! A real registry on loopback.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{run, world};

pub(crate) const USER: &str = "keeper";
pub(crate) const PASSWORD: &str = "opensesame";
/// bcrypt of [`PASSWORD`], cheap on purpose.
const PASSWORD_HASH: &str = "$2y$05$xX2yAV6MncEae646btj4FuvLYI.t88Z3uLbJaEx1DGv1XN8na37lO";

/// A running `docker-registry`; stopped when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    /// `127.0.0.1:PORT`
    pub(crate) name: String,
    dir: tempfile::TempDir,
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Open to all.
    pub(crate) fn open() -> Self {
        Self::start("", "", "")
    }

    /// Takes [`USER`] and [`PASSWORD`] only.
    pub(crate) fn with_password() -> Self {
        Self::start(
            "auth: {htpasswd: {realm: test, path: DIR/htpasswd}}",
            "",
            "",
        )
    }

    /// Encrypted, with a certificate that nobody knows.
    pub(crate) fn with_tls() -> Self {
        Self::start(
            "",
            "tls: {certificate: DIR/server.pem, key: DIR/server.key}",
            "",
        )
    }

    /// Answers every request to write with 405, as a read-only mirror does.
    pub(crate) fn read_only(content_of: &Server) -> Self {
        let root = content_of.dir.path().join("store");
        Self::start("", "", &format!("ROOT={}", root.display()))
    }

    fn start(auth: &str, tls: &str, read_only: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("registry")
            .tempdir_in(&world().dir)
            .expect("a directory");
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
            make_certificate(dir.path());
        }
        let (root, maintenance) = match read_only.strip_prefix("ROOT=") {
            Some(root) => (
                root.to_owned(),
                ", maintenance: {readonly: {enabled: true}}",
            ),
            None => ("DIR/store".to_owned(), ""),
        };
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {root}}}{maintenance}}}\n{auth}\n\
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
            .spawn();
        let child = child.expect("docker-registry starts");
        world().janitor.kill_registry_at_end(child.id());
        let server = Self { name, dir, child };
        server.wait();
        server
    }

    fn wait(&self) {
        let end = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(&self.name).is_err() {
            assert!(
                Instant::now() < end,
                "docker-registry does not listen on {}",
                self.name
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Returns the reference of `rest` in this registry.
    pub(crate) fn reference(&self, rest: &str) -> String {
        format!("{}/{rest}", self.name)
    }

    /// Pushes what skopeo calls `from` as `to`.
    pub(crate) fn push(&self, from: &str, to: &str) {
        let to = format!("docker://{}", self.reference(to));
        run(Command::new("skopeo").args([
            "--insecure-policy",
            "copy",
            "--quiet",
            "--dest-tls-verify=false",
            from,
            &to,
        ]));
    }

    /// Returns the digest that the registry has for `rest`, as skopeo sees it.
    pub(crate) fn digest_opt(&self, rest: &str) -> Option<String> {
        let from = format!("docker://{}", self.reference(rest));
        let arguments = [
            "inspect",
            "--no-tags",
            "--tls-verify=false",
            "--format",
            "{{.Digest}}",
            &from,
        ];
        let output = Command::new("skopeo")
            .args(arguments)
            .output()
            .expect("skopeo starts");
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(text)
    }

    /// Changes one byte of every blob that begins as a gzip stream does, behind the registry's back, and returns their names.
    pub(crate) fn damage_layers(&self) -> Vec<String> {
        let blobs = self.dir.path().join("store/docker/registry/v2/blobs");
        let files = walkdir::WalkDir::new(blobs)
            .into_iter()
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name() == "data");
        let mut damaged = Vec::new();
        for entry in files {
            let mut bytes = std::fs::read(entry.path()).expect("ours");
            if bytes.starts_with(&[0x1f, 0x8b]) {
                let last = bytes.len() - 1;
                bytes[last] ^= 1;
                std::fs::write(entry.path(), bytes).expect("ours");
                let digest = entry
                    .path()
                    .parent()
                    .and_then(Path::file_name)
                    .expect("named by its digest");
                damaged.push(digest.to_string_lossy().into_owned());
            }
        }
        damaged
    }

    /// Returns a file beside the registry's store.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

fn make_certificate(dir: &Path) {
    let script = "openssl req -x509 -newkey rsa:2048 -nodes -keyout server.key -out server.pem -days 2 \
                  -subj '/CN=127.0.0.1' -addext 'subjectAltName=IP:127.0.0.1'";
    run(Command::new("sh").args(["-ec", script]).current_dir(dir));
}

/// Starts a registry that knows everybody and lets nobody in, and returns `127.0.0.1:PORT`; it ends with the tests.
pub(crate) fn forbidding() -> String {
    use std::io::{Read as _, Write as _};
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let name = listener.local_addr().expect("bound").to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut request = [0; 4096];
            let count = stream.read(&mut request).unwrap_or(0);
            // Whoever begins with TLS is hung up on, as any plain server does.
            if !request[..count].starts_with(b"\x16") {
                let is_ping = request.starts_with(b"GET /v2/ ");
                let (status, body) = match is_ping {
                    true => ("200 OK", "{}"),
                    false => (
                        "403 Forbidden",
                        r#"{"errors":[{"code":"DENIED","message":"requested access is denied"}]}"#,
                    ),
                };
                let length = body.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                );
            }
        }
    });
    name
}
