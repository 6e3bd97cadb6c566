//! OCI data: digests, images, layers, layouts and archives.
//!
//! In reading order:
//!
//! - [`digest`]: the names of blobs, and the one reader that every blob passes through.
//! - [`platform`]: operating system and architecture, and which manifest of an index fits.
//! - [`manifest`]: descriptors, manifests and indexes as documents.
//! - [`image`]: one platform's image as a value; every change returns a new one.
//! - [`chain`]: the name of a stack of layers.
//! - [`compress`]: gzip and zstd, in both directions, on all cores.
//! - [`layer`]: an uncompressed changeset in, a layer blob with its digests out.
//! - [`blobs`]: blobs on disk, written so that an unfinished one cannot be named.
//! - [`source`]: where an image and its blobs can be read from.
//! - [`layout`]: the OCI image layout directory.
//! - [`archive`]: `oci-archive` and `docker-archive` files.
//! - [`input`] and [`partial`]: files that others name, and files that are not whole yet.
//! - [`root`]: a directory tree out of which no operation can leave.
//! - [`tar`]: the deterministic archive writer and the strict reader.
//! - [`apply`]: a changeset onto a root filesystem; [`ledger`]: what the caller may not apply.
//! - [`limits`]: how deep a tree may be, whoever reads or writes it.
//! - [`whiteout`]: the names in a changeset that say what is gone.
//! - [`diff`]: what changed in a tree, as a changeset.
//!
//! The crate opens no socket, starts no process, prints nothing and never looks for a home directory.
#![forbid(unsafe_code)]

pub mod apply;
pub mod archive;
pub mod blobs;
pub mod chain;
pub mod compress;
mod descriptor;
pub mod diff;
pub mod digest;
mod gzip;
mod handle;
mod hash_thread;
pub mod image;
mod index;
pub mod input;
pub mod layer;
pub mod layout;
pub mod ledger;
pub mod limits;
pub mod manifest;
pub mod media_type;
pub mod metadata;
pub mod overlay;
pub mod partial;
pub mod platform;
mod resolve;
pub mod root;
pub mod source;
pub mod tar;
pub mod time;
mod verify;
pub mod whiteout;
