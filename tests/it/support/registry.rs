//! Registries of a run of the tests: they end with it, and skopeo looks into them.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use super::world;

#[path = "../../common/registry.rs"]
mod common;

pub(crate) use common::{Config, PASSWORD, Server, USER, run};

impl Server {
    /// Open to all.
    pub(crate) fn open() -> Self {
        Self::of_this_run(&Config::default())
    }

    /// Takes [`USER`] and [`PASSWORD`] only.
    pub(crate) fn with_password() -> Self {
        Self::of_this_run(&Config {
            password: true,
            ..Config::default()
        })
    }

    /// Encrypted, with a certificate of an authority that nobody knows.
    pub(crate) fn with_tls() -> Self {
        Self::of_this_run(&Config {
            tls: true,
            ..Config::default()
        })
    }

    /// Answers every request to write with 405, as a read-only mirror does.
    pub(crate) fn read_only(content_of: &Server) -> Self {
        Self::of_this_run(&Config {
            read_only: Some(content_of.file("store")),
            ..Config::default()
        })
    }

    fn of_this_run(config: &Config) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("registry")
            .tempdir_in(&world().dir)
            .expect("a directory");
        let server = Self::start(dir, config);
        world().janitor.kill_registry_at_end(server.child.id());
        server
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
