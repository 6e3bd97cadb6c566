//! Directory records and the numbers in them, which ECMA-119 writes in both byte orders.
//!
//! Spec: ECMA-119, 7.2.3, 7.3.3 and 9.1.

/// The fixed part of a directory record in front of its identifier.
const HEADER: usize = 33;
/// The longest record: its length is a byte, and even.
const LONGEST: usize = 254;

/// Set for a directory.
pub(super) const DIRECTORY: u8 = 0x02;
/// Set for all but the last record of a file that has several.
pub(super) const CONTINUES: u8 = 0x80;

/// One directory record.
#[derive(Debug)]
pub(super) struct Record<'a> {
    pub(super) identifier: &'a [u8],
    pub(super) block: u32,
    pub(super) size: u32,
    pub(super) flags: u8,
    pub(super) time: [u8; 7],
    pub(super) system_use: &'a [u8],
}

impl Record<'_> {
    /// Appends the record to `out`.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let len = record_len(self.identifier.len(), self.system_use.len());
        let end = out.len() + len;
        // No extended attribute record.
        out.extend([len as u8, 0]);
        out.extend(both32(self.block));
        out.extend(both32(self.size));
        out.extend(self.time);
        // Not interleaved; on the first and only volume of the set.
        out.extend([self.flags, 0, 0]);
        out.extend(both16(1));
        out.push(self.identifier.len() as u8);
        out.extend(self.identifier);
        if self.identifier.len().is_multiple_of(2) {
            out.push(0);
        }
        out.extend(self.system_use);
        out.resize(end, 0);
    }
}

/// Returns the length of a record, which is even.
pub(super) fn record_len(identifier: usize, system_use: usize) -> usize {
    (before_system_use(identifier) + system_use).next_multiple_of(2)
}

/// Returns how many bytes for system use a record has room for.
pub(super) fn system_use_room(identifier: usize) -> usize {
    LONGEST - before_system_use(identifier)
}

/// Header, identifier, and the byte that makes both even.
fn before_system_use(identifier: usize) -> usize {
    (HEADER + identifier).next_multiple_of(2)
}

/// Returns a number in both byte orders, the little end first.
pub(super) fn both16(number: u16) -> [u8; 4] {
    let [a, b] = number.to_le_bytes();
    [a, b, b, a]
}

/// Returns a number in both byte orders, the little end first.
pub(super) fn both32(number: u32) -> [u8; 8] {
    let [a, b, c, d] = number.to_le_bytes();
    [a, b, c, d, d, c, b, a]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_the_top_directory_has_34_bytes() {
        let mut bytes = Vec::new();
        let record = Record {
            identifier: &[0],
            block: 0x0102_0304,
            size: 2048,
            flags: DIRECTORY,
            time: [70, 1, 1, 0, 0, 0, 0],
            system_use: &[],
        };
        record.encode(&mut bytes);
        assert_eq!(bytes.len(), 34);
        assert_eq!(bytes[..10], [34, 0, 4, 3, 2, 1, 1, 2, 3, 4]);
        assert_eq!(bytes[25..], [2, 0, 0, 1, 0, 0, 1, 1, 0]);
    }

    #[test]
    fn the_longest_record_is_even_and_fits_a_byte() {
        for identifier in 1..130 {
            let room = system_use_room(identifier);
            assert_eq!(record_len(identifier, room), LONGEST);
        }
    }
}
