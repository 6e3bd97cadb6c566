//! From the headers of one entry to the entry.

use std::ffi::OsString;
use std::ops::Range;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::ReadError;
use super::header::{self, Format, Header};
use super::pax;
use super::sparse::PaxSparse;
use crate::metadata::{Device, Entry, EntryKind, MODE_BITS, Timestamp, Xattrs};

/// What the extended headers in front of an entry said.
#[derive(Debug, Default)]
pub(super) struct Extensions {
    pub(super) long_name: Option<Vec<u8>>,
    pub(super) long_link: Option<Vec<u8>>,
    pub(super) records: Option<Vec<u8>>,
    /// Bytes of memory that all of this takes.
    pub(super) taken: u64,
}

/// What the PAX records in front of an entry said.
#[derive(Debug, Default)]
struct Records {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<Timestamp>,
    xattrs: Xattrs,
    sparse: PaxSparse,
}

/// What the headers of one entry say.
pub(super) struct Decoded {
    /// A file's size is not set yet: that of a sparse file may stand in its content.
    pub(super) entry: Entry,
    /// Bytes of content in the archive, 0 for all but files.
    pub(super) stored: u64,
    pub(super) sparse: PaxSparse,
}

/// Reads `header`, with what the extended headers before it said in the place of its own fields.
pub(super) fn decode(header: &Header, extensions: Extensions) -> Result<Decoded, ReadError> {
    let name = header_name(header);
    let shown = extensions.long_name.as_ref().unwrap_or(&name).clone();
    let invalid = |field| ReadError::InvalidField {
        path: path_from(shown.clone()),
        field,
    };
    let records =
        parse_records(extensions.records.as_deref().unwrap_or_default()).map_err(invalid)?;
    refuse_two_names(&extensions, &records, &shown)?;
    let path = records.sparse.name.clone().or(records.path);
    let path = path.or(extensions.long_name).unwrap_or(name);
    let link = records.link.or(extensions.long_link);
    let link = link.unwrap_or_else(|| header.bytes(header::LINK).to_vec());
    if path.is_empty() || path.contains(&0) {
        return Err(invalid("path"));
    }
    if link.contains(&0) {
        return Err(invalid("link target"));
    }
    let kind = kind(header, &path, link).map_err(|kind| match kind {
        Some(field) => invalid(field),
        None => ReadError::Unsupported {
            path: path_from(path.clone()),
            kind: header.kind().into(),
        },
    })?;
    let stored = match kind {
        EntryKind::File { .. } => records.size.or_else(|| number(header, header::SIZE)),
        // A second name that only those see who look for sparse files.
        _ if records.sparse.name.is_some() => return Err(invalid("sparse map")),
        _ => Some(0),
    };
    let mtime = || header.number(header::MTIME).map(Timestamp::from_secs);
    Ok(Decoded {
        stored: stored.ok_or_else(|| invalid("size"))?,
        sparse: records.sparse,
        entry: Entry {
            path: path_from(path),
            kind,
            mode: number(header, header::MODE).ok_or_else(|| invalid("mode"))? as u32 & MODE_BITS,
            uid: id(records.uid, header, header::UID).ok_or_else(|| invalid("uid"))?,
            gid: id(records.gid, header, header::GID).ok_or_else(|| invalid("gid"))?,
            mtime: records
                .mtime
                .or_else(mtime)
                .ok_or_else(|| invalid("time"))?,
            xattrs: records.xattrs,
        },
    })
}

/// GNU's and PAX's long names override each other in one tool and the other way round in the next.
fn refuse_two_names(
    extensions: &Extensions,
    records: &Records,
    shown: &[u8],
) -> Result<(), ReadError> {
    let twice = |field| ReadError::Ambiguous {
        path: path_from(shown.to_vec()),
        field,
    };
    if extensions.long_name.is_some() && records.path.is_some() {
        return Err(twice("path"));
    }
    if extensions.long_link.is_some() && records.link.is_some() {
        return Err(twice("link target"));
    }
    Ok(())
}

/// `Err(None)`: unsupported type. `Err(Some(field))`: that field makes no sense.
fn kind(header: &Header, path: &[u8], link: Vec<u8>) -> Result<EntryKind, Option<&'static str>> {
    let device = || {
        let number = |field| u32::try_from(header.number(field)?).ok();
        let device = number(header::MAJOR).zip(number(header::MINOR));
        let device = device.map(|(major, minor)| Device { major, minor });
        let device = device.filter(|device| device.fits_linux());
        device.ok_or(Some("device number"))
    };
    Ok(match header.kind() {
        // Before there was a type for directories, a slash marked them.
        b'0' | b'\0' if path.ends_with(b"/") => EntryKind::Directory,
        b'0' | b'\0' | b'7' | b'S' => EntryKind::File { size: 0 },
        b'1' | b'2' if link.is_empty() => return Err(Some("link target")),
        b'1' => EntryKind::HardLink {
            target: path_from(link),
        },
        b'2' => EntryKind::Symlink {
            target: path_from(link),
        },
        b'3' => EntryKind::CharDevice(device()?),
        b'4' => EntryKind::BlockDevice(device()?),
        b'5' => EntryKind::Directory,
        b'6' => EntryKind::Fifo,
        _ => return Err(None),
    })
}

pub(super) fn header_name(header: &Header) -> Vec<u8> {
    let name = header.bytes(header::NAME);
    let prefix = match header.format() {
        Format::Ustar => header.bytes(header::PREFIX),
        Format::Old | Format::Gnu => &[],
    };
    if prefix.is_empty() {
        return name.to_vec();
    }
    [prefix, b"/", name].concat()
}

pub(super) fn number(header: &Header, field: Range<usize>) -> Option<u64> {
    u64::try_from(header.number(field)?).ok()
}

/// The highest number is no owner but the kernel's word for "leave it".
fn id(record: Option<u64>, header: &Header, field: Range<usize>) -> Option<u32> {
    let value = record.or_else(|| number(header, field))?;
    u32::try_from(value).ok().filter(|id| *id != u32::MAX)
}

/// Returns the field that is invalid as error.
fn parse_records(mut text: &[u8]) -> Result<Records, &'static str> {
    let mut records = Records::default();
    while !text.is_empty() {
        let (key, value) = pax::split_first(&mut text).ok_or("PAX record")?;
        if let Some(name) = key.strip_prefix(pax::XATTR) {
            records.xattrs.insert(pax::xattr_name(name), value.to_vec());
            continue;
        }
        if value.is_empty() {
            // Stands for "as in the ustar header".
            continue;
        }
        if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
            records.sparse.record(key, value).ok_or("sparse map")?;
            continue;
        }
        match key {
            b"path" => records.path = Some(value.to_vec()),
            b"linkpath" => records.link = Some(value.to_vec()),
            b"size" => records.size = Some(pax::parse_decimal(value).ok_or("size")?),
            b"uid" => records.uid = Some(pax::parse_decimal(value).ok_or("uid")?),
            b"gid" => records.gid = Some(pax::parse_decimal(value).ok_or("gid")?),
            b"mtime" => records.mtime = Some(pax::parse_time(value).ok_or("time")?),
            _ => {}
        }
    }
    Ok(records)
}

pub(super) fn path_from(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes))
}
