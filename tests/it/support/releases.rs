//! A release server on loopback: what GitHub serves, by path.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

/// What the server says to one path.
#[derive(Debug, Clone)]
pub(crate) struct File {
    pub(crate) body: Vec<u8>,
    /// Bytes of the body that are really sent.
    pub(crate) sent: usize,
}

/// A running server; it ends with the tests.
#[derive(Debug)]
pub(crate) struct Releases {
    /// What stands for `https://github.com`.
    pub(crate) base: String,
    files: Arc<Mutex<BTreeMap<String, File>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Releases {
    /// Starts a server that has nothing.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let base = format!("http://{}", listener.local_addr().expect("bound"));
        let server = Self {
            base,
            files: Arc::default(),
            asked: Arc::default(),
        };
        let (files, asked) = (server.files.clone(), server.asked.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (files, asked) = (files.clone(), asked.clone());
                std::thread::spawn(move || serve(stream, &files, &asked));
            }
        });
        server
    }

    /// Serves `body` at `path`.
    pub(crate) fn put(&self, path: &str, body: &[u8]) {
        let file = File {
            body: body.to_owned(),
            sent: body.len(),
        };
        self.files
            .lock()
            .expect("no panic")
            .insert(path.to_owned(), file);
    }

    /// Breaks off after `sent` bytes of what is at `path`.
    pub(crate) fn cut(&self, path: &str, sent: usize) {
        let mut files = self.files.lock().expect("no panic");
        files.get_mut(path).expect("there is such a file").sent = sent;
    }

    /// Serves a release of k3s whose program is `program`, for this machine and arm64.
    pub(crate) fn put_k3s(&self, version: &str, program: &str) {
        let dir = k3s_dir(version);
        let sum = sha256(program.as_bytes());
        let (file, arch) = k3s_file();
        self.put(&format!("{dir}/{file}"), program.as_bytes());
        let sums = format!("{}  k3s-images.txt\n{sum}  {file}\n", "0".repeat(64));
        self.put(&format!("{dir}/sha256sum-{arch}.txt"), sums.as_bytes());
    }

    /// Returns every path that was asked for.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").clone()
    }
}

/// Returns the directory of a release of k3s.
pub(crate) fn k3s_dir(version: &str) -> String {
    let version = version.replace('+', "%2B");
    format!("/k3s-io/k3s/releases/download/{version}")
}

/// Returns the name of k3s' program for this machine, and what its releases call the machine.
pub(crate) fn k3s_file() -> (&'static str, &'static str) {
    if cfg!(target_arch = "aarch64") {
        ("k3s-arm64", "arm64")
    } else {
        ("k3s", "amd64")
    }
}

/// Returns the checksum as lower-case hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    let sum = sha2::Sha256::digest(bytes);
    sum.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn serve(
    mut stream: std::net::TcpStream,
    files: &Mutex<BTreeMap<String, File>>,
    asked: &Mutex<Vec<String>>,
) {
    let mut lines = BufReader::new(stream.try_clone().expect("a socket"))
        .lines()
        .map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    lines
        .by_ref()
        .take_while(|line| !line.is_empty())
        .for_each(drop);
    let path = first.split(' ').nth(1).unwrap_or("").to_owned();
    asked.lock().expect("no panic").push(path.clone());
    let file = files.lock().expect("no panic").get(&path).cloned();
    let status = if file.is_some() {
        "200 OK"
    } else {
        "404 Not Found"
    };
    let File { body, sent } = file.unwrap_or(File {
        body: Vec::new(),
        sent: 0,
    });
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(&body[..sent]);
}
