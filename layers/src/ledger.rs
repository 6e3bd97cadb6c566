//! What an image says about a file and this system would not take: owners outside the ID map, device nodes, privileged attributes.
//!
//! Who may not set these keeps them here, and writes a layer's metadata from here. Stored as one JSON object in a line; the last
//! line says how many there are, so that a copy that was cut short is known for one.

use std::ffi::OsString;
use std::io::{self, BufRead};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::metadata::{Device, Xattrs};

/// A device node, for which an empty file stands in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LedgerDevice {
    /// Character device with major and minor number.
    Char(u32, u32),
    /// Block device with major and minor number.
    Block(u32, u32),
}

impl LedgerDevice {
    /// Returns the device number, which is the same for both kinds.
    pub fn device(self) -> Device {
        let (Self::Char(major, minor) | Self::Block(major, minor)) = self;
        Device { major, minor }
    }
}

/// What one path should be, where that differs from what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerEntry {
    /// Path inside the root, links followed, relative; empty for the top directory itself.
    pub path: PathBuf,
    /// Owner it should have.
    pub uid: u32,
    /// Group it should have.
    pub gid: u32,
    /// Permission, set-id and sticky bits it should have.
    pub mode: u32,
    /// Device it should be.
    pub dev: Option<LedgerDevice>,
    /// Extended attributes that it should have beside those that it has.
    pub xattrs: Xattrs,
}

/// What is wrong with a ledger.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// Not the JSON of an entry.
    #[error("no ledger entry: {line:?}")]
    Json {
        /// The line.
        line: String,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A number that no file has: more than permission bits, or a device that Linux does not know.
    #[error("no file has the {what} of this ledger entry: {line:?}")]
    Number {
        /// Which number.
        what: &'static str,
        /// The line.
        line: String,
    },
    /// A name or value with a broken escape.
    #[error("no ledger escape: {text:?}")]
    Escape {
        /// The escaped text.
        text: String,
    },
    /// A line of the file is none of a ledger.
    #[error("line {number}")]
    Line {
        /// Its number, from 1.
        number: u64,
        /// What is wrong with it.
        source: Box<LedgerError>,
    },
    /// The last line, which counts the entries, is missing.
    #[error("it is cut short: after {entries} entries the line is missing that counts them")]
    CutShort {
        /// Whole entries that were read.
        entries: u64,
    },
    /// The last line counts other entries than there are.
    #[error("it has {found} entries, and its last line says {expected}")]
    Count {
        /// What the last line says.
        expected: u64,
        /// What was read before it.
        found: u64,
    },
    /// Something follows the last line.
    #[error("line {number} comes after the line that ends it")]
    AfterEnd {
        /// Its number, from 1.
        number: u64,
    },
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The stored form. Text in it is escaped, since JSON has no way to write bytes that are not UTF-8.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    path: String,
    uid: u32,
    gid: u32,
    mode: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dev: Option<LedgerDevice>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    xattrs: Vec<(String, String)>,
}

/// The last line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    entries: u64,
}

/// Returns the last line of a ledger with this many entries, without the line feed.
pub fn end_line(entries: u64) -> String {
    // As `serde_json` would write it.
    format!(r#"{{"entries":{entries}}}"#)
}

/// Reads a whole ledger: its entries, one a line, and the last line, which is [`end_line`].
///
/// # Errors
///
/// Every variant of [`LedgerError`]; [`LedgerError::CutShort`] for any beginning of a ledger that is not all of it.
pub fn read(mut from: impl BufRead) -> Result<Vec<LedgerEntry>, LedgerError> {
    let mut entries = Vec::new();
    let mut text = String::new();
    let mut end = None;
    for number in 1.. {
        text.clear();
        if from.read_line(&mut text)? == 0 {
            break;
        }
        if end.is_some() {
            return Err(LedgerError::AfterEnd { number });
        }
        let Some(line) = text.strip_suffix('\n') else {
            break;
        };
        end = serde_json::from_str(line).ok().map(|end: End| end.entries);
        if end.is_none() {
            let entry = LedgerEntry::from_line(line).map_err(|error| LedgerError::Line {
                number,
                source: Box::new(error),
            })?;
            entries.push(entry);
        }
    }
    let found = entries.len() as u64;
    match end {
        None => Err(LedgerError::CutShort { entries: found }),
        Some(expected) if expected != found => Err(LedgerError::Count { expected, found }),
        Some(_) => Ok(entries),
    }
}

impl LedgerEntry {
    /// Returns the entry as one line of JSON, without the line feed.
    ///
    /// Names and values are printable text; each other byte, and each backslash, is `\x` and two hexadecimal digits.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Json`], which no entry is known to cause.
    pub fn to_line(&self) -> Result<String, LedgerError> {
        let line = Line {
            path: escape(self.path.as_os_str().as_bytes()),
            uid: self.uid,
            gid: self.gid,
            mode: self.mode,
            dev: self.dev,
            xattrs: self
                .xattrs
                .iter()
                .map(|(name, value)| (escape(name), escape(value)))
                .collect(),
        };
        serde_json::to_string(&line).map_err(|source| LedgerError::Json {
            line: line.path,
            source,
        })
    }

    /// Reads what [`to_line`](Self::to_line) wrote.
    ///
    /// # Errors
    ///
    /// Every variant of [`LedgerError`].
    pub fn from_line(text: &str) -> Result<Self, LedgerError> {
        let line: Line = serde_json::from_str(text).map_err(|source| LedgerError::Json {
            line: text.to_owned(),
            source,
        })?;
        let wrong = |what| LedgerError::Number {
            what,
            line: text.to_owned(),
        };
        if line.mode > 0o7777 {
            return Err(wrong("mode"));
        }
        if line.dev.is_some_and(|dev| !dev.device().fits_linux()) {
            return Err(wrong("device number"));
        }
        let pair = |(name, value): &(String, String)| Ok((unescape(name)?, unescape(value)?));
        Ok(Self {
            path: PathBuf::from(OsString::from_vec(unescape(&line.path)?)),
            uid: line.uid,
            gid: line.gid,
            mode: line.mode,
            dev: line.dev,
            xattrs: line
                .xattrs
                .iter()
                .map(pair)
                .collect::<Result<_, LedgerError>>()?,
        })
    }
}

fn escape(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character == '\\' || character.is_control() {
                let mut buffer = [0; 4];
                escape_bytes(&mut text, character.encode_utf8(&mut buffer).as_bytes());
            } else {
                text.push(character);
            }
        }
        escape_bytes(&mut text, chunk.invalid());
    }
    text
}

fn escape_bytes(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        text.push_str(&format!("\\x{byte:02x}"));
    }
}

fn unescape(text: &str) -> Result<Vec<u8>, LedgerError> {
    let broken = || LedgerError::Escape {
        text: text.to_owned(),
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let digits = rest[at..]
            .strip_prefix("\\x")
            .and_then(|rest| rest.get(..2))
            .ok_or_else(broken)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| broken())?);
        rest = &rest[at + 4..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_keeps_names_and_values_of_any_bytes() {
        let entry = LedgerEntry {
            path: PathBuf::from(OsString::from_vec(b"a\\x41\n\xff\xc3\xa9/\"z".to_vec())),
            uid: 3_000_000,
            gid: 42,
            mode: 0o4755,
            dev: Some(LedgerDevice::Char(1, 3)),
            xattrs: [(b"security.capability".to_vec(), vec![1, 0, 10, 0xff])].into(),
        };
        let line = entry.to_line().expect("an entry");
        assert!(!line.contains('\n'));
        assert!(line.contains("é"), "{line}");
        assert_eq!(LedgerEntry::from_line(&line).expect("our own line"), entry);
    }

    fn ledger(count: u32) -> String {
        let line = |uid| format!("{{\"path\":\"a\",\"uid\":{uid},\"gid\":0,\"mode\":420}}\n");
        (0..count).map(line).collect::<String>() + &end_line(count.into()) + "\n"
    }

    #[test]
    fn a_ledger_is_whole_or_said_to_be_cut_short() {
        for count in [0, 3] {
            let whole = ledger(count);
            let read_back = read(whole.as_bytes()).expect("whole");
            assert_eq!(read_back.len(), count as usize);
            for len in 0..whole.len() {
                let error = read(&whole.as_bytes()[..len]).unwrap_err();
                assert!(
                    matches!(error, LedgerError::CutShort { .. }),
                    "{len}: {error}"
                );
            }
        }
    }

    #[test]
    fn lines_that_were_lost_or_added_are_told() {
        let lost = ledger(3).replacen("{\"path\":\"a\",\"uid\":1,\"gid\":0,\"mode\":420}\n", "", 1);
        let two = ledger(1) + &ledger(1);
        for (text, words) in [
            (lost, "it has 2 entries, and its last line says 3"),
            (two, "line 3 comes after the line that ends it"),
            ("x\n".to_owned() + &ledger(0), "line 1"),
        ] {
            assert_eq!(read(text.as_bytes()).unwrap_err().to_string(), words);
        }
    }

    #[test]
    fn a_key_that_is_not_known_is_refused_with_its_line() {
        let added = ledger(2).replacen("\"uid\":1,", "\"uid\":1,\"guid\":7,", 1);
        let error = read(added.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), "line 2");
        let LedgerError::Line { source, .. } = error else {
            panic!("{error:?}")
        };
        let LedgerError::Json { source, .. } = *source else {
            panic!("{source:?}")
        };
        assert!(
            source.to_string().contains("unknown field `guid`"),
            "{source}"
        );
    }

    #[test]
    fn numbers_that_no_file_has_are_refused() {
        for rest in [
            r#""mode":99999999"#,
            r#""mode":420,"dev":{"char":[4096,0]}"#,
            r#""mode":420,"dev":{"block":[8,1048576]}"#,
        ] {
            let line = format!(r#"{{"path":"a","uid":0,"gid":0,{rest}}}"#);
            let error = LedgerEntry::from_line(&line).unwrap_err();
            assert!(matches!(error, LedgerError::Number { .. }), "{error}");
        }
    }

    #[test]
    fn broken_escapes_are_refused() {
        for text in ["\\", "\\x", "\\x4", "\\y41", "\\xzz", "\\x4é"] {
            assert!(unescape(text).is_err(), "{text}");
        }
    }
}
