//! PAX records: `length key=value` lines in front of an entry for what its ustar header has no room for.
//!
//! Spec: POSIX.1-2024 `pax`, "pax Extended Header"; `SCHILY.xattr.` is star's, with GNU tar's escapes in the key.

use crate::metadata::Timestamp;

/// What the keys of extended attributes begin with.
pub(crate) const XATTR: &[u8] = b"SCHILY.xattr.";

/// Adds one record. The length counts its own digits.
pub(crate) fn push(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + " =\n".len();
    let mut length = rest + 1;
    while rest + digits(length) != length {
        length = rest + digits(length);
    }
    records.extend_from_slice(format!("{length} ").as_bytes());
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn digits(number: usize) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

/// Takes the first record off `records`: key and value. `None` when there is no well-formed record.
pub(crate) fn split_first<'a>(records: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let space = records.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(parse_decimal(&records[..space])?).ok()?;
    let record = records.get(space + 1..length)?;
    let record = record.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    *records = &records[length..];
    Some((&record[..equals], &record[equals + 1..]))
}

/// Reads digits and nothing else.
pub(crate) fn parse_decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |value, digit| match digit {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// Writes a time as decimal seconds, without trailing zeros in the fraction.
pub(crate) fn format_time(time: Timestamp) -> String {
    // The text has one sign for both parts, where a timestamp's nanoseconds always count forward.
    let (sign, secs, nanos) = match (time.secs < 0, time.nanos) {
        (true, 0) => ("-", time.secs.unsigned_abs(), 0),
        (true, nanos) => ("-", (time.secs + 1).unsigned_abs(), 1_000_000_000 - nanos),
        (false, nanos) => ("", time.secs.unsigned_abs(), nanos),
    };
    if nanos == 0 {
        return format!("{sign}{secs}");
    }
    format!("{sign}{secs}.{nanos:09}")
        .trim_end_matches('0')
        .to_owned()
}

/// Reads decimal seconds, negative ones too; digits below a nanosecond are cut off.
pub(crate) fn parse_time(text: &[u8]) -> Option<Timestamp> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let point = text.iter().position(|byte| *byte == b'.');
    let (whole, fraction) = match point {
        Some(point) => (&text[..point], &text[point + 1..]),
        None => (text, &[][..]),
    };
    let secs = i64::try_from(parse_decimal(whole)?).ok()?;
    let nanos = parse_fraction(fraction)?;
    Some(match (negative, nanos) {
        (false, _) => Timestamp { secs, nanos },
        (true, 0) => Timestamp { secs: -secs, nanos },
        (true, _) => Timestamp {
            secs: -secs - 1,
            nanos: 1_000_000_000 - nanos,
        },
    })
}

fn parse_fraction(digits: &[u8]) -> Option<u32> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nine = digits.iter().chain([b'0'; 9].iter()).take(9);
    Some(nine.fold(0, |value, digit| value * 10 + u32::from(digit - b'0')))
}

/// Returns the key of the extended attribute `name`. A `=` would end the key, so it is escaped the way GNU tar does.
///
/// A `%` is escaped only where it would be read as an escape: most other tools know none.
pub(crate) fn xattr_key(name: &[u8]) -> Vec<u8> {
    let mut key = XATTR.to_vec();
    for (at, byte) in name.iter().enumerate() {
        match &name[at..] {
            [b'=', ..] => key.extend_from_slice(b"%3D"),
            [b'%', b'2', b'5', ..] | [b'%', b'3', b'D', ..] => key.extend_from_slice(b"%25"),
            _ => key.push(*byte),
        }
    }
    key
}

/// Returns the attribute name in what follows [`XATTR`] in a key.
pub(crate) fn xattr_name(mut escaped: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(escaped.len());
    loop {
        let (byte, rest) = match escaped {
            [] => return name,
            [b'%', b'2', b'5', rest @ ..] => (b'%', rest),
            [b'%', b'3', b'D', rest @ ..] => (b'=', rest),
            [byte, rest @ ..] => (*byte, rest),
        };
        name.push(byte);
        escaped = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_the_digits_of_its_own_length() {
        for size in [0, 1, 3, 87, 88, 89, 90, 91, 987, 988, 989, 990, 9_985] {
            let value = vec![b'\n'; size];
            let mut records = Vec::new();
            push(&mut records, b"key", &value);
            push(&mut records, b"next", b"=");
            let mut rest = records.as_slice();
            assert_eq!(
                split_first(&mut rest),
                Some((&b"key"[..], &value[..])),
                "{size}"
            );
            assert_eq!(split_first(&mut rest), Some((&b"next"[..], &b"="[..])));
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn records_that_lie_about_their_length_are_refused() {
        for text in [
            &b""[..],
            b"9",
            b" key=v\n",
            b"99 key=v\n",
            b"7 key=v\n",
            b"3 \n",
            b"0 k=v\n",
            b"6 k=v",
            b"+6 k=v\n",
            b"99999999999999999999 k=v\n",
            b"5 kv\n",
            b"2 k=v\n",
        ] {
            assert_eq!(
                split_first(&mut &text[..]),
                None,
                "{:?}",
                String::from_utf8_lossy(text)
            );
        }
    }

    #[test]
    fn times_keep_sign_and_nanoseconds() {
        let at = |secs, nanos| Timestamp { secs, nanos };
        for (time, text) in [
            (at(0, 0), "0"),
            (at(1, 500_000_000), "1.5"),
            (at(-1, 0), "-1"),
            (at(-1, 500_000_000), "-0.5"),
            (at(-2, 1), "-1.999999999"),
            (at(1_700_000_000, 123_456_789), "1700000000.123456789"),
        ] {
            assert_eq!(format_time(time), text);
            assert_eq!(parse_time(text.as_bytes()), Some(time), "{text}");
        }
        assert_eq!(parse_time(b"1.1234567899"), Some(at(1, 123_456_789)));
        assert_eq!(parse_time(b"7."), Some(at(7, 0)));
        for bad in [
            "",
            "-",
            "+1",
            ".5",
            "1e3",
            "1.x",
            "--1",
            "99999999999999999999",
        ] {
            assert_eq!(parse_time(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn attribute_names_survive_the_key_escapes() {
        for name in [
            &b"user.a=b"[..],
            b"user.100%",
            b"user.%3D%25%",
            b"security.capability",
            b"user.\xff",
        ] {
            let key = xattr_key(name);
            assert!(!key.contains(&b'='));
            assert_eq!(
                xattr_name(key.strip_prefix(XATTR).expect("the prefix was added")),
                name
            );
        }
    }
}
