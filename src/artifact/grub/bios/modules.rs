//! GRUB's directory for BIOS machines in an image.

use std::fmt;

use super::closure::Closure;
use super::core::Core;
use super::sectors::{SECTOR, Sector, mbr_code};
use super::{CoreSpec, kernel, payload};
use crate::artifact::gpt::BOOT_CODE_BYTES;
use crate::artifact::grub::{BIOS_DIRS, Files};
use crate::error::{Error, Result};

/// What `lzma_decompress.img` may be long: it lies at 0x8200, and the kernel that it unpacks begins at 0x9000.
const MAX_DECOMPRESSOR: usize = 0x9000 - 0x8200;

/// Bytes of `cdboot.img`: one block of a CD.
const CDBOOT_BYTES: usize = 2048;

const PACKAGES: &str = "the package is `grub-pc-bin` (Debian, Ubuntu), `grub2-pc-modules` (Red Hat), `grub2-i386-pc` (SUSE), \
    `grub-bios` (Alpine), `grub` (Arch)";

/// GRUB's directory for BIOS machines in an image: `kernel.img`, modules and the images of boot sectors.
pub struct Modules<'a> {
    files: &'a dyn Files,
    dir: &'static str,
}

impl fmt::Debug for Modules<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Modules").field("dir", &self.dir).finish()
    }
}

impl<'a> Modules<'a> {
    /// Returns the directory of the image; `None` where it has none.
    pub fn find_opt(files: &'a dyn Files) -> Option<Self> {
        let dir = BIOS_DIRS
            .into_iter()
            .find(|dir| files.has(&format!("{dir}/kernel.img")))?;
        Some(Self { files, dir })
    }

    /// Returns the directory of the image.
    ///
    /// # Errors
    ///
    /// The image has none; says where it was looked for and which package brings it.
    pub fn find(files: &'a dyn Files) -> Result<Self> {
        Self::find_opt(files).ok_or_else(|| {
            let places = BIOS_DIRS.map(|dir| format!("/{dir}"));
            Error::user("the image has no GRUB for BIOS machines")
                .context_below(format!("there is no kernel.img in {}", places.join(", ")))
                .hint(PACKAGES)
        })
    }

    /// Returns where the modules are in the image, without a leading slash.
    pub fn dir(&self) -> &'static str {
        self.dir
    }

    /// Composes a core.
    ///
    /// # Errors
    ///
    /// A file is missing, damaged or not of the kind that its name says, a module does not exist, or the core is too large for
    /// the memory that a BIOS machine has for it.
    pub fn core(&self, spec: &CoreSpec) -> Result<Core> {
        let closure = self.closure(spec)?;
        let mut modules = Vec::with_capacity(closure.len());
        for name in &closure {
            let name = format!("{name}.mod");
            let bytes = self.read(&name)?;
            if !kernel::is_module(&bytes) {
                return Err(self.unfit(&name, "it is no 32-bit relocatable ELF file"));
            }
            modules.push(bytes);
        }
        let kernel =
            kernel::flat(&self.read("kernel.img")?).map_err(|why| self.unfit("kernel.img", why))?;
        let diskboot = self.sector("diskboot.img")?;
        let decompressor = self.read("lzma_decompress.img")?;
        if decompressor.len() > MAX_DECOMPRESSOR {
            return Err(self.unfit("lzma_decompress.img", "it is too large"));
        }
        let payload = payload::payload(kernel, &modules, &spec.config, &spec.prefix);
        Core::new(&diskboot, &decompressor, &payload)
            .map_err(|why| Error::user("cannot compose GRUB's core image").context_below(why))
    }

    /// Composes the El Torito image that BIOS machines boot from CD and, with [`hybrid_mbr`](Self::hybrid_mbr), from a USB
    /// stick: no emulation, four sectors to be loaded, to be told where it lies by a boot information table and in GRUB's way.
    ///
    /// # Errors
    ///
    /// As for [`core`](Self::core).
    pub fn el_torito(&self, spec: &CoreSpec) -> Result<Vec<u8>> {
        let mut image = self.read("cdboot.img")?;
        if image.len() != CDBOOT_BYTES {
            return Err(self.unfit("cdboot.img", format!("it is not {CDBOOT_BYTES} bytes long")));
        }
        image.extend(self.core(spec)?.bytes());
        Ok(image)
    }

    /// Returns `boot_hybrid.img`, the MBR of a medium that is both CD and disk, not yet told where the El Torito image is.
    ///
    /// # Errors
    ///
    /// It is missing or no boot sector.
    pub fn hybrid_mbr(&self) -> Result<Sector> {
        self.boot_sector("boot_hybrid.img")
    }

    /// Returns the code of the MBR that boots the core at sector `core_lba` of the same disk.
    ///
    /// # Errors
    ///
    /// `boot.img` is missing or no boot sector of GRUB.
    pub fn mbr_code(&self, core_lba: u64) -> Result<[u8; BOOT_CODE_BYTES]> {
        mbr_code(&self.boot_sector("boot.img")?, core_lba).ok_or_else(|| {
            self.unfit(
                "boot.img",
                "it does not check the boot drive where GRUB does",
            )
        })
    }

    fn closure(&self, spec: &CoreSpec) -> Result<Vec<String>> {
        let list = self.read("moddep.lst")?;
        let list =
            String::from_utf8(list).map_err(|_| self.unfit("moddep.lst", "it is no text"))?;
        let closure = Closure::new(&list);
        let there = spec.if_there.iter().filter(|name| closure.knows(name));
        let wanted = spec.modules.iter().chain(there);
        closure
            .of(wanted.map(String::as_str))
            .map_err(|name| self.unfit("moddep.lst", format!("it knows no module {name:?}")))
    }

    fn boot_sector(&self, name: &str) -> Result<Sector> {
        let sector = self.sector(name)?;
        if sector[SECTOR - 2..] != [0x55, 0xaa] {
            return Err(self.unfit(name, "it lacks the signature of a boot sector"));
        }
        Ok(sector)
    }

    fn sector(&self, name: &str) -> Result<Sector> {
        Sector::try_from(self.read(name)?)
            .map_err(|_| self.unfit(name, format!("it is not {SECTOR} bytes long")))
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let path = format!("{}/{name}", self.dir);
        self.files
            .read(&path)?
            .ok_or_else(|| self.unfit(name, "it does not exist"))
    }

    fn unfit(&self, name: &str, why: impl fmt::Display) -> Error {
        Error::user(format!(
            "cannot use GRUB's {:?}",
            format!("/{}/{name}", self.dir)
        ))
        .context_below(why)
        .hint(PACKAGES)
    }
}
