//! kfactory.

pub mod kairos;
pub mod distro;
