//! Debian packages without compression: `deb(5)` allows each member of the archive to be stored as it is.
//!
//! dpkg reads such a package as it reads any other; it only need not wait for xz, nor look up who root is.

use std::io::{self, BufRead as _, Read, Seek, SeekFrom, Write};

use super::ar::{self, HEADER_BYTES, Header, MAGIC, NAME, SIZE, invalid};
use super::owners::WithoutRoot;

/// Writes the package read from `from` to `to` with every member decompressed.
///
/// # Errors
///
/// `InvalidData` for what is no package, and `Unsupported` for a compression other than gzip, xz and zstd; what was written by
/// then is of no use.
pub fn decompress<W: Write + Seek>(from: impl Read, to: &mut W) -> io::Result<()> {
    let mut from = io::BufReader::with_capacity(1 << 16, from);
    ar::read_magic(&mut from)?;
    to.write_all(MAGIC)?;
    while let Some(mut header) = ar::read_header(&mut from)? {
        let size = ar::size_of(&header)?;
        let mut member = from.by_ref().take(size);
        let start = to.stream_position()?;
        to.write_all(&header)?;
        let name = copy_member(&header, &mut member, to)?;
        let end = to.stream_position()?;
        // What a decompressor left unread, and the byte that makes the next header's place even.
        io::copy(&mut member, &mut io::sink())?;
        if size % 2 == 1 {
            from.read_exact(&mut [0])?;
        }
        write_header(&mut header, &name, end - start - HEADER_BYTES as u64)?;
        to.seek(SeekFrom::Start(start))?;
        to.write_all(&header)?;
        to.seek(SeekFrom::Start(end))?;
        if (end - start) % 2 == 1 {
            to.write_all(b"\n")?;
        }
    }
    Ok(())
}

fn write_header(header: &mut Header, name: &str, size: u64) -> io::Result<()> {
    let size = size.to_string();
    if name.len() > NAME.len() || size.len() > SIZE.len() {
        return Err(invalid("a member is larger than the format can say"));
    }
    header[NAME].copy_from_slice(format!("{name:<16}").as_bytes());
    header[SIZE].copy_from_slice(format!("{size:<10}").as_bytes());
    Ok(())
}

/// Copies a member's content, decompressed, and returns its new name.
fn copy_member(header: &Header, member: &mut impl Read, to: &mut impl Write) -> io::Result<String> {
    let name = ar::name_of(header)?;
    let Some((plain, compression)) = name.trim_end_matches('/').rsplit_once(".tar.") else {
        if io::copy(member, to)? != ar::size_of(header)? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        return Ok(name.to_owned());
    };
    let mut copy = |from: &mut dyn Read| io::copy(&mut WithoutRoot::new(from), to);
    match compression {
        "gz" => copy(&mut flate2::read::MultiGzDecoder::new(member))?,
        "xz" => {
            let mut member = io::BufReader::new(member);
            let count = copy(&mut liblzma::bufread::XzDecoder::new(&mut member))?;
            // Versions of dpkg do not agree on what follows the first stream.
            if !member.fill_buf()?.is_empty() {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    "several streams of xz",
                ));
            }
            count
        }
        "zst" => copy(&mut zstd::Decoder::new(member)?)?,
        other => {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("compression `{other}`"),
            ));
        }
    };
    Ok(format!("{plain}.tar"))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn member(name: &str, content: &[u8]) -> Vec<u8> {
        let mut header = [b' '; HEADER_BYTES];
        header[58..].copy_from_slice(b"`\n");
        write_header(&mut header, name, content.len() as u64).unwrap();
        let mut out = [&header[..], content].concat();
        if content.len() % 2 == 1 {
            out.push(b'\n');
        }
        out
    }

    fn package(members: &[(&str, &[u8])]) -> Vec<u8> {
        let members = members.iter().map(|(name, content)| member(name, content));
        [MAGIC.to_vec(), members.collect::<Vec<_>>().concat()].concat()
    }

    fn decompressed(package: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Cursor::new(Vec::new());
        decompress(package, &mut out).map(|()| out.into_inner())
    }

    fn xz(content: &[u8]) -> Vec<u8> {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn what_was_compressed_in_pieces_is_whole_or_left_to_dpkg() {
        for (name, compressed) in [
            ("data.tar.gz", [gzip(b"da"), gzip(b"ta!")].concat()),
            (
                "data.tar.zst",
                [&b"da"[..], b"ta!"]
                    .map(|part| zstd::encode_all(part, 1).unwrap())
                    .concat(),
            ),
        ] {
            let whole = decompressed(&package(&[(name, &compressed)])).unwrap();
            assert_eq!(whole, package(&[("data.tar", b"data!")]), "{name}");
        }
        let pieces = [xz(b"da"), xz(b"ta!")].concat();
        let refused = decompressed(&package(&[("data.tar.xz", &pieces)])).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
    }

    #[test]
    fn every_member_is_stored_as_it_is_and_keeps_its_order() {
        let xz = xz(b"control");
        let zst = zstd::encode_all(&b"data!"[..], 1).unwrap();
        let compressed = package(&[
            ("debian-binary", b"2.0\n"),
            ("control.tar.xz", &xz),
            ("data.tar.zst", &zst),
            ("_gpgorigin", b"odd"),
        ]);
        let plain = package(&[
            ("debian-binary", b"2.0\n"),
            ("control.tar", b"control"),
            ("data.tar", b"data!"),
            ("_gpgorigin", b"odd"),
        ]);
        assert_eq!(decompressed(&compressed).unwrap(), plain);
        assert_eq!(decompressed(&plain).unwrap(), plain);
    }

    #[test]
    fn what_is_no_package_is_an_error() {
        for (bytes, kind) in [
            (&b"!<arch"[..], io::ErrorKind::UnexpectedEof),
            (b"PK\x03\x04....", io::ErrorKind::InvalidData),
            (
                &package(&[("data.tar.lzma", b"x")]),
                io::ErrorKind::Unsupported,
            ),
            (
                &package(&[("data.tar.zst", b"nonsense")]),
                io::ErrorKind::Other,
            ),
            (
                &package(&[("data", b"cut")])[..40],
                io::ErrorKind::UnexpectedEof,
            ),
        ] {
            assert_eq!(decompressed(bytes).unwrap_err().kind(), kind);
        }
    }
}
