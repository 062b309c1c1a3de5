//! `belljar_files`: the files of a workspace, for code (divergence/host-tools.md).

use belljar_ids::FileId;
use belljar_store::{Content, ContentReader, FileQuery, FileRecord, StoreError, WorkspaceId};
use belljar_wire::file::{FileObject, FilePage};
use belljar_wire::read::Brief;
use belljar_wire::result::ErrorCode;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::io::AsyncReadExt as _;

use super::Refusal;
use crate::app::Shared;
use crate::routes::{files, page};

/// Files on a page unless the code says otherwise, and at most; as in the Files API (wire.md §9.3).
const LIMIT_DEFAULT: u16 = 20;
const LIMIT_MAX: u16 = 1000;
/// The longest text that one call returns: it also stands in the reply. For what is longer there are uploads.
const TEXT_BYTES_MAX: u64 = 1024 * 1024;

/// What code can ask for.
#[derive(Debug, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
enum Ask {
    List { limit: Option<u16>, page: Option<String> },
    Read { file_id: String },
}

/// Answers one call.
pub async fn answer(app: &Shared, workspace: &WorkspaceId, input: Map<String, Value>) -> Result<String, Refusal> {
    let ask = serde_json::from_value(Value::Object(input)).map_err(|error| Refusal::invalid(error.to_string()))?;
    match ask {
        Ask::List { limit, page } => list(app, workspace, limit, page.as_deref()).await,
        Ask::Read { file_id } => read(app, workspace, &file_id).await,
    }
}

async fn list(
    app: &Shared,
    workspace: &WorkspaceId,
    limit: Option<u16>,
    page: Option<&str>,
) -> Result<String, Refusal> {
    let limit = limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(Refusal::invalid(format!("limit: it should be from 1 to {LIMIT_MAX}")));
    }
    let after = page.map(page::cursor).transpose().map_err(|error| Refusal::invalid(error.message))?;
    let found =
        app.store.list_files(workspace, FileQuery::Page { limit, after }).await.map_err(|error| broken(&error))?;
    let data: Vec<FileObject> = found.entries.iter().map(|record| files::object(app, record)).collect();
    let next_page = found.next.map(|cursor| cursor.to_token().to_string());
    serde_json::to_string(&FilePage { data, next_page }).map_err(|error| Refusal::unavailable(error.to_string()))
}

async fn read(app: &Shared, workspace: &WorkspaceId, id: &str) -> Result<String, Refusal> {
    let missing = || Refusal {
        error_code: ErrorCode::FileNotFound,
        error_message: format!("there is no file `{}` in this workspace", Brief(id)),
    };
    let parsed: FileId = id.parse().map_err(|_not_an_id| missing())?;
    let opened = app.store.open_content(workspace, &parsed).await.map_err(|error| broken(&error))?;
    match opened {
        Some(Content::Open { record, file }) => text(&record, file).await,
        Some(Content::Expired { .. }) | None => Err(missing()),
    }
}

async fn text(record: &FileRecord, file: ContentReader) -> Result<String, Refusal> {
    if record.size_bytes > TEXT_BYTES_MAX {
        return Err(Refusal::invalid(format!(
            "`{}` has {} bytes; at most {TEXT_BYTES_MAX} can be read this way",
            record.filename.as_str(),
            record.size_bytes
        )));
    }
    let mut bytes = Vec::new();
    let read = file.take(TEXT_BYTES_MAX).read_to_end(&mut bytes).await;
    read.map_err(|error| {
        tracing::error!(file = %record.id, %error, "a file could not be read for code");
        Refusal::unavailable("the file could not be read")
    })?;
    String::from_utf8(bytes).map_err(|_| Refusal::invalid(format!("`{}` is not UTF-8 text", record.filename.as_str())))
}

/// The operator sees why; the code does not.
fn broken(error: &StoreError) -> Refusal {
    tracing::error!(%error, "the store failed a tool of ours");
    Refusal::unavailable("the files cannot be reached now")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_code_asks_for_is_read_strictly() {
        let cases = [
            (json!({ "command": "delete" }), "unknown variant `delete`, expected `list` or `read`"),
            (json!({}), "missing field `command`"),
            (json!({ "command": "read" }), "missing field `file_id`"),
            (json!({ "command": "read", "file_id": 7 }), "invalid type: integer `7`, expected a string"),
            (json!({ "command": "list", "limit": -1 }), "expected u16"),
            (json!({ "command": "list", "ids": [] }), "unknown field `ids`"),
        ];
        for (input, expected) in cases {
            let error = serde_json::from_value::<Ask>(input.clone()).expect_err("it is refused").to_string();
            assert!(error.contains(expected), "{input}: {error}");
        }
    }
}
