//! `belljar keys`: only hashes are kept, and a key is shown once.

use std::sync::Arc;

use belljar_ids::{IdSource as _, KeyId};
use belljar_store::{KeyDraft, KeyHash, KeyIsolation, KeyRecord, KeyRing, StoreError, SystemClock};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::cli::Common;
use crate::config::environment::Environment;
use crate::exit::Exit;
use crate::principal::LOCAL_WORKSPACE;
use crate::random::OsIds;

/// Options of `belljar keys`.
#[derive(Debug, Args)]
pub struct KeysArgs {
    #[command(subcommand)]
    action: Action,
    /// Print one JSON document on stdout.
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a key; it is shown this once.
    Create {
        /// The workspace it opens.
        #[arg(long, default_value = LOCAL_WORKSPACE)]
        workspace: String,
        /// A note for people.
        #[arg(long, default_value = "")]
        label: String,
        /// What has to stand between its code and the host: `namespaces` or `gvisor`; without this, what is configured.
        #[arg(long)]
        isolation: Option<KeyIsolation>,
    },
    /// List all keys, revoked ones too.
    List,
    /// End a key for good.
    Revoke {
        /// Its id, as `list` shows it.
        id: String,
    },
}

/// Letters of a key's secret part.
const KEY_ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// 43 letters of 62 hold 256 bits.
const KEY_LETTERS: usize = 43;

/// Runs one action.
pub fn run(args: &KeysArgs, environment: &Environment) -> Result<(), Exit> {
    let config = args.common.load(environment)?;
    let mut keys = KeyRing::open(&config.data_dir, &config.store.database, Arc::new(SystemClock)).map_err(failed)?;
    match &args.action {
        Action::Create { workspace, label, isolation } => {
            let workspace = workspace.parse().map_err(|error| Exit::failed(format!("--workspace: {error}")))?;
            let (key, id) = (mint(), KeyId::mint(&mut OsIds));
            let draft =
                KeyDraft { id, workspace, label: label.clone(), hash: KeyHash::of(&key), isolation: *isolation };
            create(&mut keys, draft, &key, args.json)
        }
        Action::List => list(&keys, args.json),
        Action::Revoke { id } => revoke(&mut keys, id, args.json),
    }
}

fn failed(error: StoreError) -> Exit {
    Exit::failed(error.to_string())
}

fn create(keys: &mut KeyRing, draft: KeyDraft, key: &str, json: bool) -> Result<(), Exit> {
    let record = keys.create(draft).map_err(failed)?;
    if json {
        println!(
            "{}",
            json!({ "id": record.id, "workspace": record.workspace.as_str(), "isolation": isolation(&record), "key": key })
        );
    } else {
        println!("{key}");
        eprintln!(
            "{} for workspace {}. The key is shown this once; a running server asks for keys after a restart.",
            record.id,
            record.workspace.as_str()
        );
    }
    Ok(())
}

fn list(keys: &KeyRing, json: bool) -> Result<(), Exit> {
    let records = keys.list().map_err(failed)?;
    if json {
        let rows = records.iter().map(|record| {
            json!({ "id": record.id, "workspace": record.workspace.as_str(), "label": record.label,
                    "isolation": isolation(record),
                    "created_at": record.created_at.to_string(), "revoked_at": record.revoked_at.map(|time| time.to_string()) })
        });
        println!("{}", json!({ "data": rows.collect::<Vec<_>>() }));
        return Ok(());
    }
    for record in &records {
        let state = record.revoked_at.map_or_else(|| "active".to_owned(), |time| format!("revoked {time}"));
        let isolation = isolation(record).unwrap_or("as configured");
        let KeyRecord { id, created_at, workspace, label, .. } = record;
        println!("{id}  {created_at}  {}  {state}  {isolation}  {label}", workspace.as_str());
    }
    Ok(())
}

fn isolation(record: &KeyRecord) -> Option<&'static str> {
    record.isolation.map(KeyIsolation::as_str)
}

fn revoke(keys: &mut KeyRing, id: &str, json: bool) -> Result<(), Exit> {
    let id: KeyId = id.parse().map_err(|error| Exit::failed(format!("{error}")))?;
    if !keys.revoke(&id).map_err(failed)? {
        return Err(Exit::failed(format!("no active key {id}")));
    }
    if json {
        println!("{}", json!({ "id": id, "revoked": true }));
    }
    Ok(())
}

/// A new key: `bj_` and 43 letters, unbiased.
fn mint() -> String {
    let mut key = String::from("bj_");
    let mut byte = [0_u8; 1];
    while key.len() < 3 + KEY_LETTERS {
        OsIds.fill(&mut byte);
        // 248 is the largest multiple of 62 in a byte: above it, low letters would be likelier.
        if byte[0] < 248 {
            key.push(char::from(KEY_ALPHABET[usize::from(byte[0]) % KEY_ALPHABET.len()]));
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_long_and_differ() {
        let (one, other) = (mint(), mint());
        assert_eq!(one.len(), 46);
        assert_ne!(one, other);
        assert!(one.bytes().skip(3).all(|byte| KEY_ALPHABET.contains(&byte)));
    }
}
