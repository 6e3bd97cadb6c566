//! For tests: programs that read what the writers here make, and know nothing of them.

use std::process::Command;

/// Runs `program` and returns what it says on both outputs; `None`, with a line that says so, where it is not installed.
///
/// Panics when it ends with anything but 0.
pub(crate) fn judge(program: &str, args: &[&str]) -> Option<String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new(program)
        .args(args)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC")
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            skip(&format!("`{program}` is not installed"));
            return None;
        }
        Err(error) => panic!("{program}: {error}"),
    };
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(
        output.status.success(),
        "{program} {args:?}: {}\n{said}",
        output.status
    );
    Some(said)
}

/// Says why a test stays away; panics where none may (`KFACTORY_NO_SKIP`).
#[expect(clippy::print_stderr, reason = "a test that stays away says so")]
pub(crate) fn skip(why: &str) {
    assert!(
        std::env::var_os("KFACTORY_NO_SKIP").is_none(),
        "skipped: {why}"
    );
    eprintln!("skipped: {why}");
}

/// Returns what a console shows, without escape sequences (`ESC [ ... letter`) and control characters.
pub(crate) fn plain(bytes: &[u8]) -> String {
    let mut text = String::new();
    let shown = String::from_utf8_lossy(bytes);
    let mut chars = shown.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            chars.find(char::is_ascii_alphabetic);
        } else if c == '\n' || !c.is_control() {
            text.push(c);
        }
    }
    text
}
