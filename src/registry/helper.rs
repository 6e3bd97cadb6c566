//! Asks docker's credential helpers: programs named `docker-credential-NAME`.

use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::auth::{Credential, Secret};
use super::error::printable;

/// A helper may ask its user for a password; one that takes longer has nobody to ask.
const PATIENCE: Duration = Duration::from_secs(30);

/// The user a helper names when its secret is an identity token.
const TOKEN_USER: &str = "<token>";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Runs `docker-credential-NAME get` for `server`; `None` when the helper knows nothing about it.
///
/// The error is one line without secrets.
pub(super) async fn get(name: &str, server: &str) -> Result<Option<Credential>, String> {
    let plain = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if !plain || name.is_empty() {
        return Err("its name is not letters, digits, `-`, `_` and `.`".to_owned());
    }
    let program = format!("docker-credential-{name}");
    let output = tokio::time::timeout(PATIENCE, run(&program, server)).await;
    let output = output.map_err(|_| format!("no answer within {} seconds", PATIENCE.as_secs()))?;
    read(&output.map_err(|error| error.to_string())?)
}

async fn run(program: &str, server: &str) -> std::io::Result<std::process::Output> {
    let mut command = Command::new(program);
    command
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that fails before reading breaks the pipe; its own words say more than that.
        let _ = stdin.write_all(format!("{server}\n").as_bytes()).await;
    }
    child.wait_with_output().await
}

fn read(output: &std::process::Output) -> Result<Option<Credential>, String> {
    if !output.status.success() {
        // Helpers write their errors to standard output.
        let said = printable(String::from_utf8_lossy(&output.stdout).trim());
        if said.contains("credentials not found") {
            return Ok(None);
        }
        return Err(format!("{}: {said}", output.status));
    }
    let answer: Answer = serde_json::from_slice(&output.stdout)
        .map_err(|_| "its answer is not the expected JSON")?;
    let secret = Secret::new(answer.secret);
    Ok(Some(match answer.username.as_str() {
        TOKEN_USER => Credential::Identity(secret),
        _ => Credential::Basic {
            user: answer.username,
            password: secret,
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    fn output(code: i32, stdout: &str) -> std::process::Output {
        let status = std::process::ExitStatus::from_raw(code << 8);
        std::process::Output {
            status,
            stdout: stdout.into(),
            stderr: Vec::new(),
        }
    }

    #[test]
    fn answers_are_passwords_tokens_or_nothing() {
        let password = read(&output(
            0,
            r#"{"ServerURL":"x","Username":"u","Secret":"s"}"#,
        ));
        assert!(matches!(password, Ok(Some(Credential::Basic { user, .. })) if user == "u"));
        let token = read(&output(0, r#"{"Username":"<token>","Secret":"s"}"#));
        assert!(matches!(token, Ok(Some(Credential::Identity(_)))));
        assert!(matches!(
            read(&output(1, "credentials not found in native keychain\n")),
            Ok(None)
        ));
        assert!(read(&output(1, "no bus")).is_err_and(|problem| problem.ends_with("no bus")));
        assert!(read(&output(0, "hunter2")).is_err_and(|problem| !problem.contains("hunter2")));
    }

    #[tokio::test]
    async fn a_missing_helper_is_a_problem_and_a_name_with_a_slash_is_never_run() {
        assert!(get("kfactory-no-such-helper", "quay.io").await.is_err());
        assert!(
            get("../../bin/true", "quay.io")
                .await
                .is_err_and(|problem| problem.contains("name"))
        );
    }
}
