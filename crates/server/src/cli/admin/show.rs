//! `belljar admin show`.

use belljar_ids::{ContainerId, FileId, KeyId};
use belljar_store::{NamedCheckpoint, Records};
use serde_json::{Value, json};

use super::table::printable;
use super::{Told, list, store_failed};
use crate::exit::Exit;

/// Finds out by the id what it is one of.
pub(super) fn run(records: &Records, id: &str) -> Result<Told, Exit> {
    let found = if let Ok(id) = id.parse::<FileId>() {
        records.file(&id).map_err(store_failed)?.map(|held| list::file(&held))
    } else if let Ok(id) = id.parse::<ContainerId>() {
        records.container(&id).map_err(store_failed)?.map(|(held, named)| {
            let mut shown = list::container(&held);
            shown["named_checkpoints"] = named.iter().map(checkpoint).collect();
            shown
        })
    } else if let Ok(id) = id.parse::<KeyId>() {
        records.key(&id).map_err(store_failed)?.map(|record| list::key(&record))
    } else {
        return Err(Exit::usage(format!(
            "{id:?} is not the id of a container ({}...), a file ({}...) or a key ({}...)",
            ContainerId::PREFIX,
            FileId::PREFIX,
            KeyId::PREFIX
        )));
    };
    let json = found.ok_or_else(|| Exit::failed(format!("there is no {id}")))?;
    Ok(Told { text: lines("", &json), json })
}

fn checkpoint(named: &NamedCheckpoint) -> Value {
    let record = &named.record;
    json!({ "id": named.id, "made_at": record.made_at, "size_bytes": record.size_bytes, "image": record.image,
            "isolation": record.isolation.as_str(), "sha256": record.content.to_string() })
}

/// One line for each value; those within another one carry its name.
fn lines(within: &str, value: &Value) -> String {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| {
                let name = if within.is_empty() { name.clone() } else { format!("{within}.{name}") };
                lines(&name, value)
            })
            .collect(),
        Value::Array(values) => {
            values.iter().enumerate().map(|(at, value)| lines(&format!("{within}.{at}"), value)).collect()
        }
        Value::Null => format!("{within:24}  -\n"),
        Value::String(text) => format!("{within:24}  {}\n", printable(text)),
        Value::Bool(_) | Value::Number(_) => format!("{within:24}  {value}\n"),
    }
}
