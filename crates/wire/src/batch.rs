//! Message Batches (wire.md §17.3): the request that makes one, read without parsing what its items ask for, and the shapes of the
//! answers.

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;

use belljar_ids::BatchId;
use serde::Serialize;
use serde::de::{Deserializer as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::{ApiError, ErrorBody};
use crate::message::Message;
use crate::read::{Brief, Path};

/// Most requests in one batch (wire.md §2.8).
pub const BATCH_ITEMS_MAX: usize = 100_000;
/// Most bytes of one batch (wire.md §2.8).
pub const BATCH_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Most characters of a `custom_id`.
const CUSTOM_ID_CHARS_MAX: usize = 64;

/// One request of a batch, as it was sent. What `params` asks for is looked at when it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchItem<'a> {
    /// The client's name for it, unique within the batch.
    pub custom_id: String,
    /// The body of a Messages request: a JSON object, as text.
    pub params: &'a str,
}

/// Reads the body of `POST /v1/messages/batches`.
///
/// # Errors
/// 400 with the field's path: no list, an empty or too long one, a name that is malformed or there twice (wire.md §19 row 43), `params`
/// that are no object.
pub fn read(body: &[u8]) -> Result<Vec<BatchItem<'_>>, ApiError> {
    let [requests] = members(body, Path::Root, ["requests"])?;
    let path = Path::Root.key("requests");
    let requests = requests.ok_or_else(|| path.error("Field required"))?;
    let requests = elements(requests, &path)?;
    if requests.is_empty() {
        return Err(path.error("List should have at least 1 item after validation, not 0"));
    }
    let mut names = HashSet::with_capacity(requests.len());
    let mut items = Vec::with_capacity(requests.len());
    for (index, request) in requests.into_iter().enumerate() {
        let path = path.index(index);
        let item = read_item(request, path)?;
        if !names.insert(item.custom_id.clone()) {
            let id = &item.custom_id;
            return Err(path.key("custom_id").error(format_args!("`{id}` is there twice; each must be unique")));
        }
        items.push(item);
    }
    Ok(items)
}

fn read_item<'a>(request: &'a RawValue, path: Path<'_>) -> Result<BatchItem<'a>, ApiError> {
    let [custom_id, params] = members(request.get().as_bytes(), path, ["custom_id", "params"])?;
    let name = path.key("custom_id");
    let custom_id = custom_id.ok_or_else(|| name.error("Field required"))?;
    let custom_id: String =
        serde_json::from_str(custom_id.get()).map_err(|_| name.error("Input should be a valid string"))?;
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if custom_id.is_empty() || custom_id.len() > CUSTOM_ID_CHARS_MAX || !custom_id.bytes().all(legal) {
        return Err(name.error("String should match pattern '^[a-zA-Z0-9_-]{1,64}$'"));
    }
    let asked = path.key("params");
    let params = params.ok_or_else(|| asked.error("Field required"))?.get();
    if !params.starts_with('{') {
        return Err(asked.error("Input should be an object"));
    }
    Ok(BatchItem { custom_id, params })
}

/// What stops the parser before the end.
enum Fault {
    Unknown(String),
    Duplicate(&'static str),
    TooMany,
}

/// The members of an object by their keys, each as text. Stops at the first key that has no place: a body may hold 256 MB of them.
fn members<'a, const N: usize>(
    text: &'a [u8],
    path: Path<'_>,
    keys: [&'static str; N],
) -> Result<[Option<&'a RawValue>; N], ApiError> {
    if !text.trim_ascii_start().starts_with(b"{") {
        return Err(match path {
            Path::Root => ApiError::invalid("The request body is not valid JSON: expected an object"),
            Path::Key(..) | Path::Index(..) => path.error("Input should be an object"),
        });
    }
    let fault = Cell::new(None);
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let found = deserializer.deserialize_map(Members { keys, fault: &fault });
    let found = found.and_then(|found| deserializer.end().map(|()| found));
    found.map_err(|error| said(fault.take(), &error, &path))
}

/// The elements of a list, each as text.
fn elements<'a>(list: &'a RawValue, path: &Path<'_>) -> Result<Vec<&'a RawValue>, ApiError> {
    if !list.get().starts_with('[') {
        return Err(path.error("Input should be a valid list"));
    }
    let fault = Cell::new(None);
    let mut deserializer = serde_json::Deserializer::from_str(list.get());
    deserializer.deserialize_seq(Elements { fault: &fault }).map_err(|error| said(fault.take(), &error, path))
}

fn said(fault: Option<Fault>, error: &serde_json::Error, path: &Path<'_>) -> ApiError {
    match fault {
        Some(Fault::Unknown(key)) => path.key(&key).error("Extra inputs are not permitted"),
        Some(Fault::Duplicate(key)) => {
            ApiError::invalid(format!("The request body is refused: duplicate key `{}`", Brief(key)))
        }
        Some(Fault::TooMany) => {
            path.error(format_args!("List should have at most {BATCH_ITEMS_MAX} items after validation"))
        }
        None => ApiError::invalid(format!("The request body is not valid JSON: {error}")),
    }
}

/// Notes what is at fault, and makes the parser stop.
fn stop<E: serde::de::Error>(cell: &Cell<Option<Fault>>, fault: Fault) -> E {
    cell.set(Some(fault));
    E::custom("stopped")
}

struct Members<'c, const N: usize> {
    keys: [&'static str; N],
    fault: &'c Cell<Option<Fault>>,
}

impl<'de, const N: usize> Visitor<'de> for Members<'_, N> {
    type Value = [Option<&'de RawValue>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        while let Some(key) = map.next_key::<String>()? {
            let Some(index) = self.keys.iter().position(|known| *known == key) else {
                return Err(stop(self.fault, Fault::Unknown(key)));
            };
            let value: &RawValue = map.next_value()?;
            if found[index].replace(value).is_some() {
                return Err(stop(self.fault, Fault::Duplicate(self.keys[index])));
            }
        }
        Ok(found)
    }
}

struct Elements<'c> {
    fault: &'c Cell<Option<Fault>>,
}

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        while let Some(element) = seq.next_element()? {
            if found.len() == BATCH_ITEMS_MAX {
                return Err(stop(self.fault, Fault::TooMany));
            }
            found.push(element);
        }
        Ok(found)
    }
}

/// A batch, as the client sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MessageBatch {
    /// `msgbatch_…`.
    pub id: BatchId,
    /// Always `message_batch`.
    #[serde(rename = "type")]
    pub tag: MessageBatchTag,
    /// How far it is.
    pub processing_status: ProcessingStatus,
    /// What its requests came to. All but `processing` stay 0 until the end.
    pub request_counts: RequestCounts,
    /// RFC 3339, like all its times: when its last request came to something.
    pub ended_at: Option<String>,
    /// When it was made.
    pub created_at: String,
    /// When what has not run by then expires.
    pub expires_at: String,
    /// When its results were removed.
    pub archived_at: Option<String>,
    /// When its cancellation was asked for.
    pub cancel_initiated_at: Option<String>,
    /// Where its results are, whole, for as long as there are any. The SDKs ask there as it stands.
    pub results_url: Option<String>,
}

/// The constant `message_batch`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageBatchTag {
    /// `message_batch`.
    #[default]
    MessageBatch,
}

/// How far a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessingStatus {
    /// Its requests run.
    InProgress,
    /// Its cancellation was asked for; requests under way are being ended.
    Canceling,
    /// All its requests came to something.
    Ended,
}

/// How many requests came to what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RequestCounts {
    /// Not yet to anything.
    pub processing: u32,
    /// To a message.
    pub succeeded: u32,
    /// To an error.
    pub errored: u32,
    /// Canceled.
    pub canceled: u32,
    /// Expired.
    pub expired: u32,
}

/// One page of batches, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MessageBatchPage {
    /// The batches.
    pub data: Vec<MessageBatch>,
    /// Whether there are more in the direction asked for.
    pub has_more: bool,
    /// Id of the first one, or null.
    pub first_id: Option<BatchId>,
    /// Id of the last one, or null.
    pub last_id: Option<BatchId>,
}

/// Reply to a delete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MessageBatchDeleted {
    /// `msgbatch_…`.
    pub id: BatchId,
    /// Always `message_batch_deleted`.
    #[serde(rename = "type")]
    pub tag: MessageBatchDeletedTag,
}

/// The constant `message_batch_deleted`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageBatchDeletedTag {
    /// `message_batch_deleted`.
    #[default]
    MessageBatchDeleted,
}

/// What a request of a batch came to: `result` of a line of the results.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum BatchResult {
    /// Its reply.
    Succeeded {
        /// The message.
        message: Box<Message>,
    },
    /// Its error, in the envelope that a request of its own would have got.
    Errored {
        /// The envelope.
        error: Box<ErrorBody>,
    },
    /// It was canceled before it ended.
    Canceled,
    /// Its batch expired before it ended.
    Expired,
}
