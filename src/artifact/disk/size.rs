//! Sizes that people write.

use std::fmt;
use std::str::FromStr;

/// A size in whole MiB, written as a number of them or with a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DiskSize(u64);

/// Bytes of a MiB.
pub(super) const MIB: u64 = 1 << 20;
/// What each unit is in MiB.
const UNITS: [(&str, u64); 6] = [
    ("MiB", 1),
    ("GiB", 1 << 10),
    ("TiB", 1 << 20),
    ("M", 1),
    ("G", 1 << 10),
    ("T", 1 << 20),
];
/// No disk is larger: what counts bytes in 63 bits, as files do, has room for it.
const MAX_MIB: u64 = 1 << 30;

impl DiskSize {
    /// Returns the smallest that has room for `bytes`.
    pub fn for_bytes(bytes: u64) -> Self {
        Self(bytes.div_ceil(MIB))
    }

    /// Returns it in bytes.
    pub fn bytes(self) -> u64 {
        self.0 * MIB
    }

    /// Returns it in MiB.
    pub fn mib(self) -> u64 {
        self.0
    }
}

impl fmt::Display for DiskSize {
    /// Writes it as [`FromStr`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}M", self.0)
    }
}

/// Why a text is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no size from 1 MiB to 1 PiB: a number of MiB, or one with M, G or T behind it (powers of 1024): 8192, 8G, 8GiB"
)]
pub struct NoSize(String);

impl FromStr for DiskSize {
    type Err = NoSize;

    fn from_str(text: &str) -> Result<Self, NoSize> {
        let refused = || NoSize(text.to_owned());
        let with_unit = UNITS
            .iter()
            .find_map(|(unit, mib)| Some((text.strip_suffix(unit)?, *mib)));
        let (digits, mib) = with_unit.unwrap_or((text, 1));
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(refused());
        }
        let number: u64 = digits.parse().map_err(|_| refused())?;
        let mib = number.checked_mul(mib).ok_or_else(refused)?;
        match (1..=MAX_MIB).contains(&mib) {
            true => Ok(Self(mib)),
            false => Err(refused()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_number_of_mib_or_has_a_unit_and_is_written_as_it_is_read() {
        for (text, mib) in [
            ("8192", 8192),
            ("8G", 8192),
            ("8GiB", 8192),
            ("1T", 1 << 20),
            ("5MiB", 5),
        ] {
            let size: DiskSize = text.parse().unwrap();
            assert_eq!(size.mib(), mib, "{text}");
            assert_eq!(size.to_string().parse(), Ok(size));
        }
        assert_eq!(DiskSize::for_bytes(MIB + 1).mib(), 2);
        for text in [
            "",
            "0",
            "G",
            "-1",
            "+1",
            "8GB",
            "1.5G",
            "8 G",
            "8g",
            "99999999T",
            "18446744073709551616",
        ] {
            assert!(text.parse::<DiskSize>().is_err(), "{text}");
        }
    }
}
