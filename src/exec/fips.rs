//! The proof that an image can run in FIPS mode: kernel, initrd and Kairos binaries, looked at as they stand.

use std::io::{BufReader, Read as _};

use kfactory_layers::root::Root;
use kfactory_sandbox::CancelToken;

use super::{Environment, kernel};
use crate::error::{Context as _, Error, Kind, Result};
use crate::framework::{COMPONENTS, MAX_PROGRAM_BYTES};
use crate::initrd::Initrd;

/// What was found: for FIPS mode, against it, and what cannot be told.
#[derive(Debug, Default)]
struct Findings {
    good: Vec<String>,
    bad: Vec<String>,
    unsure: Vec<String>,
}

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
    let mut findings = Findings::default();
    if !env.request.has_no_kernel() {
        findings.kernel(root, &kernel::choose(env, root)?)?;
    }
    if !env.request.trusted && root.exists("/boot/initrd")? {
        findings.initrd(root, Some(&env.cancel))?;
    }
    findings.programs(root)?;
    env.finding(format!("FIPS: {}", findings.good.join("; ")));
    for text in &findings.unsure {
        env.finding(format!("warning: FIPS: {text}"));
    }
    if findings.bad.is_empty() {
        return Ok(());
    }
    let error = Error::new(Kind::User, "the image would not run in FIPS mode");
    let reasons = findings.bad.into_iter();
    Err(reasons.fold(error, |error, why| error.context_below(why)))
}

impl Findings {
    fn kernel(&mut self, root: &Root, version: &str) -> Result<()> {
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
                self.good.push(format!("kernel {version} has the FIPS mode"));
            }
            Some(_) => self.bad.push(format!(
                "kernel {version} is built without CONFIG_CRYPTO_FIPS"
            )),
            None => self.unsure.push(format!(
                "kernel {version} does not say how it is configured, so whether it has the FIPS mode cannot be told"
            )),
        }
        self.checksum(root, version)
    }

    /// The initrd compares the kernel with it before anything else, and stops the boot without one.
    fn checksum(&mut self, root: &Root, version: &str) -> Result<()> {
        let paths = [
            format!("/boot/.vmlinuz-{version}.hmac"),
            format!("/usr/lib/modules/{version}/.vmlinuz.hmac"),
        ];
        for path in &paths {
            if let Some(text) = root.read_to_string_opt(path)? {
                if is_checksum(&text) {
                    self.good.push(format!("the kernel's checksum is {path}"));
                } else {
                    self.bad.push(format!("{path} holds no checksum"));
                }
                return Ok(());
            }
        }
        self.bad.push(format!(
            "kernel {version} has no checksum in {}: it is no FIPS kernel",
            paths[0]
        ));
        Ok(())
    }

    fn initrd(&mut self, root: &Root, stop: Option<&CancelToken>) -> Result<()> {
        let Some(file) = root.open_file_opt("/boot/initrd")? else {
            return Ok(());
        };
        let initrd =
            Initrd::read(BufReader::new(file), stop).context(|| "reading /boot/initrd".into())?;
        // dracut's module: the script that checks the kernel, and the list of modules whose self-tests it starts.
        if initrd.has_ending("sbin/fips.sh") || initrd.has_ending("etc/fipsmodules") {
            self.good
                .push("the initrd holds dracut's fips module".into());
        } else {
            self.bad
                .push("the initrd holds no fips module of dracut".into());
        }
        let names = initrd.entries.keys();
        let count = names.filter(|name| name.ends_with(".hmac")).count();
        self.good
            .push(format!("the initrd holds {count} checksums of libraries"));
        Ok(())
    }

    fn programs(&mut self, root: &Root) -> Result<()> {
        for component in COMPONENTS.iter().filter(|component| component.has_fips) {
            let Some(file) = root.open_file_opt(component.target)? else {
                continue;
            };
            let mut content = Vec::new();
            file.take(MAX_PROGRAM_BYTES)
                .read_to_end(&mut content)
                .context(|| format!("reading {}", component.target))?;
            let target = component.target;
            match build_of(&content) {
                Build::Fips => self.good.push(format!("{target} is a FIPS build")),
                Build::Plain => self.bad.push(format!("{target} is no FIPS build")),
                Build::Unknown => self.unsure.push(format!(
                    "{target} does not say how it was built, so whether it is a FIPS build cannot be told"
                )),
            }
        }
        Ok(())
    }
}

/// Tells whether a text is what `sha512hmac` writes: hexadecimal digits, blanks, a name.
fn is_checksum(text: &str) -> bool {
    let digits = text.split_ascii_whitespace().next().unwrap_or_default();
    matches!(digits.len(), 64 | 128) && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Reads what Go writes into every program it builds: settings as lines, `build`, tab, `NAME=VALUE`.
fn build_of(program: &[u8]) -> Build {
    // `latest` is the module in development, which nobody has certified.
    let native = setting(program, b"build\tGOFIPS140=")
        .is_some_and(|value| value != b"off" && value != b"latest");
    let boring = setting(program, b"build\tGOEXPERIMENT=")
        .is_some_and(|value| position(value, b"boringcrypto").is_some());
    if native || boring {
        Build::Fips
    } else if position(program, b"build\t-compiler=").is_some() {
        Build::Plain
    } else {
        Build::Unknown
    }
}

/// Returns the value of the first setting that begins with `key`, up to the end of its line.
fn setting<'a>(program: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let rest = &program[position(program, key)? + key.len()..];
    rest.split(|byte| *byte == b'\n').next()
}

fn position(text: &[u8], word: &[u8]) -> Option<usize> {
    text.windows(word.len()).position(|window| window == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHECKSUM: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn program(settings: &str) -> Vec<u8> {
        let text = format!("path\tx\nbuild\t-compiler=gc\n{settings}build\tGOOS=linux\n");
        [b"\x7fELF\x00\xff Go buildinf:\x08\x02", text.as_bytes()].concat()
    }

    #[test]
    fn a_go_program_says_whether_it_is_a_fips_build() {
        for (settings, expected) in [
            ("build\tGOFIPS140=v1.0.0-c2097c7c\n", Build::Fips),
            ("build\tGOEXPERIMENT=boringcrypto\n", Build::Fips),
            ("build\tGOFIPS140=off\n", Build::Plain),
            ("build\tGOFIPS140=latest\n", Build::Plain),
            ("", Build::Plain),
        ] {
            assert_eq!(build_of(&program(settings)), expected, "{settings}");
        }
        assert_eq!(build_of(b"\x7fELF packed"), Build::Unknown);
    }

    fn tree(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Findings) {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let root = Root::open(dir.path()).unwrap();
        let mut findings = Findings::default();
        findings.kernel(&root, "6.1").unwrap();
        findings.initrd(&root, None).unwrap();
        findings.programs(&root).unwrap();
        (dir, findings)
    }

    #[test]
    fn an_image_with_all_of_it_is_proven() {
        let initrd = crate::initrd::archive(&[
            ("usr/sbin/fips.sh", 0o100_755, b"x"),
            ("usr/lib/.a.hmac", 0o100_644, b"x"),
        ]);
        let (_dir, findings) = tree(&[
            ("boot/config-6.1", b"CONFIG_CRYPTO_FIPS=y\n"),
            (
                "boot/.vmlinuz-6.1.hmac",
                format!("{CHECKSUM}  vmlinuz-6.1\n").as_bytes(),
            ),
            ("boot/initrd", &initrd),
            (
                "usr/bin/immucore",
                &program("build\tGOFIPS140=v1.0.0-c2097c7c\n"),
            ),
            ("usr/bin/kairos-agent", b"packed"),
        ]);
        assert!(findings.bad.is_empty(), "{findings:?}");
        assert_eq!(findings.unsure.len(), 1, "{findings:?}");
        assert!(findings.unsure[0].contains("kairos-agent"));
        assert!(
            findings
                .good
                .iter()
                .any(|text| text.contains("1 checksums")),
            "{findings:?}"
        );
    }

    #[test]
    fn each_missing_part_is_a_reason_of_its_own() {
        let initrd = crate::initrd::archive(&[("usr/sbin/init", 0o100_755, b"x")]);
        let (_dir, findings) = tree(&[
            ("boot/config-6.1", b"# CONFIG_CRYPTO_FIPS is not set\n"),
            ("boot/.vmlinuz-6.1.hmac", b"garbage"),
            ("boot/initrd", &initrd),
            ("usr/bin/immucore", &program("")),
        ]);
        let bad = findings.bad.join("\n");
        for words in [
            "CONFIG_CRYPTO_FIPS",
            "holds no checksum",
            "no fips module",
            "immucore is no FIPS build",
        ] {
            assert!(bad.contains(words), "no {words:?} in:\n{bad}");
        }
    }
}
