//! Pushes blobs and manifests, and proves what was pushed.

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Method, StatusCode};

use super::body::{BlobSource, Payload};
use super::client::{Place, Registry};
use super::error::RegistryError;
use super::pull::{MAX_MANIFEST, manifest_call};
use super::reference::Reference;
use super::token;
use super::transport::Call;
use super::upload::Upload;
use super::wait::Progress;
use kfactory_layers::digest::Digest;

/// How a blob came to be in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobOutcome {
    /// It was there.
    Present,
    /// The registry took it from another of its repositories.
    Mounted,
    /// Its bytes were sent.
    Uploaded,
}

impl Registry {
    /// Proves that `reference`'s repository can be pushed to, by opening an upload and giving it up.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Unauthorized`] and [`RegistryError::Forbidden`] name the credential sources tried.
    pub async fn check_push(&self, reference: &Reference) -> Result<(), RegistryError> {
        let place = self.push_place(reference, None).await?;
        let session = self.start_upload(&place).await?;
        self.cancel_upload(&place, session).await;
        Ok(())
    }

    /// Whether `reference`'s repository has the blob. Asks the registry itself, with the right to push.
    ///
    /// # Errors
    ///
    /// As [`check_push`](Self::check_push); a repository that does not exist yet is no error.
    pub async fn has_blob(
        &self,
        reference: &Reference,
        digest: &Digest,
    ) -> Result<bool, RegistryError> {
        self.has_blob_at(&self.push_place(reference, None).await?, digest)
            .await
    }

    async fn has_blob_at(&self, place: &Place, digest: &Digest) -> Result<bool, RegistryError> {
        let call = Call::new(Method::HEAD, place.url(&format!("blobs/{digest}")));
        match self.ask(place, &call, &[StatusCode::OK]).await {
            Ok(_) => Ok(true),
            Err(RegistryError::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Asks the registry to take the blob from `from`'s repository; whether it did.
    ///
    /// `false` as well when the two are on different registries, or the registry refuses: then the blob has to be
    /// pushed.
    ///
    /// # Errors
    ///
    /// Where the registry cannot be reached or does not follow the protocol.
    pub async fn mount_blob(
        &self,
        reference: &Reference,
        digest: &Digest,
        from: &Reference,
    ) -> Result<bool, RegistryError> {
        if from.registry() != reference.registry() {
            return Ok(false);
        }
        let place = self.push_place(reference, Some(from)).await?;
        match self
            .start_mount(&place, digest, &self.repository_of(from)?)
            .await
        {
            Ok(None) => Ok(true),
            Ok(Some(session)) => {
                self.cancel_upload(&place, session).await;
                Ok(false)
            }
            Err(error) if is_refusal(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Pushes a blob of `size` bytes to `reference`'s repository, whether or not it is there.
    ///
    /// The blob is sent in one request, read from its file as it goes; in pieces where the registry refuses that or
    /// [`chunk_size`](super::RegistryOptions::chunk_size) says so. A broken upload goes on where the registry says it
    /// stopped. `progress` is called some ten times a second with the bytes sent, and may go down.
    ///
    /// # Errors
    ///
    /// - [`RegistryError::SizeMismatch`]: `source` has another size; nothing was sent.
    /// - [`RegistryError::Refused`] with code `DIGEST_INVALID`: `source` has another digest.
    /// - as [`check_push`](Self::check_push) otherwise.
    pub async fn push_blob(
        &self,
        reference: &Reference,
        digest: &Digest,
        size: u64,
        source: impl Into<BlobSource>,
        progress: Progress<'_>,
    ) -> Result<(), RegistryError> {
        let source = source.into();
        check_source(&source, digest, size)?;
        let place = self.push_place(reference, None).await?;
        let upload = Upload {
            registry: self,
            place: &place,
            digest,
            size,
            source: &source,
            progress,
        };
        upload.run(None).await
    }

    /// Makes sure that `reference`'s repository has the blob: looks, then tries to mount it from `from`, then pushes.
    ///
    /// `progress` is called for bytes that are sent only, as by [`push_blob`](Self::push_blob).
    ///
    /// # Errors
    ///
    /// As [`push_blob`](Self::push_blob).
    pub async fn ensure_blob(
        &self,
        reference: &Reference,
        digest: &Digest,
        size: u64,
        source: impl Into<BlobSource>,
        from: Option<&Reference>,
        progress: Progress<'_>,
    ) -> Result<BlobOutcome, RegistryError> {
        let source = source.into();
        check_source(&source, digest, size)?;
        let from = from.filter(|from| from.registry() == reference.registry());
        let place = self.push_place(reference, from).await?;
        if self.has_blob_at(&place, digest).await? {
            return Ok(BlobOutcome::Present);
        }
        let mut session = None;
        if let Some(from) = from {
            session = match self
                .start_mount(&place, digest, &self.repository_of(from)?)
                .await
            {
                Ok(None) => return Ok(BlobOutcome::Mounted),
                Ok(session) => session,
                Err(error) if is_refusal(&error) => None,
                Err(error) => return Err(error),
            };
        }
        let upload = Upload {
            registry: self,
            place: &place,
            digest,
            size,
            source: &source,
            progress,
        };
        upload.run(session).await?;
        Ok(BlobOutcome::Uploaded)
    }

    /// Pushes a manifest or index under `reference`'s tag, or its digest where it has no tag, and reads it back.
    ///
    /// It is read back by digest and by tag, and compared byte for byte. Returns its SHA-256 digest.
    ///
    /// # Errors
    ///
    /// - [`RegistryError::DigestMismatch`]: `reference` has a digest and it is not that of `bytes`; nothing was sent.
    /// - [`RegistryError::ReadBack`]: the registry holds something else, or somebody else pushed the tag meanwhile.
    /// - as [`check_push`](Self::check_push) otherwise.
    ///
    /// Spec: distribution-spec, "Pushing Manifests".
    pub async fn push_manifest(
        &self,
        reference: &Reference,
        bytes: impl Into<Bytes>,
        media_type: &str,
    ) -> Result<Digest, RegistryError> {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        if let Some(expected) = reference
            .digest()
            .copied()
            .filter(|expected| *expected != digest)
        {
            let what = format!("manifest to push to `{reference}`");
            return Err(RegistryError::DigestMismatch {
                what,
                expected,
                found: digest,
            });
        }
        let place = self.push_place(reference, None).await?;
        let tagged = reference
            .tag()
            .map(|tag| reference.with_tag(tag))
            .transpose()?;
        let pinned = reference.with_digest(digest);
        let mut call = manifest_call(&place, Method::PUT, tagged.as_ref().unwrap_or(&pinned));
        let header = HeaderValue::from_str(media_type).map_err(|_| RegistryError::Manifest {
            reference: reference.to_string(),
            problem: format!("media type {media_type:?} does not fit in a header"),
        })?;
        call.headers.insert(CONTENT_TYPE, header);
        call.payload = Payload::Bytes(bytes.clone());
        self.ask(&place, &call, &[StatusCode::CREATED, StatusCode::OK])
            .await?;
        for written in [Some(&pinned), tagged.as_ref()].into_iter().flatten() {
            self.read_back(&place, written, &bytes).await?;
        }
        Ok(digest)
    }

    /// Reads `written` until it is `bytes`: some registries show a new tag only after a moment.
    async fn read_back(
        &self,
        place: &Place,
        written: &Reference,
        bytes: &Bytes,
    ) -> Result<(), RegistryError> {
        let call = manifest_call(place, Method::GET, written);
        let mut failed = 0;
        loop {
            let outcome = match self.ask(place, &call, &[StatusCode::OK]).await {
                Ok(reply) => reply.body(MAX_MANIFEST).await,
                Err(error) => Err(error),
            };
            let error = match outcome {
                Ok(found) if found == bytes => return Ok(()),
                Ok(found) => RegistryError::ReadBack {
                    reference: written.to_string(),
                    expected: Digest::of(bytes),
                    found: Digest::of(&found),
                },
                Err(error) => error,
            };
            failed += 1;
            match self.retry().pause_for_consistency(failed, &error) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(error),
            }
        }
    }

    /// Prepares pushing to `reference`, and pulling from `from` on the same registry.
    async fn push_place(
        &self,
        reference: &Reference,
        from: Option<&Reference>,
    ) -> Result<Place, RegistryError> {
        let endpoint = self.push_endpoint(reference)?;
        let source = from.map(|from| self.repository_of(from)).transpose()?;
        let scopes = source
            .iter()
            .map(|source| token::pull(source))
            .chain([token::push(&endpoint.repository)]);
        self.place(&endpoint, scopes.collect()).await
    }

    /// Returns the repository that the registry itself knows `reference` by.
    fn repository_of(&self, reference: &Reference) -> Result<String, RegistryError> {
        Ok(self.push_endpoint(reference)?.repository)
    }
}

fn check_source(source: &BlobSource, digest: &Digest, size: u64) -> Result<(), RegistryError> {
    let found = source.len().map_err(|error| match source {
        BlobSource::File(path) => RegistryError::File {
            path: path.clone(),
            source: error,
        },
        BlobSource::Bytes(_) => RegistryError::File {
            path: "memory".into(),
            source: error,
        },
    })?;
    if found == size {
        return Ok(());
    }
    Err(RegistryError::SizeMismatch {
        what: format!("blob {digest} to push"),
        expected: size,
        found,
    })
}

/// Whether the registry was reached and said no; to a mount that only means that it has to be pushed.
fn is_refusal(error: &RegistryError) -> bool {
    match error {
        RegistryError::NotFound(_)
        | RegistryError::Unauthorized { .. }
        | RegistryError::Forbidden { .. } => true,
        RegistryError::Refused(refusal) => (400..500).contains(&refusal.status),
        _ => false,
    }
}
