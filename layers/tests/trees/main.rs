//! Trees, archives and changesets on a real filesystem, against each other and against other tools.
//!
//! Most of it needs root, or a user namespace with several IDs; what is not permitted says `skipped: why`.

mod hostile;
mod judges;
mod limits;
mod overlay;
mod property;
mod root;
mod rules;
mod support;
