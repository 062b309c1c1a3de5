//! Images and documents that name an uploaded file in place of their content (wire.md §9.5).
//!
//! They are `"source": {"type": "file", "file_id": "file_…"}` in an `image` or `document` block, wherever such a block may stand: in a
//! message, in a tool's result, in the list that is a document's content.

use std::fmt::Display;

use serde_json::{Map, Value};

use crate::block::{Content, ContentBlock};
use crate::error::ApiError;
use crate::read::Path;

/// The kinds of blocks that show a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaKind {
    /// `image`.
    Image,
    /// `document`.
    Document,
}

impl MediaKind {
    /// The kind of the blocks with this `type`.
    pub fn of_tag(tag: &str) -> Option<Self> {
        [Self::Image, Self::Document].into_iter().find(|kind| kind.tag() == tag)
    }

    /// The `type` of its blocks.
    pub const fn tag(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Document => "document",
        }
    }

    /// The types of the files that it shows (wire.md §9.5).
    pub const fn media_types(self) -> &'static [&'static str] {
        match self {
            Self::Image => &["image/jpeg", "image/png", "image/gif", "image/webp"],
            Self::Document => &["application/pdf", "text/plain"],
        }
    }
}

/// A place of a request where a file is to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileMention {
    /// By what.
    pub kind: MediaKind,
    /// Which, as sent: whether it exists is found out where files live.
    pub file_id: String,
    /// The path of the block, for whoever has to refuse it.
    pub at: String,
}

/// What stands in place of a file's name for a model that has none of our files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileContent {
    /// Bytes.
    Encoded {
        /// One of [`MediaKind::media_types`].
        media_type: String,
        /// In base64.
        data: String,
    },
    /// Plain text.
    Text(String),
}

impl FileContent {
    /// The content as a block's `source`.
    pub fn source(&self) -> Value {
        let (tag, media_type, data) = match self {
            Self::Encoded { media_type, data } => ("base64", media_type.as_str(), data),
            Self::Text(text) => ("text", "text/plain", text),
        };
        serde_json::json!({"type": tag, "media_type": media_type, "data": data})
    }
}

/// The files that a block shows, in order. `at` is the block's path.
pub fn mentions(block: &ContentBlock, at: &dyn Display) -> Vec<FileMention> {
    let mut found = Vec::new();
    match block {
        ContentBlock::Passive(block) => mentioned(&block.members, &at.to_string(), &mut found),
        ContentBlock::ToolResult(result) => {
            for (index, inner) in result.content.as_ref().map_or(&[][..], Content::blocks).iter().enumerate() {
                if let ContentBlock::Passive(inner) = inner {
                    mentioned(&inner.members, &format!("{at}.tool_result.content.{index}"), &mut found);
                }
            }
        }
        ContentBlock::Text(_)
        | ContentBlock::Thinking(_)
        | ContentBlock::RedactedThinking(_)
        | ContentBlock::ToolUse(_)
        | ContentBlock::ServerToolUse(_)
        | ContentBlock::CodeExecutionToolResult(_)
        | ContentBlock::BashCodeExecutionToolResult(_)
        | ContentBlock::TextEditorCodeExecutionToolResult(_)
        | ContentBlock::ContainerUpload(_) => {}
    }
    found
}

fn mentioned(members: &Map<String, Value>, at: &str, found: &mut Vec<FileMention>) {
    let Some((kind, source)) = shown(members) else { return };
    match source.get("type").and_then(Value::as_str) {
        Some("file") => {
            let file_id = source.get("file_id").and_then(Value::as_str).unwrap_or_default().to_owned();
            found.push(FileMention { kind, file_id, at: at.to_owned() });
        }
        Some("content") => {
            for (index, item) in listed(source) {
                mentioned(item, &format!("{at}.{}.source.content.{index}", kind.tag()), found);
            }
        }
        Some(_) | None => {}
    }
}

/// A copy of a block's members in which the files that `content_of` knows are shown; others stay named.
pub fn with_content<'a>(
    members: &Map<String, Value>,
    content_of: &impl Fn(&str) -> Option<&'a FileContent>,
) -> Map<String, Value> {
    let Some((_, source)) = shown(members) else { return members.clone() };
    let source = match source.get("type").and_then(Value::as_str) {
        Some("file") => source.get("file_id").and_then(Value::as_str).and_then(content_of).map(FileContent::source),
        Some("content") => source.get("content").and_then(Value::as_array).map(|list| {
            let list = list.iter().map(|item| match item {
                Value::Object(item) => Value::Object(with_content(item, content_of)),
                other => other.clone(),
            });
            Value::Object(with_member(source, "content", list.collect()))
        }),
        Some(_) | None => None,
    };
    source.map_or_else(|| members.clone(), |source| with_member(members, "source", source))
}

/// A copy with another value in the place of one; that one is not copied first.
fn with_member(members: &Map<String, Value>, replaced: &str, value: Value) -> Map<String, Value> {
    let mut value = Some(value);
    let put = |(key, old): (&String, &Value)| {
        let value = if key == replaced { value.take() } else { None };
        (key.clone(), value.unwrap_or_else(|| old.clone()))
    };
    members.iter().map(put).collect()
}

/// Refuses a source that names no file where it says that it does: nobody behind us could make sense of it.
pub(crate) fn check(members: &Map<String, Value>, path: &Path<'_>) -> Result<(), ApiError> {
    let Some((_, source)) = shown(members) else { return Ok(()) };
    let path = path.key("source");
    match source.get("type").and_then(Value::as_str) {
        Some("file") => {
            let path = path.key("file");
            match source.get("file_id") {
                Some(Value::String(_)) => {}
                Some(_) => return Err(path.key("file_id").error("Input should be a valid string")),
                None => return Err(path.key("file_id").error("Field required")),
            }
            let known = |key: &&String| matches!(key.as_str(), "type" | "file_id");
            match source.keys().find(|key| !known(key)) {
                Some(key) => Err(path.key(key).error("Extra inputs are not permitted")),
                None => Ok(()),
            }
        }
        Some("content") => {
            let path = path.key("content");
            for (index, item) in listed(source) {
                let tag = item.get("type").and_then(Value::as_str).unwrap_or_default();
                check(item, &path.index(index).key(tag))?;
            }
            Ok(())
        }
        Some(_) | None => Ok(()),
    }
}

/// What kind of block this is that shows something, and where that comes from.
fn shown(members: &Map<String, Value>) -> Option<(MediaKind, &Map<String, Value>)> {
    let kind = MediaKind::of_tag(members.get("type")?.as_str()?)?;
    Some((kind, members.get("source")?.as_object()?))
}

/// The blocks that are a document's content.
fn listed(source: &Map<String, Value>) -> impl Iterator<Item = (usize, &Map<String, Value>)> {
    let list = source.get("content").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    list.iter().enumerate().filter_map(|(index, item)| Some((index, item.as_object()?)))
}
