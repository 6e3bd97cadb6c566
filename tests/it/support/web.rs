//! A web server on loopback that hands out the files below a directory.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Component, Path, PathBuf};

/// Serves `dir` until this program ends, and returns the address.
pub(crate) fn serve(dir: &Path) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let dir = dir.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let dir = dir.clone();
            std::thread::spawn(move || answer_all(&stream, &dir));
        }
    });
    format!("http://{address}")
}

fn answer_all(stream: &TcpStream, dir: &Path) {
    let mut requests = BufReader::new(stream);
    while let Some(path) = next_request(&mut requests) {
        let body = local(dir, &path).and_then(|path| fs::read(path).ok());
        let status = if body.is_some() {
            "200 OK"
        } else {
            "404 Not Found"
        };
        let body = body.unwrap_or_default();
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut out = stream;
        if out
            .write_all(head.as_bytes())
            .and_then(|()| out.write_all(&body))
            .is_err()
        {
            return;
        }
    }
}

/// Reads one request and returns its path; `None` at the end of the connection.
fn next_request(requests: &mut impl std::io::BufRead) -> Option<String> {
    let mut path = None;
    for line in requests.lines() {
        let line = line.ok()?;
        if line.is_empty() {
            return path;
        }
        if path.is_none() {
            path = Some(line.split(' ').nth(1)?.to_owned());
        }
    }
    None
}

fn local(dir: &Path, path: &str) -> Option<PathBuf> {
    let path = path
        .split('?')
        .next()?
        .trim_start_matches('/')
        .replace("%2b", "+")
        .replace("%2B", "+");
    let path = Path::new(&path);
    let inside = path
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    inside.then(|| dir.join(path))
}
