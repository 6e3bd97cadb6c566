//! A web server on loopback that hands out the files below a directory.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Component, Path, PathBuf};

/// Serves `dir` until this program ends, and returns the address.
pub(crate) fn serve(dir: &Path) -> String {
    serve_to(dir, None)
}

/// As [`serve`], to those alone who send this `Authorization`.
pub(crate) fn serve_to(dir: &Path, authorization: Option<String>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let dir = dir.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (dir, wanted) = (dir.clone(), authorization.clone());
            std::thread::spawn(move || answer_all(&stream, &dir, wanted.as_deref()));
        }
    });
    format!("http://{address}")
}

fn answer_all(stream: &TcpStream, dir: &Path, wanted: Option<&str>) {
    let mut requests = BufReader::new(stream);
    while let Some((path, authorization)) = next_request(&mut requests) {
        let may_see = wanted.is_none() || authorization.as_deref() == wanted;
        let body = local(dir, &path)
            .filter(|_| may_see)
            .and_then(|path| fs::read(path).ok());
        let status = match (may_see, body.is_some()) {
            (false, _) => "401 Unauthorized",
            (true, true) => "200 OK",
            (true, false) => "404 Not Found",
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

/// Reads one request and returns its path and `Authorization`; `None` at the end of the connection.
fn next_request(requests: &mut impl std::io::BufRead) -> Option<(String, Option<String>)> {
    let mut path = None;
    let mut authorization = None;
    for line in requests.lines() {
        let line = line.ok()?;
        if line.is_empty() {
            return Some((path?, authorization));
        }
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("authorization")
        {
            authorization = Some(value.to_owned());
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
