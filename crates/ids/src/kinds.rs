//! One type per kind of identifier.

use crate::mint::{IdSource, minted};
use crate::shape::{Alphabet, ParseIdError, Shape};
use std::sync::Arc;

/// Defines an identifier: its type, its shape, the prefix it is minted with, and every conversion.
macro_rules! id {
    (
        $(#[$doc:meta])*
        $name:ident, $what:literal, mints $mint_prefix:literal,
        accepts $prefix:literal $alphabet:ident $suffix_chars_max:literal
    ) => {
        $(#[$doc])*
        ///
        /// Cloning is cheap: clones share the text.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            const SHAPE: &'static Shape = &Shape {
                what: $what,
                prefix: $prefix,
                alphabet: Alphabet::$alphabet,
                suffix_chars_max: $suffix_chars_max,
            };

            /// The prefix of the ones we mint.
            pub const PREFIX: &'static str = $mint_prefix;

            /// A new one: the prefix, `01`, and 22 base 58 characters from `source`.
            ///
            /// # Panics
            /// When `source` is so far from random that it yields no usable bytes.
            pub fn mint(source: &mut dyn IdSource) -> Self {
                Self(minted(Self::PREFIX, source).into())
            }

            /// The identifier as it stands on the wire.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                Self::SHAPE.check(text)?;
                Ok(Self(text.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseIdError;
            fn try_from(text: String) -> Result<Self, ParseIdError> {
                Self::SHAPE.check(&text)?;
                Ok(Self(text.into()))
            }
        }

        impl TryFrom<&str> for $name {
            type Error = ParseIdError;
            fn try_from(text: &str) -> Result<Self, ParseIdError> {
                text.parse()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.as_ref().to_owned()
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl serde::de::Visitor<'_> for Text {
                    type Value = $name;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        write!(f, "a {} ({})", $what, $name::SHAPE)
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    };
}

id! {
    /// A reply of the Messages API.
    MessageId, "message id", mints "msg_", accepts "msg_" Alphanumeric 64
}
id! {
    /// One HTTP request, in the `request-id` header and in error bodies (wire.md §2.5, §2.6).
    RequestId, "request id", mints "req_", accepts "req_" Alphanumeric 64
}
id! {
    /// A `server_tool_use` block: a tool run by us. The SDKs document `^srvtoolu_[a-zA-Z0-9_]+$`; the length
    /// is bounded here.
    ServerToolUseId, "server tool use id", mints "srvtoolu_", accepts "srvtoolu_" Word 64
}
id! {
    /// A `tool_use` block: a tool run by the caller. Upstreams of every make choose these, so any prefix is
    /// accepted: `[a-zA-Z0-9_-]`, at most 256 characters. Ours begin with `toolu_`.
    ToolUseId, "tool use id", mints "toolu_", accepts "" WordDash 256
}
id! {
    /// A container.
    ContainerId, "container id", mints "container_", accepts "container_" Alphanumeric 64
}
id! {
    /// A container's files as they once were, to go back to or to fork from. The prefix is ours: the hosted API has none.
    CheckpointId, "checkpoint id", mints "checkpoint_", accepts "checkpoint_" Alphanumeric 64
}
id! {
    /// A file of the Files API.
    FileId, "file id", mints "file_", accepts "file_" Alphanumeric 64
}
id! {
    /// A custom skill.
    SkillId, "skill id", mints "skill_", accepts "skill_" Alphanumeric 64
}
id! {
    /// One version of a custom skill.
    SkillVersionId, "skill version id", mints "skver_", accepts "skver_" Alphanumeric 64
}
id! {
    /// A batch of messages.
    BatchId, "message batch id", mints "msgbatch_", accepts "msgbatch_" Alphanumeric 64
}
id! {
    /// A place in a listing, opaque to the client (wire.md §9.3).
    PageToken, "page token", mints "page_", accepts "page_" Alphanumeric 64
}
id! {
    /// An access key's public name; not the key.
    KeyId, "key id", mints "key_", accepts "key_" Alphanumeric 64
}

impl PageToken {
    /// The token that carries `payload`, for whoever encodes a place in a listing.
    pub fn carrying(payload: &str) -> Result<Self, ParseIdError> {
        Self::try_from(format!("{}{payload}", Self::PREFIX))
    }

    /// What the token carries behind its prefix.
    pub fn payload(&self) -> &str {
        &self.as_str()[Self::PREFIX.len()..]
    }
}
