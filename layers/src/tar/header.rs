//! The 512 bytes in front of every entry: where each field is, and how numbers are written in it.

use std::ops::Range;

use super::BLOCK;

/// One header block.
#[derive(Clone, Copy)]
pub(crate) struct Header(pub(crate) [u8; BLOCK]);

pub(crate) const NAME: Range<usize> = 0..100;
pub(crate) const MODE: Range<usize> = 100..108;
pub(crate) const UID: Range<usize> = 108..116;
pub(crate) const GID: Range<usize> = 116..124;
pub(crate) const SIZE: Range<usize> = 124..136;
pub(crate) const MTIME: Range<usize> = 136..148;
const CHECKSUM: Range<usize> = 148..156;
const TYPE: usize = 156;
pub(crate) const LINK: Range<usize> = 157..257;
const MAGIC: Range<usize> = 257..265;
pub(crate) const MAJOR: Range<usize> = 329..337;
pub(crate) const MINOR: Range<usize> = 337..345;
pub(crate) const PREFIX: Range<usize> = 345..500;

const USTAR: &[u8; 8] = b"ustar\x0000";
const GNU: &[u8; 8] = b"ustar  \0";

/// Which fields of a header mean something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Seventh edition Unix: no device numbers, no prefix.
    Old,
    /// POSIX ustar, and PAX on top of it.
    Ustar,
    /// GNU: other fields where ustar has the prefix.
    Gnu,
}

impl Header {
    /// Returns an empty ustar header of this type.
    pub(crate) fn new(kind: u8) -> Self {
        let mut header = Self([0; BLOCK]);
        header.0[TYPE] = kind;
        header.0[MAGIC].copy_from_slice(USTAR);
        header
    }

    pub(crate) fn kind(&self) -> u8 {
        self.0[TYPE]
    }

    pub(crate) fn format(&self) -> Format {
        match &self.0[MAGIC] {
            magic if magic == GNU => Format::Gnu,
            // Some writers leave the version empty.
            magic if magic.starts_with(b"ustar\0") => Format::Ustar,
            _ => Format::Old,
        }
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// Writes `bytes` at the start of a field that they fit in; the field is already zero.
    pub(crate) fn set_bytes(&mut self, field: Range<usize>, bytes: &[u8]) {
        self.0[field.start..field.start + bytes.len()].copy_from_slice(bytes);
    }

    /// Writes `value` in octal with leading zeros and a final NUL; returns `false`, the field zero, when there is no room.
    pub(crate) fn set_number(&mut self, field: Range<usize>, value: u64) -> bool {
        let digits = field.len() - 1;
        let fits = value < 1u64 << (3 * digits);
        let text = format!("{:0digits$o}", if fits { value } else { 0 });
        self.set_bytes(field, text.as_bytes());
        fits
    }

    /// Writes the checksum; every other field must be final.
    pub(crate) fn seal(&mut self) {
        let text = format!("{:06o}\0 ", self.sums().0);
        self.set_bytes(CHECKSUM, text.as_bytes());
    }

    /// Returns whether the checksum is that of the other fields, which nearly rules out that this is no header at all.
    pub(crate) fn is_sealed(&self) -> bool {
        let Some(stored) = parse_octal(&self.0[CHECKSUM]) else {
            return false;
        };
        let (unsigned, signed) = self.sums();
        stored == u64::from(unsigned) || i64::try_from(stored) == Ok(i64::from(signed))
    }

    /// The sum over bytes, and the sum over signed bytes that some old writers stored.
    fn sums(&self) -> (u32, i32) {
        let byte = |(at, byte): (usize, &u8)| if CHECKSUM.contains(&at) { b' ' } else { *byte };
        let bytes = self.0.iter().enumerate().map(byte);
        bytes.fold((0, 0), |(unsigned, signed), byte| {
            (unsigned + u32::from(byte), signed + i32::from(byte as i8))
        })
    }

    /// Returns a field up to its first NUL.
    pub(crate) fn bytes(&self, field: Range<usize>) -> &[u8] {
        until_nul(&self.0[field])
    }

    /// Returns a number field; `None` when it is no number.
    pub(crate) fn number(&self, field: Range<usize>) -> Option<i64> {
        parse_number(&self.0[field])
    }
}

pub(crate) fn until_nul(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0);
    &field[..end.unwrap_or(field.len())]
}

/// Reads octal text, or GNU's big-endian two's complement whose first bit is set.
pub(crate) fn parse_number(field: &[u8]) -> Option<i64> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => parse_binary(field),
        _ => i64::try_from(parse_octal(field)?).ok(),
    }
}

fn parse_binary(field: &[u8]) -> Option<i64> {
    // The first bit only marks the form; the second one is the sign.
    let first = if field[0] & 0x40 != 0 {
        field[0]
    } else {
        field[0] & 0x7f
    };
    let start = i128::from(first as i8);
    let value = field[1..].iter().try_fold(start, |value, byte| {
        value.checked_mul(256)?.checked_add(i128::from(*byte))
    })?;
    i64::try_from(value).ok()
}

/// Empty is zero: many writers leave unused fields blank.
fn parse_octal(field: &[u8]) -> Option<u64> {
    let is_blank = |byte: &u8| *byte == b' ' || *byte == 0;
    let start = field.iter().position(|byte| !is_blank(byte));
    let digits = &field[start.unwrap_or(field.len())..];
    let end = digits.iter().position(is_blank).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(end);
    if !rest.iter().all(is_blank) {
        return None;
    }
    digits.iter().try_fold(0u64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_every_form_that_writers_use() {
        let cases: [(&[u8], Option<i64>); 10] = [
            (b"0000644\0", Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"77777777", Some(0o7777_7777)),
            (b"\x80\0\0\0\0\x2d\xc6\xc0", Some(3_000_000)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"0000648\0", None),
            (b"64 4\0\0\0\0", None),
            (b"-000644\0", None),
        ];
        for (field, value) in cases {
            assert_eq!(parse_number(field), value, "{field:?}");
        }
    }

    #[test]
    fn a_number_without_room_leaves_zero_and_says_so() {
        let mut header = Header::new(b'0');
        assert!(header.set_number(UID, 0o777_7777));
        assert_eq!(header.number(UID), Some(0o777_7777));
        let mut header = Header::new(b'0');
        assert!(!header.set_number(UID, 3_000_000));
        assert_eq!(header.number(UID), Some(0));
    }

    #[test]
    fn one_changed_byte_breaks_the_seal() {
        let mut header = Header::new(b'5');
        header.set_bytes(NAME, b"etc/\xff");
        header.seal();
        assert!(header.is_sealed());
        header.0[3] ^= 1;
        assert!(!header.is_sealed());
    }
}
