//! The proof that an image can run in FIPS mode: kernel, initrd and Kairos binaries, looked at as they stand.

use std::io::Read as _;

use kfactory_layers::root::Root;

use super::{Environment, kernel};
use crate::error::{Context as _, Error, Kind, Result};
use crate::framework::COMPONENTS;

/// A program of the framework has at most some 100 MB.
const MAX_PROGRAM: u64 = 512 << 20;

/// What a program says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Build {
    /// It holds the FIPS module of Go, or BoringCrypto.
    Fips,
    /// It was built by Go and holds neither.
    Plain,
    /// It does not say: packed, or no Go program.
    Unknown,
}

/// Stops the conversion where something is certainly no FIPS build; warns where that cannot be told.
pub(super) fn prove(env: &Environment<'_>, root: &Root) -> Result<()> {
    let mut found = Vec::new();
    let mut wrong = Vec::new();
    if env.request.kernel != "none" {
        check_kernel(env, root, &mut found, &mut wrong)?;
    }
    check_programs(env, root, &mut found, &mut wrong)?;
    env.finding(format!("FIPS: {}", found.join("; ")));
    if wrong.is_empty() {
        return Ok(());
    }
    let error = Error::new(Kind::User, "the image would not run in FIPS mode");
    Err(wrong
        .into_iter()
        .fold(error, |error, why| error.context_below(why)))
}

fn check_kernel(
    env: &Environment<'_>,
    root: &Root,
    found: &mut Vec<String>,
    wrong: &mut Vec<String>,
) -> Result<()> {
    let version = kernel::choose(env, root)?;
    let mut config = None;
    for path in [
        format!("/boot/config-{version}"),
        format!("/usr/lib/modules/{version}/config"),
    ] {
        if config.is_none() {
            config = root.read_to_string_opt(&path)?;
        }
    }
    match config {
        Some(text) if text.lines().any(|line| line == "CONFIG_CRYPTO_FIPS=y") => {
            found.push(format!("kernel {version} has the FIPS mode"));
        }
        Some(_) => wrong.push(format!("kernel {version} is built without CONFIG_CRYPTO_FIPS")),
        None => env.reporter.warn(&format!("kernel {version} does not say how it is configured: whether it has the FIPS mode cannot be told")),
    }
    let hmac = [
        format!("/boot/.vmlinuz-{version}.hmac"),
        format!("/usr/lib/modules/{version}/.vmlinuz.hmac"),
        "/boot/.vmlinuz.hmac".to_owned(),
    ];
    for path in &hmac {
        if let Some(text) = root.read_to_string_opt(path)? {
            if is_hmac(&text) {
                found.push(format!("the kernel's checksum is {path}"));
            } else {
                wrong.push(format!("{path} holds no checksum"));
            }
            return Ok(());
        }
    }
    wrong.push(format!(
        "kernel {version} has no checksum ({}), and the initrd stops the boot without one",
        hmac[0]
    ));
    Ok(())
}

/// Tells whether a text is what `sha512hmac` writes: hexadecimal digits, blanks, a name.
fn is_hmac(text: &str) -> bool {
    let digits = text.split_ascii_whitespace().next().unwrap_or_default();
    matches!(digits.len(), 64 | 128) && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn check_programs(
    env: &Environment<'_>,
    root: &Root,
    found: &mut Vec<String>,
    wrong: &mut Vec<String>,
) -> Result<()> {
    for component in COMPONENTS.iter().filter(|component| component.has_fips) {
        let Some(file) = root.open_file_opt(component.target)? else {
            continue;
        };
        let mut content = Vec::new();
        file.take(MAX_PROGRAM)
            .read_to_end(&mut content)
            .context(|| format!("reading {}", component.target))?;
        match build_of(&content) {
            Build::Fips => found.push(format!("{} is a FIPS build", component.name)),
            Build::Plain => wrong.push(format!("{} is no FIPS build", component.target)),
            Build::Unknown => env.reporter.warn(&format!(
                "{} does not say how it was built: whether it is a FIPS build cannot be told",
                component.target
            )),
        }
    }
    Ok(())
}

/// Reads what Go writes into every program it builds: settings as lines, `build`, tab, `NAME=VALUE`.
fn build_of(program: &[u8]) -> Build {
    let holds = |needle: &[u8]| program.windows(needle.len()).any(|window| window == needle);
    let native = find_setting(program, b"build\tGOFIPS140=")
        .is_some_and(|value| value != b"off" && value != b"latest");
    let boring = find_setting(program, b"build\tGOEXPERIMENT=")
        .is_some_and(|value| value.windows(12).any(|window| window == b"boringcrypto"));
    if native || boring {
        Build::Fips
    } else if holds(b"\xff Go buildinf:") && holds(b"build\t-compiler=") {
        Build::Plain
    } else {
        Build::Unknown
    }
}

/// Returns the value of the first setting that begins with `key`, up to the end of its line.
fn find_setting<'a>(program: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let start = program
        .windows(key.len())
        .position(|window| window == key)?
        + key.len();
    let rest = &program[start..];
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    Some(&rest[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_go_program_says_whether_it_is_a_fips_build() {
        let program = |settings: &str| {
            let mut bytes = b"\x7fELF...\xff Go buildinf:\x08\x02".to_vec();
            bytes.extend(
                format!("path\tx\nbuild\t-compiler=gc\n{settings}build\tGOOS=linux\n").bytes(),
            );
            bytes
        };
        for (settings, expected) in [
            ("build\tGOFIPS140=v1.0.0-c2097c7c\n", Build::Fips),
            ("build\tGOEXPERIMENT=boringcrypto\n", Build::Fips),
            ("build\tGOFIPS140=off\n", Build::Plain),
            // The module in development is no certified one.
            ("build\tGOFIPS140=latest\n", Build::Plain),
            ("", Build::Plain),
        ] {
            assert_eq!(build_of(&program(settings)), expected, "{settings}");
        }
        assert_eq!(build_of(b"\x7fELF packed"), Build::Unknown);
    }

    #[test]
    fn a_checksum_is_digits_and_nothing_else() {
        assert!(is_hmac(&format!(
            "{}  /boot/vmlinuz-6.1\n",
            "a1".repeat(64)
        )));
        assert!(!is_hmac("") && !is_hmac("not a checksum") && !is_hmac(&"g".repeat(128)));
    }
}
