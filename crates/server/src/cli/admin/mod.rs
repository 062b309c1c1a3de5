//! `belljar admin`: what an operator does beside a running server, and without one.

mod list;
mod show;
mod size;
mod table;
mod usage;

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use belljar_store::{
    AdminError, BackupDraft, BackupReport, BlobPlace, Clock, Collected, Collecting, Records, StoreError, SystemClock,
    Tally, WorkspaceId, WorkspaceIdError, backup, collect, restore, verify,
};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::cli::Common;
use crate::config::Config;
use crate::config::environment::Environment;
use crate::exit::Exit;
use crate::tenants::limits::Limits;
use size::readable;

/// Options of `belljar admin`.
#[derive(Debug, Args)]
pub struct AdminArgs {
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
    /// List containers, files or keys of all workspaces: by workspace, newest first in each; keys oldest first.
    List {
        /// What to list.
        #[arg(value_enum)]
        what: Listed,
        #[command(flatten)]
        of: Of,
        /// The most rows to show.
        #[arg(long, value_name = "ROWS")]
        limit: Option<u64>,
    },
    /// Show all that is known of one container, file or key.
    Show {
        /// Its id, as `list` shows it.
        id: String,
    },
    /// Show what each workspace holds and has used by day, and its limits: all that quotas count.
    Usage {
        #[command(flatten)]
        of: Of,
        /// How many days to look back, today among them.
        #[arg(long, value_name = "DAYS", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,
    },
    /// Remove contents that nothing refers to, and what killed processes have left.
    Gc {
        /// Only look for it.
        #[arg(long)]
        dry_run: bool,
    },
    /// Make a backup of the whole data directory, also while a server runs on it.
    ///
    /// It holds the hashes of keys, the secret of scopes and everybody's files: keep it as you keep those.
    Backup {
        /// The directory to make.
        #[arg(value_name = "DESTINATION")]
        destination: PathBuf,
        /// An earlier backup on the same filesystem: contents that are there already get a second name instead of a copy.
        #[arg(long, value_name = "BACKUP")]
        link_from: Option<PathBuf>,
    },
    /// Read every byte of a backup, and tell whether it is whole.
    Verify {
        /// The backup.
        backup: PathBuf,
    },
    /// Make the data directory out of a backup. There must not be one yet.
    Restore {
        /// The backup.
        backup: PathBuf,
    },
}

/// What can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Listed {
    Containers,
    Files,
    Keys,
}

/// Of which workspaces.
#[derive(Clone, Debug, Args)]
struct Of {
    /// Only what this workspace and its end users have.
    #[arg(long, value_name = "NAME", value_parser = workspace)]
    workspace: Option<WorkspaceId>,
}

fn workspace(text: &str) -> Result<WorkspaceId, WorkspaceIdError> {
    WorkspaceId::named(text)
}

/// Runs one action.
pub fn run(args: &AdminArgs, environment: &Environment) -> Result<(), Exit> {
    let config = args.common.load(environment)?;
    let told = match &args.action {
        Action::List { what, of, limit } => {
            let out = table::Out::new(args.json);
            return list::run(&records(&config)?, *what, of.workspace.as_ref(), *limit, out);
        }
        Action::Show { id } => show::run(&records(&config)?, id)?,
        Action::Usage { of, days } => {
            let out = table::Out::new(args.json);
            let limits = |workspace: &WorkspaceId| {
                let limits = config.limits.of(workspace);
                // What holds for bytes where no quota is set.
                let bytes_max = limits.files_bytes_max.unwrap_or(config.serving.workspace_bytes_max);
                Limits { files_bytes_max: Some(bytes_max), ..limits }
            };
            return usage::run(&records(&config)?, limits, of.workspace.as_ref(), *days, out);
        }
        Action::Gc { dry_run } => gc(&config, if *dry_run { Collecting::Look } else { Collecting::Remove })?,
        Action::Backup { destination, link_from } => {
            let draft = BackupDraft {
                data_dir: &config.data_dir,
                database: &config.store.database,
                blobs: &config.store.blobs,
                destination,
                link_from: link_from.as_deref(),
                belljar: env!("CARGO_PKG_VERSION"),
                clock: &SystemClock,
            };
            of_backup("backed up to", destination.display(), &backup(&draft).map_err(failed)?)
        }
        Action::Verify { backup } => of_backup("whole:", backup.display(), &verify(backup).map_err(failed)?),
        Action::Restore { backup } => {
            let store = &config.store;
            let report = restore(backup, &config.data_dir, &store.database, &store.blobs).map_err(failed)?;
            of_backup("restored to", config.data_dir.display(), &report)
        }
    };
    let text = if args.json { format!("{}\n", told.json) } else { told.text };
    std::io::stdout().write_all(text.as_bytes()).map_err(unwritten)
}

/// What a command says, in both forms.
struct Told {
    text: String,
    json: Value,
}

fn records(config: &Config) -> Result<Records, Exit> {
    Records::open(&config.data_dir, &config.store.database, Arc::new(SystemClock)).map_err(failed)
}

fn failed(error: AdminError) -> Exit {
    Exit::failed(error.to_string())
}

fn store_failed(error: StoreError) -> Exit {
    Exit::failed(error.to_string())
}

fn unwritten(error: std::io::Error) -> Exit {
    Exit::failed(format!("standard output: {error}"))
}

fn gc(config: &Config, how: Collecting) -> Result<Told, Exit> {
    let (store, clock) = (&config.store, Arc::new(SystemClock) as Arc<dyn Clock>);
    let found = collect(&config.data_dir, &store.database, &store.blobs, how, &clock).map_err(failed)?;
    let Collected { contents, unfinished, pins } = found;
    let (did, is_only_looked_for) = match how {
        Collecting::Look => ("would remove", true),
        Collecting::Remove => ("removed", false),
    };
    let line = |what: &str, tally: Tally| format!("{did} {} {what}, {}\n", tally.count, readable(tally.bytes));
    let mut text = line("contents that nothing refers to", contents);
    match unfinished {
        Some(unfinished) => text.push_str(&line("unfinished uploads", unfinished)),
        None if matches!(store.blobs, BlobPlace::Disk) => {
            text.push_str("unfinished uploads are the running server's to look after\n")
        }
        None => {}
    }
    if pins.count > 0 {
        text.push_str(&line("names that a killed backup left", pins));
    }
    let json = |tally: Tally| json!({ "count": tally.count, "bytes": tally.bytes });
    let json = json!({ "dry_run": is_only_looked_for, "contents": json(contents), "unfinished_uploads": unfinished.map(json),
                       "left_by_backups": json(pins) });
    Ok(Told { text, json })
}

fn of_backup(did: &str, place: std::path::Display<'_>, report: &BackupReport) -> Told {
    let BackupReport { files, bytes, linked, schema, belljar, made_at } = report;
    let shared = if *linked > 0 { format!(", {linked} of them shared with the earlier backup") } else { String::new() };
    Told {
        text: format!(
            "{did} {place}: {files} files{shared}, {}; of {made_at}, by belljar {belljar}, schema {schema}\n",
            readable(*bytes)
        ),
        json: json!({ "path": place.to_string(), "files": files, "bytes": bytes, "files_linked": linked,
                      "schema": schema, "belljar": belljar, "made_at": made_at }),
    }
}
