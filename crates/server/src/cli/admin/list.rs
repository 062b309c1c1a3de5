//! `belljar admin list`.

use std::ops::ControlFlow;

use belljar_store::{
    Clock as _, HeldContainer, HeldFile, KeyIsolation, KeyRecord, Origin, Records, SystemClock, Timestamp, UserId,
    WorkspaceId,
};
use serde_json::{Value, json};

use super::size::readable;
use super::table::Out;
use super::{Listed, store_failed};
use crate::exit::Exit;

/// Writes one row after the other.
pub(super) fn run(
    records: &Records,
    what: Listed,
    of: Option<&WorkspaceId>,
    limit: Option<u64>,
    mut out: Out,
) -> Result<(), Exit> {
    let mut rows = Rows { left: limit, failed: None };
    if limit != Some(0) {
        match what {
            Listed::Containers => {
                out.columns(["CONTAINER", "WORKSPACE", "USER", "CREATED", "EXPIRES", "KEPT", "KEPT AT"]);
                records
                    .containers(of, |held| rows.then(out.row(|| container_cells(&held), || container(&held))))
                    .map_err(store_failed)?;
            }
            Listed::Files => {
                out.columns(["FILE", "WORKSPACE", "USER", "CREATED", "EXPIRES", "SIZE", "FROM", "NAME"]);
                records
                    .files(of, |held| rows.then(out.row(|| file_cells(&held), || file(&held))))
                    .map_err(store_failed)?;
            }
            Listed::Keys => {
                out.columns(["KEY", "WORKSPACE", "CREATED", "STATE", "SCOPE", "MODELS", "LABEL"]);
                for record in records.keys(of).map_err(store_failed)? {
                    if rows.then(out.row(|| key_cells(&record), || key(&record))).is_break() {
                        break;
                    }
                }
            }
        }
    }
    rows.failed.map_or(Ok(()), Err)?;
    out.end()
}

/// How many rows may still come.
struct Rows {
    left: Option<u64>,
    failed: Option<Exit>,
}

impl Rows {
    fn then(&mut self, written: Result<(), Exit>) -> ControlFlow<()> {
        if let Err(exit) = written {
            self.failed = Some(exit);
            return ControlFlow::Break(());
        }
        self.left = self.left.map(|left| left.saturating_sub(1));
        if self.left == Some(0) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

fn or_dash(text: Option<impl ToString>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| text.to_string())
}

fn user(user: Option<&UserId>) -> String {
    or_dash(user.map(UserId::as_str))
}

fn is_over(end: Option<Timestamp>) -> bool {
    end.is_some_and(|end| end <= SystemClock.now())
}

fn container_cells(held: &HeldContainer) -> [String; 7] {
    let record = &held.record;
    [
        record.id.to_string(),
        record.workspace.whole().to_string(),
        user(held.user.as_ref()),
        record.created_at.to_string(),
        record.expires_at.to_string(),
        or_dash(held.kept.as_ref().map(|kept| readable(kept.size_bytes))),
        or_dash(held.kept.as_ref().map(|kept| kept.made_at)),
    ]
}

/// A container, for `--json`.
pub(super) fn container(held: &HeldContainer) -> Value {
    let record = &held.record;
    let kept = held.kept.as_ref().map(|kept| {
        json!({ "made_at": kept.made_at, "size_bytes": kept.size_bytes, "image": kept.image,
                "isolation": kept.isolation.as_str(), "sha256": kept.content.to_string() })
    });
    json!({ "type": "container", "id": record.id, "workspace": record.workspace.whole().as_str(),
            "user_id": held.user.as_ref().map(UserId::as_str), "created_at": record.created_at,
            "expires_at": record.expires_at, "is_expired": is_over(Some(record.expires_at)), "kept": kept })
}

fn file_cells(held: &HeldFile) -> [String; 8] {
    let record = &held.record;
    let from = match &record.origin {
        Origin::Uploaded => "upload".to_owned(),
        Origin::Generated { container } => container.to_string(),
    };
    [
        record.id.to_string(),
        record.workspace.whole().to_string(),
        user(held.user.as_ref()),
        record.created_at.to_string(),
        or_dash(record.expires_at),
        readable(record.size_bytes),
        from,
        record.filename.as_str().to_owned(),
    ]
}

/// A file, for `--json`.
pub(super) fn file(held: &HeldFile) -> Value {
    let record = &held.record;
    let container = match &record.origin {
        Origin::Uploaded => None,
        Origin::Generated { container } => Some(container),
    };
    json!({ "type": "file", "id": record.id, "workspace": record.workspace.whole().as_str(),
            "user_id": held.user.as_ref().map(UserId::as_str), "filename": record.filename.as_str(),
            "mime_type": record.mime_type, "size_bytes": record.size_bytes, "container_id": container,
            "created_at": record.created_at, "expires_at": record.expires_at,
            "is_expired": record.expired(SystemClock.now()),
            "sha256": record.content.map(|content| content.to_string()) })
}

fn key_cells(record: &KeyRecord) -> [String; 7] {
    let state = match (record.revoked_at, record.expires_at) {
        (Some(at), _) => format!("revoked {at}"),
        (None, Some(at)) if is_over(Some(at)) => format!("expired {at}"),
        (None, Some(at)) => format!("active until {at}"),
        (None, None) => "active".to_owned(),
    };
    [
        record.id.to_string(),
        record.workspace.to_string(),
        record.created_at.to_string(),
        state,
        record.scope.as_str().to_owned(),
        record.models.as_ref().map_or_else(|| "all".to_owned(), |globs| globs.join(",")),
        record.label.clone(),
    ]
}

/// A key, for `--json`: what it opens, never what opens it.
pub(super) fn key(record: &KeyRecord) -> Value {
    json!({ "type": "key", "id": record.id, "workspace": record.workspace.as_str(), "label": record.label,
            "isolation": record.isolation.map(KeyIsolation::as_str), "models": record.models,
            "scope": record.scope.as_str(), "created_at": record.created_at, "expires_at": record.expires_at,
            "is_expired": is_over(record.expires_at), "revoked_at": record.revoked_at })
}
