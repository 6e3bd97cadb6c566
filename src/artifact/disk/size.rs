//! Sizes that people write.

use std::fmt;
use std::str::FromStr;

/// A size in whole MiB, written as a number of them or with a unit; one that is not whole is rounded up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DiskSize(u64);

/// Bytes of a MiB.
pub(super) const MIB: u64 = 1 << 20;
/// What each unit is in bytes, as `truncate` and `qemu-img` have it, in whose lower case none is another one.
///
/// Spec: GNU coreutils manual, "Block size".
const UNITS: [(&str, u64); 9] = [
    ("mib", MIB),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("m", MIB),
    ("g", 1 << 30),
    ("t", 1 << 40),
];
/// No disk is larger: what counts bytes in 63 bits, as files do, has room for it.
const MAX_BYTES: u64 = 1 << 50;

impl DiskSize {
    /// The bytes of the largest.
    pub const MOST: u64 = MAX_BYTES;

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
    "{0:?} is no size from 1 MiB to 1 PiB: a whole number of MiB, or one with a unit: M, G, T, MiB, GiB, TiB (powers of 1024), MB, GB, TB (of 1000)"
)]
pub struct NoSize(String);

impl FromStr for DiskSize {
    type Err = NoSize;

    fn from_str(text: &str) -> Result<Self, NoSize> {
        let refused = || NoSize(text.to_owned());
        let lower = text.to_ascii_lowercase();
        let with_unit = UNITS
            .iter()
            .find_map(|(unit, bytes)| Some((lower.strip_suffix(unit)?, *bytes)));
        let (digits, unit) = with_unit.unwrap_or((&lower, MIB));
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(refused());
        }
        let number: u64 = digits.parse().map_err(|_| refused())?;
        let bytes = number.checked_mul(unit).ok_or_else(refused)?;
        match (1..=MAX_BYTES).contains(&bytes) {
            true => Ok(Self::for_bytes(bytes)),
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
            ("32g", 32 << 10),
            ("32gib", 32 << 10),
            ("5MiB", 5),
            ("5m", 5),
            // As `truncate` has it: 32 000 000 000 bytes are 30 517.6 MiB.
            ("32GB", 30_518),
            ("32gb", 30_518),
            ("1MB", 1),
            ("1tB", 953_675),
            ("1024T", 1 << 30),
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
            "GB",
            "1.5G",
            "8 G",
            "8K",
            "8Gi",
            "8GIBB",
            "0xG",
            "1025T",
            "99999999T",
            "18446744073709551616",
        ] {
            let error = text.parse::<DiskSize>().expect_err(text).to_string();
            assert!(error.contains("MiB") && error.contains("GB"), "{error}");
        }
    }
}
