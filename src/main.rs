//! The kfactory program.
fn main() {}
