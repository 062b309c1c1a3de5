//! `belljar keys`: only hashes are kept, and a key is shown once.

use std::sync::Arc;
use std::time::Duration;

use belljar_ids::{IdSource as _, KeyId};
use belljar_store::{
    Clock as _, Holding, KeyDraft, KeyHash, KeyIsolation, KeyRecord, KeyRing, KeyScope, StoreError, SystemClock,
    Timestamp, UserId, WorkspaceId,
};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::cli::Common;
use crate::config::environment::Environment;
use crate::exit::Exit;
use crate::principal::LOCAL_WORKSPACE;
use crate::random::OsIds;
use crate::tenants::permit::read_glob;

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
        #[command(flatten)]
        end: KeyEndArgs,
        /// Models that it may name, as globs like those of an upstream; repeat for more. Without any, all.
        #[arg(long, value_name = "GLOB", value_parser = read_glob)]
        models: Vec<String>,
        /// `workspace`: what belongs to the workspace. `per-user`: in each request what belongs to one end user, who must be named
        /// in `metadata.user_id`, in the header `belljar-user`, or by a signed scope.
        #[arg(long, default_value = "workspace")]
        scope: KeyScope,
    },
    /// List all keys, revoked ones too.
    List,
    /// Show what each workspace and each of its end users holds, and what quotas have counted today.
    Usage,
    /// End a key for good.
    Revoke {
        /// Its id, as `list` shows it.
        id: String,
    },
}

/// When a key ends by itself; without either, never.
#[derive(Clone, Debug, Args)]
#[group(multiple = false)]
struct KeyEndArgs {
    /// How long it lasts: a number with `s`, `m`, `h`, `d` or `w`, as 30d.
    #[arg(long, value_name = "TIME", value_parser = read_time)]
    expires_in: Option<Duration>,
    /// When it ends, as 2027-01-31T00:00:00Z.
    #[arg(long, value_name = "INSTANT")]
    expires_at: Option<Timestamp>,
}

impl KeyEndArgs {
    fn at(&self, now: Timestamp) -> Result<Option<Timestamp>, Exit> {
        let end = self.expires_at.or(self.expires_in.map(|life| now.saturating_add(life)));
        match end {
            Some(end) if end <= now => Err(Exit::failed("--expires-at: this is not in the future".to_owned())),
            end => Ok(end),
        }
    }
}

/// Reads how long something lasts.
fn read_time(text: &str) -> Result<Duration, String> {
    let wrong = || "must be a whole number above 0 with s, m, h, d or w, as 30d".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        'w' => 7 * 24 * 60 * 60,
        _ => return Err(wrong()),
    };
    let number: u64 = text.strip_suffix(unit).and_then(|number| number.parse().ok()).ok_or_else(wrong)?;
    match number.checked_mul(seconds) {
        None | Some(0) => Err(wrong()),
        Some(seconds) => Ok(Duration::from_secs(seconds)),
    }
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
        Action::Create { workspace, label, isolation, end, models, scope } => {
            let workspace =
                WorkspaceId::named(workspace).map_err(|error| Exit::failed(format!("--workspace: {error}")))?;
            let (key, id) = (mint(), KeyId::mint(&mut OsIds));
            let draft = KeyDraft {
                id,
                workspace,
                label: label.clone(),
                hash: KeyHash::of(&key),
                isolation: *isolation,
                expires_at: end.at(SystemClock.now())?,
                models: (!models.is_empty()).then(|| models.clone()),
                scope: *scope,
            };
            create(&mut keys, draft, &key, args.json)
        }
        Action::List => list(&keys, args.json),
        Action::Usage => usage(&keys, args.json),
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
            json!({ "id": record.id, "workspace": record.workspace.as_str(), "isolation": isolation(&record),
                    "expires_at": record.expires_at.map(|time| time.to_string()), "models": record.models,
                    "scope": record.scope.as_str(), "key": key })
        );
    } else {
        println!("{key}");
        eprintln!(
            "{} for workspace {}. The key is shown this once; a running server asks for keys from its next request on.",
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
                    "isolation": isolation(record), "models": record.models, "scope": record.scope.as_str(),
                    "expires_at": record.expires_at.map(|time| time.to_string()), "is_expired": is_expired(record),
                    "created_at": record.created_at.to_string(), "revoked_at": record.revoked_at.map(|time| time.to_string()) })
        });
        println!("{}", json!({ "data": rows.collect::<Vec<_>>() }));
        return Ok(());
    }
    for record in &records {
        let isolation = isolation(record).unwrap_or("as configured");
        let models = record.models.as_ref().map_or_else(|| "all models".to_owned(), |globs| globs.join(","));
        let KeyRecord { id, created_at, workspace, label, scope, .. } = record;
        let (workspace, scope, state) = (workspace.as_str(), scope.as_str(), state(record));
        println!("{id}  {created_at}  {workspace}  {state}  {isolation}  {scope}  {models}  {label}");
    }
    Ok(())
}

fn is_expired(record: &KeyRecord) -> bool {
    record.expires_at.is_some_and(|end| end <= SystemClock.now())
}

fn state(record: &KeyRecord) -> String {
    match (record.revoked_at, record.expires_at) {
        (Some(time), _) => format!("revoked {time}"),
        (None, Some(time)) if is_expired(record) => format!("expired {time}"),
        (None, Some(time)) => format!("active until {time}"),
        (None, None) => "active".to_owned(),
    }
}

fn usage(keys: &KeyRing, json: bool) -> Result<(), Exit> {
    let holdings = keys.holdings().map_err(failed)?;
    if json {
        let rows = holdings.iter().map(|held| {
            let today = held
                .user
                .is_none()
                .then(|| json!({ "executions": held.today.executions, "tokens": held.today.tokens }));
            json!({ "workspace": held.workspace.as_str(), "user_id": held.user.as_ref().map(UserId::as_str),
                    "files": held.files, "files_bytes": held.bytes, "containers": held.containers,
                    "batches": held.batches, "today": today })
        });
        println!("{}", json!({ "data": rows.collect::<Vec<_>>() }));
        return Ok(());
    }
    for held in &holdings {
        let Holding { workspace, files, bytes, containers, batches, today, .. } = held;
        let held_now = format!("{files} files  {bytes} bytes  {containers} containers  {batches} batches");
        match &held.user {
            // A name that somebody else has chosen is not written to a terminal as it is.
            Some(user) => println!("{workspace}  user {:?}  {held_now}", user.as_str()),
            None => println!("{workspace}  {held_now}  today {} executions  {} tokens", today.executions, today.tokens),
        }
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
    fn times_have_a_unit() {
        let day = 24 * 60 * 60;
        for (text, seconds) in [("90s", 90), ("5m", 300), ("2h", 7200), ("30d", 30 * day), ("1w", 7 * day)] {
            assert_eq!(read_time(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in
            ["", "d", "30", "0d", "-1d", "1.5h", "30 d", "1dd", "1y", "99999999999999999999d", "9999999999999999w"]
        {
            assert!(read_time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn keys_are_long_and_differ() {
        let (one, other) = (mint(), mint());
        assert_eq!(one.len(), 46);
        assert_ne!(one, other);
        assert!(one.bytes().skip(3).all(|byte| KEY_ALPHABET.contains(&byte)));
    }
}
