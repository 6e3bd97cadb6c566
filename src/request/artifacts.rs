//! What a request says of media and disks, checked before anything is pulled.

use super::{Request, Stage};
use crate::artifact::disk::DiskSize;
use crate::artifact::squashfs::Compressor;
use crate::error::{Error, Kind, Result};

impl Request {
    /// Returns whether media or disks are made of the result.
    pub fn has_artifacts(&self) -> bool {
        self.iso.is_some() || !self.raw.is_empty()
    }

    /// Returns how the root filesystem on a medium is compressed, where the request says it.
    ///
    /// # Errors
    ///
    /// A usage error that names what is known.
    pub fn compressor(&self) -> Result<Option<Compressor>> {
        let parse = |text: &String| {
            let cannot = || format!("cannot use `--squash-compression {text}`");
            let parsed: Result<Compressor> = text.parse();
            parsed.map_err(|error| error.context(cannot()).kind_is(Kind::Usage))
        };
        self.squash_compression.as_ref().map(parse).transpose()
    }

    /// Returns how large disks are at least, where the request says it.
    ///
    /// # Errors
    ///
    /// A usage error that says how sizes are written.
    pub fn raw_size(&self) -> Result<Option<DiskSize>> {
        let parse = |text: &String| {
            let parsed = text.parse::<DiskSize>();
            parsed.map_err(|error| {
                Error::from_source(&error)
                    .context(format!("cannot use `--raw-size {text}`"))
                    .kind_is(Kind::Usage)
            })
        };
        self.raw_size.as_ref().map(parse).transpose()
    }

    /// Refuses media and disks that would never boot, and options that go with none.
    pub(super) fn check_artifacts(&self) -> Result<()> {
        self.compressor()?;
        self.raw_size()?;
        if self.raw_size.is_some() && self.raw.is_empty() {
            return Err(Error::usage("`--raw-size` is given, but no `--raw`")
                .hint("only disks have a size of their own"));
        }
        if self.squash_compression.is_some() && self.iso.is_none() {
            return Err(
                Error::usage("`--squash-compression` is given, but no `--iso`")
                    .hint("only media have a squashfs"),
            );
        }
        if !self.has_artifacts() {
            return match self.cloud_config {
                None => Ok(()),
                Some(_) => Err(Error::usage(
                    "`--cloud-config` is given, but neither `--iso` nor `--raw`",
                )
                .hint(
                    "it goes onto media and disks; `--stage-extensions` adds to the image itself",
                )),
            };
        }
        let named = self.iso.iter().chain(&self.raw).chain(&self.cloud_config);
        if named.into_iter().any(String::is_empty) {
            return Err(Error::usage(
                "`--iso`, `--raw` or `--cloud-config` is given without a value",
            )
            .hint("leave out what is not wanted"));
        }
        self.check_boots()
    }

    fn check_boots(&self) -> Result<()> {
        let option = match self.iso {
            Some(_) => "--iso",
            None => "--raw",
        };
        let (other, why) = match () {
            () if self.trusted => (
                "--trusted",
                "an image for Trusted Boot boots as one signed EFI image, and from no other medium",
            ),
            () if self.stage == Stage::Install => (
                "--stage install",
                "the image boots when stage `init` has run too",
            ),
            () if self.has_no_kernel() => (
                "--kernel none",
                "without a kernel in the image nothing boots of it",
            ),
            () => return Ok(()),
        };
        Err(Error::usage(format!("`{option}` does not go with `{other}`")).hint(why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_never_boot_is_refused_before_anything_is_pulled() {
        let whole = Request {
            destinations: vec!["oci:out:v1".into()],
            iso: Some("os.iso".into()),
            raw: vec!["os.raw".into(), "os.qcow2".into()],
            ..Request::new("debian:12")
        };
        assert!(whole.validate().is_ok());
        let change = |with: fn(&mut Request)| {
            let mut request = whole.clone();
            with(&mut request);
            request
        };
        for (request, said) in [
            (change(|it| it.trusted = true), "`--trusted`"),
            (change(|it| it.stage = Stage::Install), "`--stage install`"),
            (change(|it| it.kernel = "none".into()), "`--kernel none`"),
            (change(|it| it.raw_size = Some("x".into())), "--raw-size x"),
            (
                change(|it| {
                    it.raw_size = Some("32G".into());
                    it.raw.clear();
                }),
                "but no `--raw`",
            ),
            (change(|it| it.iso = Some(String::new())), "without a value"),
            (
                change(|it| it.squash_compression = Some("zip".into())),
                "--squash-compression zip",
            ),
            (
                change(|it| {
                    it.iso = None;
                    it.raw.clear();
                    it.cloud_config = Some("c.yaml".into());
                }),
                "neither `--iso` nor `--raw`",
            ),
        ] {
            let error = request.validate().unwrap_err();
            assert_eq!(error.kind(), Kind::Usage);
            let text = error.render_text();
            assert!(text.contains(said), "{text}");
        }
    }
}
