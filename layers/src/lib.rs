//! OCI data.
#![forbid(unsafe_code)]

pub mod metadata;
pub mod root;
pub mod tar;

mod handle;
