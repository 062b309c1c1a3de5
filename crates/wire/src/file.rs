//! The Files API's shapes, current dialect (wire.md §9).

use belljar_ids::FileId;
use serde::Serialize;

/// A file's metadata (wire.md §9.1). `expires_at` is always present in the current dialect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileObject {
    /// `file_…`.
    pub id: FileId,
    /// Always `file`.
    #[serde(rename = "type")]
    pub tag: FileTag,
    /// Base name, 1 to 255 characters.
    pub filename: String,
    /// As declared at upload, or detected.
    pub mime_type: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// RFC 3339 with microseconds and `Z`.
    pub created_at: String,
    /// True for files that code made, false for uploads.
    pub downloadable: bool,
    /// RFC 3339, or null when the file stays until it is deleted.
    pub expires_at: Option<String>,
}

/// The constant `file`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FileTag {
    /// `file`.
    #[default]
    File,
}

/// One page of files, newest first (wire.md §9.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FilePage {
    /// The files.
    pub data: Vec<FileObject>,
    /// The cursor of the next page, or null.
    pub next_page: Option<String>,
}

/// Reply to a delete (wire.md §9.4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileDeleted {
    /// `file_…`.
    pub id: FileId,
    /// Always `file_deleted`.
    #[serde(rename = "type")]
    pub tag: FileDeletedTag,
}

/// The constant `file_deleted`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FileDeletedTag {
    /// `file_deleted`.
    #[default]
    FileDeleted,
}
