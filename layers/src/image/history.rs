//! History entries: what each step of a build did to an image.

use serde::{Deserialize, Serialize};

use crate::time::rfc3339;

/// One entry of an image's history: which step made a layer, or changed only the config.
///
/// Spec: image-spec `config.md`, `history`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When, as RFC 3339; [`crate::time::rfc3339`] makes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The command or step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Who wrote the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Anything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether the step made no layer. Set by the methods of [`Image`](crate::image::Image), whatever the caller gives.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

impl History {
    /// Makes an entry for the step `created_by`.
    pub fn by(created_by: impl Into<String>) -> Self {
        Self {
            created_by: Some(created_by.into()),
            ..Self::default()
        }
    }

    /// Returns this entry with a time, in seconds since 1970.
    #[must_use]
    pub fn at(mut self, epoch_secs: i64) -> Self {
        self.created = Some(rfc3339(epoch_secs));
        self
    }

    /// Returns this entry with a comment.
    #[must_use]
    pub fn comment(mut self, comment: impl Into<String>) -> Self {
        self.comment = Some(comment.into());
        self
    }
}
