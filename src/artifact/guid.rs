//! GUIDs: as text, as partition tables write them, and derived from names.

use std::fmt;

use sha1::{Digest as _, Sha1};

/// A GUID, its bytes in the order of its text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// The GUID of nothing; of a partition's type, that the entry is free.
    pub const ZERO: Self = Self([0; 16]);
    /// The namespace of names that are URLs.
    ///
    /// Spec: RFC 9562, 6.6.
    pub const URL: Self = Self::new(0x6ba7b811_9dad_11d1_80b4_00c04fd430c8);
    /// The type of an EFI system partition.
    pub const EFI_SYSTEM: Self = Self::new(0xc12a7328_f81f_11d2_ba4b_00a0c93ec93b);
    /// The type of a partition that holds GRUB's core image for BIOS.
    pub const BIOS_BOOT: Self = Self::new(0x21686148_6449_6e6f_744e_656564454649);
    /// The type of a partition with a Linux file system.
    pub const LINUX: Self = Self::new(0x0fc63daf_8483_4772_8e79_3d69d8477de4);
    /// The type of a partition with data that other systems read too.
    pub const BASIC_DATA: Self = Self::new(0xebd0a0a2_b9e5_4433_87c0_68b6b72699c7);

    /// Returns the GUID whose digits those of `number` are.
    pub const fn new(number: u128) -> Self {
        Self(number.to_be_bytes())
    }

    /// Returns the GUID of `name` in `namespace`, of version 5: always the same one.
    ///
    /// Spec: RFC 9562, 5.5.
    pub fn of_name(namespace: Guid, name: &str) -> Self {
        let hash = Sha1::new_with_prefix(namespace.0)
            .chain_update(name)
            .finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash[..16]);
        bytes[6] = bytes[6] & 0x0F | 0x50;
        bytes[8] = bytes[8] & 0x3F | 0x80;
        Self(bytes)
    }

    /// Returns the bytes as EFI has them: the first three groups with their lowest byte first.
    pub fn to_efi(self) -> [u8; 16] {
        let mut bytes = self.0;
        bytes[..4].reverse();
        bytes[4..6].reverse();
        bytes[6..8].reverse();
        bytes
    }

    /// Reads what [`to_efi`](Self::to_efi) gives.
    pub fn from_efi(bytes: [u8; 16]) -> Self {
        Self(Self(bytes).to_efi())
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let dash = if matches!(index, 4 | 6 | 8 | 10) {
                "-"
            } else {
                ""
            };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_the_guid_that_other_programs_derive() {
        // Python: uuid.uuid5(uuid.NAMESPACE_URL, ...)
        for (name, text) in [
            ("KAIROS_DISK", "2ceff841-4c1d-5a14-8e46-ed3aeb621093"),
            ("COS_OEM", "8bfa06f9-ca4f-56dc-90c9-49cf20f4f45e"),
        ] {
            assert_eq!(Guid::of_name(Guid::URL, name).to_string(), text);
        }
    }

    #[test]
    fn efi_swaps_the_first_three_groups_and_back() {
        let efi = Guid::EFI_SYSTEM.to_efi();
        assert_eq!(
            efi[..10],
            [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b]
        );
        assert_eq!(Guid::from_efi(efi), Guid::EFI_SYSTEM);
    }
}
