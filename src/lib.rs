//! kfactory.

pub mod kairos;
