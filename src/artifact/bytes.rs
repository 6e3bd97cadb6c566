//! Numbers in bytes that somebody else wrote, at the places that a specification names.
//!
//! No place makes them panic: bytes behind the end count as zero. Whoever must know that a number is there looks at the length first.

/// Returns a number of two bytes, the little end first.
pub(crate) fn le16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(field(bytes, at))
}

/// Returns a number of four bytes, the little end first.
pub(crate) fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(field(bytes, at))
}

/// Returns a number of eight bytes, the little end first.
pub(crate) fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(field(bytes, at))
}

/// Returns a number of four bytes, the big end first.
pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(field(bytes, at))
}

/// Returns a number of eight bytes, the big end first.
pub(crate) fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(field(bytes, at))
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    let there = bytes.get(at..).unwrap_or_default();
    let len = there.len().min(N);
    field[..len].copy_from_slice(&there[..len]);
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: [u8; 9] = [9, 1, 2, 3, 4, 5, 6, 7, 8];

    #[test]
    fn numbers_are_read_from_either_end() {
        assert_eq!(le16(&BYTES, 1), 0x0201);
        assert_eq!(le32(&BYTES, 1), 0x0403_0201);
        assert_eq!(le64(&BYTES, 1), 0x0807_0605_0403_0201);
        assert_eq!(be32(&BYTES, 1), 0x0102_0304);
        assert_eq!(be64(&BYTES, 1), 0x0102_0304_0506_0708);
    }

    #[test]
    fn what_is_behind_the_end_is_zero() {
        assert_eq!(le32(&BYTES, 7), 0x0807);
        assert_eq!(be32(&BYTES, 7), 0x0708_0000);
        for at in [9, 10, usize::MAX] {
            assert_eq!((le16(&BYTES, at), be64(&BYTES, at)), (0, 0));
        }
    }
}
