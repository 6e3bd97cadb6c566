//! OCI data.
#![forbid(unsafe_code)]

pub mod metadata;
pub mod root;

mod handle;
