//! Tests of the build with a Go tool that is a script, and one with the real tool where there is one.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use super::super::{FrameworkSpec, resolve};
use super::*;

/// A stand-in for Go: answers as the real tool does and writes down how it was called.
struct FakeGo {
    dir: tempfile::TempDir,
}

impl FakeGo {
    /// `download` is the shell code for `go mod download`.
    fn new(download: &str) -> Self {
        let dir = tempfile::tempdir().expect("room");
        let here = dir.path().display();
        let script = format!(
            r#"#!/bin/sh
echo "$* [$GOOS/$GOARCH cgo=$CGO_ENABLED fips=$GOFIPS140 proxy=$GOPROXY flags=$GOFLAGS]" >> {here}/log
case "$1" in
env) printf 'go1.99.1\nsum.golang.org\n' ;;
mod) {download} ;;
build) while [ "$1" != -o ]; do shift; done; printf '#!/bin/sh\n: %s\n' "$PWD" > "$2" ;;
version) printf 'x: go1.99.1\n\tbuild\tGOFIPS140=v1.0.0-c2097c7c\n' ;;
esac
"#
        );
        let go = Self { dir };
        write_script(&go.path(), &script);
        go
    }

    /// A tool that finds every module, with the sums that are pinned.
    fn good() -> Self {
        let sum = |name| pins::go_sum_opt(name, pins::version(name)).expect("pinned");
        Self::new(&format!(
            r#"case "$4" in *immucore*) sum={} ;; *kairos-agent*) sum={} ;; *) sum=h1:other ;; esac
printf '{{"Dir":"/tmp","Sum":"%s"}}' "$sum""#,
            sum("immucore"),
            sum("kairos-agent")
        ))
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("go")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn context<'a>(&self) -> FrameworkContext<'a> {
        let cache = self.dir.path().join("cache");
        FrameworkContext {
            go: Some(self.path()),
            ..FrameworkContext::new(Arch::Amd64, cache)
        }
    }
}

/// Writes an executable script from another process.
///
/// In this one, a thread of another test could start a program while the file is open for writing; the child would
/// inherit it, and the script could not be run until that child has started ("Text file busy").
fn write_script(path: &Path, text: &str) {
    let mut shell = Command::new("/bin/sh")
        .args(["-c", r#"cat > "$0" && chmod 755 "$0""#])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("a shell");
    shell
        .stdin
        .take()
        .expect("piped")
        .write_all(text.as_bytes())
        .expect("room");
    assert!(shell.wait().expect("started").success());
}

fn spec(text: &str) -> FrameworkSpec {
    text.parse().expect("a good spec")
}

#[test]
fn every_component_is_built_static_for_the_image_and_only_once() {
    let go = FakeGo::good();
    let mut ctx = go.context();
    ctx.arch = Arch::Arm64;
    let framework = resolve(&spec("go"), &ctx).expect("built");
    assert_eq!(framework.files.len(), 4);
    let log = go.log();
    let builds: Vec<_> = log
        .lines()
        .filter(|line| line.starts_with("build "))
        .collect();
    assert_eq!(builds.len(), 4, "{log}");
    assert!(
        builds
            .iter()
            .all(|line| line.contains("[linux/arm64 cgo=0 fips= ")),
        "{log}"
    );
    assert!(
        builds[1].contains("-X github.com/kairos-io/immucore/internal/version.version=v0.20.4"),
        "{log}"
    );
    assert!(builds[1].contains("-tags nogit,nounpack"), "{log}");
    assert!(
        log.contains("mod download -json github.com/kairos-io/kairos-challenger@v0.13.4"),
        "{log}"
    );

    assert_eq!(
        resolve(&spec("go"), &ctx).expect("kept"),
        resolve(&spec("go"), &ctx).expect("kept")
    );
    assert_eq!(go.log().matches("build ").count(), 4);
}

#[test]
fn pins_and_the_checksum_database_vouch_each_for_theirs() {
    let go = FakeGo::good();
    let framework = resolve(&spec("go"), &go.context()).expect("built");
    let verified = |name| {
        framework
            .files
            .iter()
            .find(|f| f.component == name)
            .expect("there")
            .verified
    };
    assert_eq!(verified("immucore"), Verified::Pin);
    assert_eq!(verified("kairos-installer"), Verified::GoChecksumDatabase);
}

#[test]
fn a_module_that_is_not_the_pinned_one_is_not_built() {
    let go = FakeGo::new(r#"printf '{"Dir":"/tmp","Sum":"h1:forged"}'"#);
    let error = resolve(&spec("go"), &go.context()).expect_err("forged");
    assert!(
        matches!(&error, FrameworkError::Checksum { found, .. } if found == "h1:forged"),
        "{error}"
    );
    assert!(!go.log().contains("build "));
}

#[test]
fn a_module_that_cannot_be_fetched_says_so_and_how_to_do_without() {
    let go = FakeGo::new(r#"echo '{"Error": "reading https://proxy: 403 Forbidden"}'; exit 1"#);
    let error = resolve(&spec("go"), &go.context()).expect_err("not there");
    let text = error.to_string();
    assert!(
        text.contains(
            "mod download -json github.com/kairos-io/kairos-agent/v2@v2.31.4` exited with status 1"
        ),
        "{text}"
    );
    assert!(text.contains("403 Forbidden"), "{text}");
    assert!(
        error.hints().iter().any(|hint| hint.contains("NAME=none")),
        "{:?}",
        error.hints()
    );
}

#[test]
fn offline_uses_the_module_cache_for_what_is_pinned_and_nothing_else() {
    let go = FakeGo::good();
    let ctx = FrameworkContext {
        offline: true,
        ..go.context()
    };
    resolve(&spec("go:kcrypt=none,installer=none"), &ctx).expect("pinned");
    assert!(
        go.log().lines().all(|line| line.contains("proxy=off")),
        "{}",
        go.log()
    );
    let error = resolve(&spec("go"), &ctx).expect_err("not pinned");
    assert!(
        matches!(error, FrameworkError::Unverifiable { .. }),
        "{error}"
    );
}

#[test]
fn a_fips_build_is_another_build() {
    let go = FakeGo::good();
    let mut ctx = go.context();
    let spec = spec("go:kcrypt=none,installer=none");
    resolve(&spec, &ctx).expect("built");
    ctx.fips = true;
    resolve(&spec, &ctx).expect("built");
    let log = go.log();
    assert_eq!(
        log.lines()
            .filter(|l| l.starts_with("build ") && l.contains("fips=v1.0.0"))
            .count(),
        2,
        "{log}"
    );
    assert_eq!(log.matches("build ").count(), 4, "{log}");
}

#[test]
fn a_fips_build_by_a_go_that_knows_no_fips_is_refused() {
    let go = FakeGo::good();
    let script = fs::read_to_string(go.path())
        .expect("there")
        .replace("GOFIPS140=v1.0.0-", "-trimpath=");
    write_script(&go.path(), &script);
    let ctx = FrameworkContext {
        fips: true,
        ..go.context()
    };
    let error = resolve(&spec("go"), &ctx).expect_err("no module");
    assert!(
        matches!(error, FrameworkError::NoFipsModule { .. }),
        "{error}"
    );
}

#[test]
fn a_go_tool_that_is_not_there_or_talks_nonsense_is_reported() {
    let go = FakeGo::good();
    let mut ctx = go.context();
    ctx.go = Some("/nonexistent/go".into());
    let error = resolve(&spec("go"), &ctx).expect_err("no tool");
    assert!(matches!(error, FrameworkError::NoGo { .. }), "{error}");
    write_script(&go.path(), "#!/bin/sh\necho ../../evil\n");
    let error = resolve(&spec("go"), &go.context()).expect_err("nonsense");
    assert!(matches!(error, FrameworkError::GoAnswer { .. }), "{error}");
}

/// Builds the real programs: a minute the first time, so only where it is asked for.
#[test]
#[allow(clippy::print_stdout, reason = "a test that stays away says so")]
fn the_real_go_tool_builds_programs_that_know_their_version() {
    if std::env::var_os("KFACTORY_TEST_GO").is_none() {
        println!(
            "skipped: KFACTORY_TEST_GO is not set (the end-to-end tests build the same programs)"
        );
        return;
    }
    let cache = tempfile::tempdir().expect("room");
    let ctx = FrameworkContext::new(Arch::Amd64, cache.path());
    let framework = resolve(&spec("go:kcrypt=none,installer=none"), &ctx).expect("built");
    for file in &framework.files {
        assert_eq!(file.verified, Verified::Pin);
        let answer = Command::new(&file.source)
            .arg("version")
            .output()
            .expect("runs on this machine");
        let text = String::from_utf8_lossy(&answer.stdout).into_owned()
            + &String::from_utf8_lossy(&answer.stderr);
        assert!(
            text.contains(file.version.as_deref().expect("built by version")),
            "{text}"
        );
    }
}
