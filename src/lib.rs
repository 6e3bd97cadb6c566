//! kfactory turns any base image into a Kairos-ready OCI image: rootless, daemonless, straight on OCI layers.
//!
//! In reading order:
//!
//! - [`cli`]: the command line; each subcommand calls one function.
//! - [`request`]: what is asked for, as one value; the recipe file.
//! - [`build_args`]: the same in the words of Kairos' own builds.
//! - [`choice`]: what is asked for of packages, word by word.
//! - [`kernel_file`]: a kernel that the user brings.
//! - [`secret`]: what a step may read and no layer holds.
//! - [`words`]: words that people write in more than one spelling.
//! - [`distro`], [`kairos`]: what is known about distributions and about Kairos; data and pure rules.
//! - [`step`], [`plan`]: facts and a request become an ordered list of steps; pure.
//! - [`yip`]: stage extensions, read from files and checked.
//! - [`convert`]: the pipeline that pulls, unpacks, runs, captures and pushes.
//! - [`exec`]: carries out a step's actions on a mounted tree.
//! - [`framework`]: where the Kairos binaries come from.
//! - [`provider`]: what makes an image `standard`: k3s, k0s, and the language of provider plugins.
//! - [`registry`], [`location`]: where images come from and go to.
//! - [`unpack`], [`staging`]: a root filesystem as a directory; directories made whole before they have their name.
//! - [`tree`], `initrd`, `cpio`: what an image holds, read without unpacking it.
//! - [`installed`]: what package databases say, read from such a tree.
//! - [`validate`]: whether a finished image boots, installs and upgrades, as rules.
//! - [`parity`]: where two images differ, and whether that is meant.
//! - [`artifact`]: what boots of an image: live media, network boot files and disks.
//! - [`store`], [`changeset`]: what survives between runs, and reading a layer of it.
//! - [`progress`], [`error`]: what people see; [`suggest`], [`yaml`], `given`: their slips, in plain words;
//!   `screen`: the terminal's width; `printable`: what may reach it.
//! - `apart`: what is written is not inside of what is read.
//! - `pace`: downloads that come too slowly.
#![forbid(unsafe_code)]

mod apart;
pub mod artifact;
mod bare_path;
mod bounded;
pub mod build_args;
pub mod changeset;
pub mod choice;
pub mod cli;
pub mod convert;
mod cpio;
pub mod distro;
pub mod error;
pub mod exec;
pub mod framework;
mod given;
mod initrd;
pub mod inspect;
pub mod installed;
pub mod kairos;
pub mod kernel_file;
mod leftover;
pub mod location;
mod pace;
pub mod parity;
pub mod plan;
mod printable;
mod priority;
pub mod progress;
pub mod provider;
pub mod registry;
pub mod request;
mod screen;
pub mod secret;
mod settings_file;
pub mod staging;
pub mod step;
pub mod stop;
pub mod store;
pub mod suggest;
pub mod tree;
pub mod unpack;
pub mod validate;
pub mod words;
pub mod yaml;
pub mod yip;
