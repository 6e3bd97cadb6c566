//! The texts of `grub.cfg`.
//!
//! - [`LiveMenu`]: the menu of live media.
//! - [`chain_to_live`], [`chain_to_disk`]: what GRUB finds beside itself, and which leads to a menu.
//! - `args`: kernel arguments as words that GRUB's shell takes as they are.

mod args;
mod chain;
mod live;
#[cfg(test)]
mod tests;

pub use chain::{chain_to_disk, chain_to_live};
pub use live::LiveMenu;
