//! The framework built from its Go modules with the Go tool of this machine.
//!
//! `go install MODULE@VERSION` is not used: it refuses modules with replacements, and asks for the list of all versions,
//! which a frozen mirror does not have. Instead the module is downloaded by its version and built in its own directory,
//! with its own `go.sum`, which is what upstream's release does.
//!
//! The module itself is verified by a pin of ours or by the Go checksum database, its dependencies by its `go.sum`.
//! Builds are reproducible: paths are trimmed, and settings of the user that change the code are not passed on.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::cache::{Kept, Slot, hex};
use super::component::{self, Arch, Component, Variant};
use super::spec::{Choice, Versions};
use super::{Event, Framework, FrameworkContext, FrameworkError, Verified, pins, tree};

/// Where Go is when it is not in `PATH`: its own archive, Debian's package.
const USUAL_PLACES: [&str; 2] = ["/usr/local/go/bin/go", "/usr/lib/go/bin/go"];
/// The frozen Go Cryptographic Module that FIPS builds link.
///
/// Not `GOEXPERIMENT=boringcrypto`, as upstream's releases have it: BoringCrypto is C, and without cgo that setting leaves
/// only its name in the program.
const FIPS_MODULE: &str = "v1.0.0";
/// Lines of the Go tool's output that an error shows.
const SHOWN_LINES: usize = 12;
/// Matches no module path, so that every module is looked up in the checksum database. An empty value would let the
/// user's settings file decide.
const NO_MODULE: &str = "none.invalid";

/// The Go tool, and the environment for all its commands.
#[derive(Debug)]
struct Go {
    program: PathBuf,
    /// Such as `go1.26.8`.
    version: String,
    arch: Arch,
    offline: bool,
    has_checksum_database: bool,
}

/// One program to build.
#[derive(Debug)]
struct Job {
    component: &'static Component,
    version: String,
    fips: bool,
}

/// What `go mod download -json` writes. On failure it has `Error` instead of the rest.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Module {
    dir: PathBuf,
    sum: String,
    error: String,
}

/// Builds every component of the image's variant, one after the other: one build already uses all cores.
pub(super) fn resolve(
    versions: &Versions,
    ctx: &FrameworkContext<'_>,
) -> Result<Framework, FrameworkError> {
    let go = Go::find(ctx)?;
    let mut files = Vec::new();
    for component in component::of_variant(ctx.variant) {
        let Choice::Version(version) = versions.choice(component) else {
            continue;
        };
        let job = Job {
            component,
            version,
            fips: component.wants_fips(ctx.fips),
        };
        let kept = go.kept_or_built(&job, ctx)?;
        files.push(tree::file_of(component, &job.version, kept));
    }
    super::assemble(files, "the build", ctx)
}

/// Returns the modules with their versions, without asking anybody.
pub(super) fn modules(versions: &Versions, variant: Variant) -> Vec<String> {
    component::of_variant(variant)
        .filter_map(|component| match versions.choice(component) {
            Choice::Version(version) => Some(format!("{}@{version}", component.go.module)),
            Choice::LeftOut => None,
        })
        .collect()
}

impl Job {
    /// Returns the linker's flags: no symbols, and the version, as upstream sets it.
    fn ldflags(&self) -> String {
        match self.component.go.version_variable {
            Some(variable) => format!("-s -w -X {variable}={}", self.version),
            None => "-s -w".into(),
        }
    }

    fn module_at_version(&self) -> String {
        format!("{}@{}", self.component.go.module, self.version)
    }

    fn pin_opt(&self) -> Option<&'static str> {
        pins::go_sum_opt(self.component.name, &self.version)
    }

    /// Names the build. Everything that decides the program's bytes is in it; the recipe of the build by its hash.
    fn slot(&self, go: &Go, cache_dir: &Path) -> Slot {
        let source = &self.component.go;
        let recipe = format!(
            "{} {} {} {}",
            source.module,
            source.package,
            source.tags,
            self.ldflags()
        );
        let recipe = &hex(&Sha256::digest(recipe))[..8];
        let fips = if self.fips {
            format!("-fips{FIPS_MODULE}")
        } else {
            String::new()
        };
        let (name, version) = (self.component.name, &self.version);
        Slot::new(
            cache_dir,
            "go",
            &format!(
                "{name}-{version}-linux-{}-{}{fips}-{recipe}",
                go.arch, go.version
            ),
        )
    }
}

impl Go {
    fn find(ctx: &FrameworkContext<'_>) -> Result<Self, FrameworkError> {
        let program = match &ctx.go {
            Some(program) => program.clone(),
            None => find_program()?,
        };
        let mut go = Self {
            program,
            version: String::new(),
            arch: ctx.arch,
            offline: ctx.offline,
            has_checksum_database: false,
        };
        let answer = go.run(go.command(&["env", "GOVERSION", "GOSUMDB"]))?;
        let text = String::from_utf8_lossy(&answer.stdout);
        let mut lines = text.lines().map(str::trim);
        let version = lines.next().unwrap_or("");
        // It becomes part of a file name.
        let good = version.starts_with("go")
            && version
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "._-+".contains(c));
        if !good {
            let command = format!("{} env GOVERSION", go.program.display());
            return Err(FrameworkError::GoAnswer {
                command,
                answer: version.into(),
            });
        }
        go.version = version.into();
        go.has_checksum_database = lines
            .next()
            .is_some_and(|database| !matches!(database, "" | "off"));
        Ok(go)
    }

    fn kept_or_built(&self, job: &Job, ctx: &FrameworkContext<'_>) -> Result<Kept, FrameworkError> {
        let (name, version) = (job.component.name, job.version.as_str());
        let slot = job.slot(self, &ctx.cache_dir);
        if let Some(kept) = slot.kept_opt(job.pin_opt()) {
            (ctx.progress)(Event::Cached { name, version });
            return Ok(kept);
        }
        (ctx.progress)(Event::Building { name, version });
        let workshop = slot.workshop()?;
        let (module, verified) = self.module(job)?;
        let program = workshop.path().join("built");
        self.build(job, &module.dir, &program)?;
        tree::check_program(&program, self.arch)?;
        let kept = slot.keep(workshop, &program, verified, &module.sum)?;
        (ctx.progress)(Event::Ready {
            name,
            version,
            verified,
        });
        Ok(kept)
    }

    /// Downloads the module, or finds it in the module cache, and verifies it.
    fn module(&self, job: &Job) -> Result<(Module, Verified), FrameworkError> {
        let name = job.module_at_version();
        let pin = job.pin_opt();
        if pin.is_none() && (self.offline || !self.has_checksum_database) {
            let reason = if self.offline {
                "its module is not pinned, and the Go checksum database may not be asked"
            } else {
                "its module is not pinned, and `GOSUMDB` is off"
            };
            let (component, version) = (job.component.name, job.version.clone());
            return Err(FrameworkError::Unverifiable {
                component,
                version,
                reason: reason.into(),
            });
        }
        let mut command = self.command(&["mod", "download", "-json", &name]);
        if pin.is_some() {
            // The pin is the stronger witness, and works where the database cannot be reached.
            command.env("GONOSUMDB", job.component.go.module);
        }
        let module = self.download(command)?;
        match pin {
            Some(pin) if pin != module.sum => Err(FrameworkError::Checksum {
                what: name,
                expected: pin.into(),
                origin: "pinned by kfactory".into(),
                found: module.sum,
            }),
            Some(_) => Ok((module, Verified::Pin)),
            None => Ok((module, Verified::GoChecksumDatabase)),
        }
    }

    /// Runs `go mod download -json`, which tells of failures in its answer.
    fn download(&self, mut command: Command) -> Result<Module, FrameworkError> {
        let shown = shown(&command);
        let output = self.start(&mut command)?;
        let module: Module = serde_json::from_slice(&output.stdout).unwrap_or_default();
        if !module.error.is_empty() {
            return Err(FrameworkError::Go {
                command: shown,
                status: status(&output),
                stderr: module.error,
            });
        }
        if !output.status.success() {
            return Err(failed(shown, &output));
        }
        if module.sum.is_empty() || !module.dir.is_dir() {
            let answer = String::from_utf8_lossy(&output.stdout).into_owned();
            return Err(FrameworkError::GoAnswer {
                command: shown,
                answer,
            });
        }
        Ok(module)
    }

    fn build(&self, job: &Job, module_dir: &Path, program: &Path) -> Result<(), FrameworkError> {
        let source = &job.component.go;
        let ldflags = job.ldflags();
        let mut command = self.command(&[
            "build",
            "-trimpath",
            "-buildvcs=false",
            "-mod=readonly",
            "-ldflags",
            &ldflags,
        ]);
        command
            .args(["-tags", source.tags])
            .arg("-o")
            .arg(program)
            .arg(source.package);
        command
            .current_dir(module_dir)
            .env("CGO_ENABLED", "0")
            .env("GOOS", "linux")
            .env("GOARCH", self.arch.as_str());
        if job.fips {
            command.env("GOFIPS140", FIPS_MODULE);
        }
        self.run(command)?;
        if job.fips {
            self.check_fips(program)
        } else {
            Ok(())
        }
    }

    /// Checks that the frozen cryptographic module is really in the program: old Go versions ignore the setting.
    fn check_fips(&self, program: &Path) -> Result<(), FrameworkError> {
        let mut command = self.command(&["version", "-m"]);
        command.arg(program);
        let shown = shown(&command);
        let answer = String::from_utf8_lossy(&self.run(command)?.stdout).into_owned();
        let setting = format!("GOFIPS140={FIPS_MODULE}");
        if answer.contains(&setting) {
            return Ok(());
        }
        Err(FrameworkError::NoFipsModule {
            command: shown,
            setting,
        })
    }

    /// Returns a command in an environment where only the modules' origin and the caches are the user's choice.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).stdin(std::process::Stdio::null());
        for variable in [
            "GOAMD64",
            "GOARM64",
            "GORISCV64",
            "GOEXPERIMENT",
            "GOFIPS140",
            "GODEBUG",
        ] {
            command.env_remove(variable);
        }
        command
            .env("GOWORK", "off")
            .env("GOFLAGS", "-mod=mod")
            .env("GONOSUMDB", NO_MODULE);
        // Outside any module, so that one around the current directory has no say.
        command.current_dir("/");
        if std::env::var_os("GOTOOLCHAIN").is_none() {
            // Distributions ship Go with `local`, which fails where a module asks for a newer Go.
            command.env("GOTOOLCHAIN", "auto");
        }
        if self.offline {
            command
                .env("GOPROXY", "off")
                .env("GOSUMDB", "off")
                .env("GOTOOLCHAIN", "local");
        }
        command
    }

    fn run(&self, mut command: Command) -> Result<Output, FrameworkError> {
        let output = self.start(&mut command)?;
        if output.status.success() {
            Ok(output)
        } else {
            Err(failed(shown(&command), &output))
        }
    }

    fn start(&self, command: &mut Command) -> Result<Output, FrameworkError> {
        command.output().map_err(|e| FrameworkError::NoGo {
            tried: format!("`{}`: {e}", self.program.display()),
        })
    }
}

fn find_program() -> Result<PathBuf, FrameworkError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join("go"))
        .chain(USUAL_PLACES.map(PathBuf::from))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| FrameworkError::NoGo {
            tried: format!("not in `PATH`, nor {}", USUAL_PLACES.join(", nor ")),
        })
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

fn status(output: &Output) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (output.status.code(), output.status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".into(),
    }
}

fn failed(command: String, output: &Output) -> FrameworkError {
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<_> = text
        .lines()
        .filter(|line| !line.starts_with("go: downloading "))
        .collect();
    let stderr = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
    FrameworkError::Go {
        command,
        status: status(output),
        stderr,
    }
}

#[cfg(test)]
#[path = "gobuild_tests.rs"]
mod tests;
