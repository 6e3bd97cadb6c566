//! OCI data.
#![forbid(unsafe_code)]

pub mod apply;
pub mod diff;
pub mod ledger;
pub mod metadata;
pub mod root;
pub mod tar;

mod handle;
mod overlay;
