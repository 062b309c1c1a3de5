//! What images and documents by file id show (wire.md §9.5): found and read before the first sampling.
//!
//! `turn` lists the places, without knowing a store; `model` puts in what is read here, each time that it lowers the conversation.
//! Nobody else sees more than the ids: neither the conversation that the turn keeps nor the digest of a continuation.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use belljar_store::{Content, FileRecord};
use belljar_wire::error::ApiError;
use belljar_wire::media::{FileContent, FileMention};
use tokio::io::AsyncReadExt as _;

use crate::app::Shared;
use crate::clock;
use crate::failure::Failure;
use crate::principal::Principal;
use crate::routes::files::{expired, find, missing, store_failure};

/// The type of the files that are shown as text.
const PLAIN_TEXT: &str = "text/plain";

/// What the mentioned files hold, by id.
///
/// # Errors
/// 404 for a file that the workspace has not; 400 for one that has expired, that its block cannot show, or that is too much. All
/// of them together, each as often as it is mentioned, may be as large as a request that had them inline.
pub async fn read_all(
    app: &Shared,
    principal: &Principal,
    mentions: &[FileMention],
) -> Result<BTreeMap<String, FileContent>, Failure> {
    let mut records: BTreeMap<&str, FileRecord> = BTreeMap::new();
    let mut bytes = 0_u64;
    for mention in mentions {
        let record = match records.get(mention.file_id.as_str()) {
            Some(record) => record,
            None => {
                let found = find(app, principal, &mention.file_id).await?;
                records.entry(&mention.file_id).or_insert(found)
            }
        };
        fits(record, mention)?;
        bytes = bytes.saturating_add(record.size_bytes.div_ceil(3).saturating_mul(4));
        if bytes > app.serving.request_bytes_max as u64 {
            return Err(too_much(mention, app.serving.request_bytes_max).into());
        }
    }
    let mut contents = BTreeMap::new();
    for (id, record) in records {
        contents.insert(id.to_owned(), read(app, principal, &record).await?);
    }
    Ok(contents)
}

/// Whether a block can show a file.
fn fits(record: &FileRecord, mention: &FileMention) -> Result<(), ApiError> {
    if record.expired(clock::now()) {
        return Err(expired(record));
    }
    let (tag, shows) = (mention.kind.tag(), mention.kind.media_types());
    if shows.contains(&media_type(record).as_str()) {
        return Ok(());
    }
    Err(ApiError::invalid(format!(
        "{}: File `{}` is `{}`, which no `{tag}` block shows: that takes {}. A `container_upload` block takes any file.",
        mention.at,
        record.id,
        record.mime_type,
        shows.join(", ")
    )))
}

/// The type without its parameters: `text/plain; charset=utf-8` is plain text.
fn media_type(record: &FileRecord) -> String {
    let essence = record.mime_type.split_once(';').map_or(record.mime_type.as_str(), |(essence, _)| essence);
    essence.trim().to_ascii_lowercase()
}

fn too_much(mention: &FileMention, bytes_max: usize) -> ApiError {
    ApiError::invalid(format!(
        "{}: File `{}` is too large: in base64, the images and documents of a request may have {bytes_max} bytes.",
        mention.at, mention.file_id
    ))
}

async fn read(app: &Shared, principal: &Principal, record: &FileRecord) -> Result<FileContent, Failure> {
    let opened = app.store.open_content(&principal.workspace, &record.id).await.map_err(store_failure)?;
    let file = match opened {
        Some(Content::Open { file, .. }) => file,
        Some(Content::Expired { record }) => return Err(expired(&record).into()),
        None => return Err(missing(record.id.as_str())),
    };
    let mut bytes = Vec::with_capacity(usize::try_from(record.size_bytes).unwrap_or_default());
    file.take(record.size_bytes).read_to_end(&mut bytes).await.map_err(|error| Failure::internal("file", &error))?;
    let media_type = media_type(record);
    if media_type == PLAIN_TEXT {
        let text = String::from_utf8(bytes);
        let not_text = |_| ApiError::invalid(format!("File `{}` is not text in UTF-8.", record.id));
        return text.map(FileContent::Text).map_err(|error| not_text(error).into());
    }
    let encoded = tokio::task::spawn_blocking(move || STANDARD.encode(bytes)).await;
    let data = encoded.map_err(|error| Failure::internal("file", &error))?;
    Ok(FileContent::Encoded { media_type, data })
}
