//! The program the integration tests start: enters a stage, makes a small root filesystem, runs one command in it and says what happened.
//!
//! `sandbox-probe DIR [OPTION]... -- COMMAND [ARGUMENT]...`; every report is one line with a word in front.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use kfactory_sandbox::{
    CancelToken, LaunchError, Mount, Network, OverlayMount, SandboxSpec, Status, Stdin, Stdout,
    Stream, enter, in_stage, printable, run_with,
};

/// What the root filesystem holds, with the libraries these need.
const PROGRAMS: [&str; 22] = [
    "sh", "cat", "ls", "id", "chown", "chmod", "mkdir", "rmdir", "ln", "mv", "touch", "sleep",
    "stat", "env", "hostname", "useradd", "perl", "rm", "head", "mount", "cp", "cmp",
];

fn main() -> ExitCode {
    if let [_, store, option] = &std::env::args_os().collect::<Vec<_>>()[..]
        && option == "--doctor"
    {
        for finding in kfactory_sandbox::doctor::probe(Path::new(store)) {
            say(
                finding.id,
                &format!("{} {}", finding.level.as_str(), finding.what),
            );
            finding
                .remedy
                .iter()
                .for_each(|remedy| say("remedy", remedy));
        }
        return ExitCode::SUCCESS;
    }
    if !in_stage() {
        return match enter() {
            Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(255)),
            Err(error) => {
                say("no stage", &chain(&error));
                error.hints().iter().for_each(|hint| say("hint", hint));
                ExitCode::from(70)
            }
        };
    }
    match staged(std::env::args_os().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say("error", &chain(&*error));
            ExitCode::FAILURE
        }
    }
}

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn staged(arguments: Vec<OsString>) -> Result<()> {
    let request = Request::parse(arguments)?;
    if let Some(code) = request.exit {
        std::process::exit(code);
    }
    let part = |name: &str| request.directory.join(name);
    for name in ["lower", "upper", "work", "merged"] {
        fs::create_dir_all(part(name))?;
    }
    if request.forbid_nesting {
        return nested();
    }
    let base = match &request.root {
        Some(root) => root.clone(),
        None => {
            small_root(&part("lower"))?;
            part("lower")
        }
    };
    for (link, to) in &request.links {
        std::os::unix::fs::symlink(to, part("lower").join(link))?;
    }
    for gone in &request.without {
        fs::remove_dir(part("lower").join(gone))?;
    }
    let overlay = if request.read_only {
        fs::create_dir_all(part("empty"))?;
        OverlayMount::mount_read_only(&[part("empty"), base], &part("merged"))?
    } else {
        let mut lowers = Vec::new();
        for number in 0..request.layers {
            fs::create_dir(part(&format!("layer{number}")))?;
            lowers.push(part(&format!("layer{number}")));
        }
        lowers.push(base);
        OverlayMount::mount(&lowers, &part("upper"), &part("work"), &part("merged"))?
    };
    let on_target = format!(" {} ", part("merged").display());
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    mounts
        .lines()
        .filter(|line| line.contains(&on_target))
        .for_each(|line| say("mount", line));
    let mut spec = request.spec;
    spec.root = overlay.target().to_owned();
    run_spec(&spec, request.cancel_after);
    overlay.unmount()?;
    changes(&part("upper"), &part("upper"))
}

/// Forbids further user namespaces to this one and its descendants, and tries to enter one.
fn nested() -> Result<()> {
    fs::write("/proc/sys/user/max_user_namespaces", "0")?;
    match enter() {
        Ok(_) => say("nested", "entered"),
        Err(error) => {
            say("no stage", &chain(&error));
            error.hints().iter().for_each(|hint| say("hint", hint));
        }
    }
    Ok(())
}

fn run_spec(spec: &SandboxSpec, cancel_after: Option<Duration>) {
    let token = CancelToken::new().expect("a descriptor is left");
    if let Some(delay) = cancel_after {
        let token = token.clone();
        std::thread::spawn(move || {
            std::thread::sleep(delay);
            token.cancel();
        });
    }
    let mut on_line = |stream: Stream, line: &[u8]| {
        say(
            if stream == Stream::Stdout {
                "out"
            } else {
                "err"
            },
            &printable(line),
        );
    };
    match run_with(spec, &token, &mut on_line) {
        Ok(outcome) => {
            match outcome.status {
                Status::Exit(code) => say("exit", &code.to_string()),
                Status::Signal(number) => say("signal", &number.to_string()),
            }
            say("tail", &outcome.tail.len().to_string());
            say("stdout", &outcome.stdout.escape_ascii().to_string());
            say("rss", &outcome.max_rss_bytes.to_string());
            say(
                "cpu",
                &(outcome.user_time + outcome.system_time)
                    .as_millis()
                    .to_string(),
            );
        }
        Err(error @ LaunchError::Cancelled) => say("cancelled", &error.to_string()),
        Err(error) => say("launch", &chain(&error)),
    }
}

#[derive(Debug)]
struct Request {
    directory: PathBuf,
    spec: SandboxSpec,
    links: Vec<(String, String)>,
    without: Vec<String>,
    cancel_after: Option<Duration>,
    exit: Option<i32>,
    read_only: bool,
    root: Option<PathBuf>,
    layers: usize,
    forbid_nesting: bool,
}

impl Request {
    fn parse(arguments: Vec<OsString>) -> Result<Self> {
        let mut words = arguments
            .into_iter()
            .map(|word| word.into_string().map_err(|_| "argument is not UTF-8"));
        let mut next = || {
            words
                .next()
                .transpose()
                .map(|word| word.ok_or("argument missing"))
                .and_then(|word| word)
        };
        let mut request = Self {
            directory: next()?.into(),
            spec: SandboxSpec::new("", [""; 0]),
            links: Vec::new(),
            without: Vec::new(),
            cancel_after: None,
            exit: None,
            read_only: false,
            root: None,
            layers: 0,
            forbid_nesting: false,
        };
        request.spec.env = vec![("PATH".into(), "/usr/sbin:/usr/bin".into())];
        loop {
            let option = next()?;
            match option.as_str() {
                "--" => break,
                "--exit" => request.exit = Some(next()?.parse()?),
                "--root" => request.root = Some(next()?.into()),
                "--layers" => request.layers = next()?.parse()?,
                "--forbid-nesting" => request.forbid_nesting = true,
                "--read-only" => request.read_only = true,
                "--net" => request.spec.network = Network::Host,
                "--env" => request.spec.env.push(("MARK".into(), next()?.into())),
                "--clones" => request.spec.clones = true,
                "--stdin" => request.spec.stdin = Stdin::Bytes(next()?.into()),
                "--capture" => {
                    request.spec.stdout = Stdout::Captured {
                        limit_bytes: next()?.parse()?,
                    }
                }
                "--time-limit-ms" => {
                    request.spec.time_limit = Some(Duration::from_millis(next()?.parse()?))
                }
                "--link" => request.links.push((next()?, next()?)),
                "--without" => request.without.push(next()?),
                "--cancel-ms" => {
                    request.cancel_after = Some(Duration::from_millis(next()?.parse()?))
                }
                "--file" => {
                    let (target, content) = (next()?.into(), next()?.into());
                    request.spec.mounts.push(Mount::File {
                        target,
                        content,
                        mode: 0o644,
                    });
                }
                "--bind" => {
                    let (source, target) = (next()?.into(), next()?.into());
                    request.spec.mounts.push(Mount::Bind {
                        source,
                        target,
                        read_only: false,
                    });
                }
                "--ro-bind" => {
                    let (source, target) = (next()?.into(), next()?.into());
                    request.spec.mounts.push(Mount::Bind {
                        source,
                        target,
                        read_only: true,
                    });
                }
                other => return Err(format!("unknown option {other}").into()),
            }
        }
        while let Ok(word) = next() {
            request.spec.argv.push(word.into());
        }
        Ok(request)
    }
}

/// Copies a few programs of the host with their libraries, owned by root of the stage.
fn small_root(root: &Path) -> Result<()> {
    for directory in [
        "usr/bin", "usr/sbin", "etc", "proc", "dev", "sys", "tmp", "run", "root", "home",
    ] {
        fs::create_dir_all(root.join(directory))?;
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        std::os::unix::fs::symlink(format!("usr/{name}"), root.join(name))?;
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\n")?;
    fs::write(root.join("etc/login.defs"), "UID_MIN 1000\nUID_MAX 60000\n")?;
    let find = |program: &&str| {
        let directories = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];
        directories
            .iter()
            .map(|directory| Path::new(directory).join(program))
            .find(|path| path.exists())
    };
    let programs: Vec<PathBuf> = PROGRAMS.iter().filter_map(find).collect();
    for program in &programs {
        let name = program.file_name().unwrap_or_default();
        copy_into(
            root,
            &fs::canonicalize(program)?,
            &Path::new("/usr/bin").join(name),
        )?;
    }
    let listing = Command::new("ldd").args(&programs).output()?;
    // Lines with a colon at the end name the program.
    let text = String::from_utf8_lossy(&listing.stdout).into_owned();
    for library in text
        .split_whitespace()
        .filter(|word| word.starts_with('/') && !word.ends_with(':'))
    {
        copy_into(root, &fs::canonicalize(library)?, Path::new(library))?;
    }
    Ok(())
}

fn copy_into(root: &Path, from: &Path, to: &Path) -> Result<()> {
    // `/lib` and `/lib64` are links into `/usr` in this root.
    let to = to.strip_prefix("/")?;
    let to = if to.starts_with("usr") {
        root.join(to)
    } else {
        root.join("usr").join(to)
    };
    if to.exists() {
        return Ok(());
    }
    fs::create_dir_all(to.parent().unwrap_or(root))?;
    fs::copy(from, &to)?;
    Ok(())
}

/// Lists what the command changed.
fn changes(top: &Path, directory: &Path) -> Result<()> {
    let mut entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let metadata = entry.path().symlink_metadata()?;
        use std::os::unix::fs::MetadataExt;
        let owner = (metadata.uid(), metadata.gid());
        say(
            "change",
            &format!(
                "{} {}:{}",
                entry.path().strip_prefix(top)?.display(),
                owner.0,
                owner.1
            ),
        );
        if metadata.is_dir() {
            changes(top, &entry.path())?;
        }
    }
    Ok(())
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

fn say(word: &str, rest: &str) {
    let mut stdout = io::stdout().lock();
    // A test that is gone reads nothing.
    let _ = writeln!(stdout, "{word}: {rest}");
    let _ = stdout.flush();
}
