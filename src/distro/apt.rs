//! Stub.
#![allow(missing_docs)]
use std::ffi::OsString;
pub const COMMAND: &[&str] = &["apt-get", "-c", CONFIG_PATH];
pub const CONFIG_PATH: &str = "/run/kfactory-apt.conf";
pub const CONFIG: &str = "Acquire::Languages \"none\";\nDpkg::Use-Pty \"0\";\nAPT::Install-Recommends \"false\";\n#clear DPkg::Post-Invoke;\n#clear APT::Update::Post-Invoke;\nAPT::Keep-Downloaded-Packages \"true\";\nDir::Cache::pkgcache \"pkgcache.bin\";\nDir::Cache::srcpkgcache \"srcpkgcache.bin\";\n";
pub const UPDATE: &[&str] = &["update"];
pub const UPGRADE: &[&str] = &["-y", "upgrade"];
pub const INSTALL: &[&str] = &["-y", "--no-install-recommends", "install"];
pub const PRINT_URIS: &[&str] = &["-qq", "--print-uris"];
#[derive(Debug)] pub struct HeldBack { pub path: &'static str, pub script: &'static str, pub always: bool }
pub const HELD_BACK: &[HeldBack] = &[HeldBack { path: "/usr/sbin/policy-rc.d", script: "#!/bin/sh\nexit 101\n", always: true }, HeldBack { path: "/usr/bin/dracut", script: "#!/bin/sh\nexit 0\n", always: false }, HeldBack { path: "/usr/sbin/update-initramfs", script: "#!/bin/sh\nexit 0\n", always: false }];
#[derive(Debug, Clone)] pub struct PackageUri { pub url: String, pub filename: String, pub size: u64, pub hash: String }
impl PackageUri { pub fn sha256(&self) -> Option<&str> { self.hash.strip_prefix("SHA256:") } }
pub fn environment() -> Vec<(OsString, OsString)> { vec![("DEBIAN_FRONTEND".into(), "noninteractive".into()), ("INITRD".into(), "No".into())] }
pub fn parse_uris(text: &str) -> Vec<PackageUri> { text.lines().filter_map(|l| { let (u, r) = l.strip_prefix('\'')?.split_once("' ")?; let mut w = r.split(' '); Some(PackageUri { url: u.into(), filename: w.next()?.into(), size: w.next()?.parse().ok()?, hash: w.next().unwrap_or("").into() }) }).collect() }
