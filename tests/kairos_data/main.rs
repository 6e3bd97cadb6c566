//! What an image receives from Kairos, read and run the way the booting machine does: the cloud-configs, the grub scripts, the
//! dracut module, the upgrade script.

mod boot;
mod form;
mod grub;
mod installed;
mod qspi;
mod scripts;
mod shell;
mod support;
