//! Compiles dpkg's helpers (`src/distro/apt/helpers`), which run inside base images, to a static program that the library embeds.
//!
//! musl's start-up is the shortest, so its target is tried first, then the C library of the target itself. Where neither can
//! be linked the program is empty, and dpkg's own helpers do the work.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

const SOURCE: &str = "src/distro/apt/helpers/main.rs";

fn main() {
    for source in [
        "build.rs",
        SOURCE,
        "src/distro/apt/helpers/control.rs",
        "src/distro/apt/ar.rs",
        "src/distro/apt/ustar.rs",
    ] {
        println!("cargo::rerun-if-changed={source}");
    }
    let out = env::var_os("OUT_DIR").expect("set by cargo");
    let program = Path::new(&out).join("dpkg-helpers");
    let target = env::var("TARGET").expect("set by cargo");
    let musl = target.replace("-gnu", "-musl");
    if !compile(&musl, &program) && !compile(&target, &program) {
        println!(
            "cargo::warning=packages of Debian's family install more slowly: no static program can be linked for {target}"
        );
        fs::write(&program, "").expect("cargo's directory can be written to");
    }
}

fn compile(target: &str, program: &Path) -> bool {
    let rustc = env::var_os("RUSTC").expect("set by cargo");
    let mut command = Command::new(rustc);
    command.args([
        "--edition=2024",
        "--crate-name=dpkg_helpers",
        "--target",
        target,
    ]);
    for option in [
        "opt-level=s",
        "panic=abort",
        "strip=symbols",
        "target-feature=+crt-static",
    ] {
        command.args(["-C", option]);
    }
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut option = OsString::from("linker=");
        option.push(linker);
        command.arg("-C").arg(option);
    }
    command.arg("-o").arg(program).arg(SOURCE);
    // What cannot be linked here is no news: the caller tries another way.
    command.output().is_ok_and(|output| output.status.success())
}
