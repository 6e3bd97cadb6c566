//! Credential helpers are found by `PATH`, so this same program is started again with one of the test's own.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use kfactory::registry::{Reference, RegistryOptions};

use crate::support::{PASSWORD, Server, USER, client, missing, skip};

/// Set to the registry to ask, in the program started again.
const ASK: &str = "KFACTORY_TEST_HELPER_FOR";

#[test]
fn a_credential_helper_is_asked_once_and_its_answer_opens_the_registry() {
    if let Some(reason) = missing(&["docker-registry"]) {
        return skip(&reason);
    }
    let server = Server::with_password();
    let script = format!(
        "#!/bin/sh\nread -r server\necho \"$1 $server\" >> \"${{0%/*}}/asked\"\n\
         echo '{{\"ServerURL\":\"x\",\"Username\":\"{USER}\",\"Secret\":\"{PASSWORD}\"}}'\n"
    );
    let program = server.file("docker-credential-test");
    std::fs::write(&program, script).expect("written");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))
        .expect("made executable");
    std::fs::write(
        server.file("auth.json"),
        r#"{"auths":{},"credsStore":"test"}"#,
    )
    .expect("written");

    let path = format!(
        "{}:{}",
        server.dir.path().display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let status = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "helper::the_program_started_again_pushes"])
        .env(ASK, &server.name)
        .env("PATH", path)
        .env("REGISTRY_AUTH_FILE", server.file("auth.json"))
        .stdout(std::process::Stdio::null())
        .status();
    assert!(status.expect("started").success());
    let asked = std::fs::read_to_string(server.file("asked")).expect("the helper ran");
    assert_eq!(asked, format!("get {}\n", server.name));
}

#[tokio::test]
async fn the_program_started_again_pushes() {
    let Ok(registry) = std::env::var(ASK) else {
        return;
    };
    let authfile = std::env::var_os("REGISTRY_AUTH_FILE").map(Into::into);
    let client = client(RegistryOptions {
        authfile,
        ..Default::default()
    });
    for repository in ["a", "a"] {
        let to = Reference::parse(&format!("{registry}/{repository}:1")).expect("valid");
        client
            .check_push(&to)
            .await
            .expect("the helper's password opens it");
    }
}
