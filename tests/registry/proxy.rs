//! Proxies come from the environment, so the requests are made by this same program started again.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::{Arc, Mutex};

use kfactory::registry::{Reference, RegistryOptions};

use crate::support::client;

/// Set to the registry to ask in the program started again.
const ASK: &str = "KFACTORY_TEST_ASK";

/// Answers every request with "not found" and notes its first line.
fn proxy() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = format!("http://{}", listener.local_addr().expect("bound"));
    let lines = Arc::new(Mutex::new(Vec::new()));
    let noted = lines.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut head = [0; 4096];
            let read = stream.read(&mut head).unwrap_or(0);
            let text = String::from_utf8_lossy(&head[..read]).into_owned();
            noted
                .lock()
                .expect("whole")
                .extend(text.lines().next().map(str::to_owned));
            let _ = stream
                .write_all(b"HTTP/1.1 404 x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    (address, lines)
}

/// Returns what a proxy sees of a pull from `registry`.
fn seen_of(registry: &str) -> Vec<String> {
    let (address, lines) = proxy();
    let status = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "proxy::the_program_started_again_pulls"])
        .env(ASK, registry)
        .env("HTTP_PROXY", &address)
        .env("HTTPS_PROXY", &address)
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .stdout(std::process::Stdio::null())
        .status();
    assert!(status.expect("started").success());
    let lines = lines.lock().expect("whole");
    lines.clone()
}

#[test]
fn a_proxy_carries_other_hosts_and_never_loopback() {
    let seen = seen_of("registry.invalid");
    assert!(
        seen.iter()
            .any(|line| line.starts_with("CONNECT registry.invalid:443")),
        "{seen:?}"
    );
    assert!(
        seen.iter()
            .any(|line| line.contains("http://registry.invalid/v2/a/manifests/1")),
        "{seen:?}"
    );
    for registry in ["127.0.0.1:1", "localhost:1", "[::1]:1"] {
        assert_eq!(seen_of(registry), [] as [&str; 0], "{registry}");
    }
}

#[tokio::test]
async fn the_program_started_again_pulls() {
    let Ok(registry) = std::env::var(ASK) else {
        return;
    };
    let options = RegistryOptions {
        insecure_registries: vec![registry.clone()],
        ..Default::default()
    };
    let reference = Reference::parse(&format!("{registry}/a:1")).expect("valid");
    client(options)
        .fetch_manifest(&reference)
        .await
        .expect_err("nobody has it");
}
