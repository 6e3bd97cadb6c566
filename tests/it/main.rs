//! kfactory end to end: the program as users start it, against a real registry, judged by other programs.
//!
//! One conversion as a plain user is made for all tests that look at its result; see `support::conversion`. A test that
//! cannot run says so in a line that starts with `skipped: `; with `KFACTORY_NO_SKIP` set it fails instead.
// Only the tests' own output can say what was skipped and why.
#![allow(clippy::print_stderr, reason = "skipped tests say so")]

mod apt;
mod artifact_verify;
mod artifacts;
mod boot;
mod choices;
mod cli;
mod contract;
mod conversion;
mod copy;
mod deps;
mod distributions;
mod extension_sources;
mod extensions;
mod families;
mod inspect;
mod installed;
mod judges;
mod kairos_init;
mod options;
mod parity;
mod plans;
mod plugins;
mod providers;
mod raw;
mod refused;
mod repeat;
mod store;
mod support;
mod systemd_helper;
mod unpack;
mod validate;
mod yip_judge;
