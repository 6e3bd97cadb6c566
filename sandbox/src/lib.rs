//! Runs one command in a root filesystem, isolated, without a daemon and without root.
//!
//! In reading order:
//!
//! - [`idmap`]: subordinate IDs to ID map ranges; pure.
//! - [`stage`]: the program re-executes itself once into a user and mount namespace, *the stage*.
//! - [`overlay`]: overlay, bind and tmpfs mounts inside the stage, unmounted when dropped.
//! - [`spec`]: what one command may see, as plain data.
//! - [`mountpoint`]: where the mounts go in a root filesystem that somebody else made, and no trace of them afterwards.
//! - [`seccomp`]: the system calls a command is refused, and those that do nothing.
//! - [`bwrap`]: a spec as bubblewrap arguments; pure.
//! - [`launch`]: runs a spec, streams its lines, reaps everything.
//! - [`doctor`]: says what this host allows by trying it.
//!
//! What is absent: no asynchronous code, no printing, no `$HOME`, no knowledge of images or registries. All unsafe code is in
//! `sys`.

pub mod bwrap;
pub mod cancel;
mod clones;
pub mod doctor;
pub mod idmap;
pub mod launch;
mod lines;
pub mod mountpoint;
pub mod overlay;
pub mod seccomp;
pub mod spec;
pub mod stage;
mod sys;

pub use cancel::CancelToken;
pub use launch::{LaunchError, Outcome, Status, Stream, run, run_plain, run_with};
pub use lines::printable;
pub use overlay::{Mounted, OverlayMount};
pub use spec::{Mount, Network, SandboxSpec, Stdin, Stdout};
pub use stage::{StageError, enter, in_stage};
