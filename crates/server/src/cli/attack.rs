//! `belljar attack`: the attack suite against this host.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::attack::catalogue::Catalogue;
use crate::attack::mode::Mode;
use crate::attack::runner::{Length, Runner};
use crate::attack::{hinder, report};
use crate::cli::Common;
use crate::clock::Stopwatch;
use crate::config::environment::Environment;
use crate::exit::{Exit, FAILED};

/// Options of `belljar attack`.
#[derive(Debug, Args)]
pub struct AttackArgs {
    /// Print one JSON document on stdout; the table goes to stderr
    #[arg(long)]
    json: bool,
    /// Run only the cases whose name contains this
    #[arg(long, value_name = "NAME", default_value = "")]
    only: String,
    /// Print the cases, and what does not apply and why, and run nothing
    #[arg(long)]
    list: bool,
    /// The isolation mode to attack; the configured one otherwise
    #[arg(long, value_enum)]
    isolation: Option<Mode>,
    /// Leave out the few cases that take longest in this mode; each is told
    #[arg(long)]
    skip_slow: bool,
    /// Run the cases of this file (JSON, as in `crates/server/src/attack/cases`) instead of the built-in ones
    #[arg(long, value_name = "FILE")]
    cases: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
    /// Run the rest of the command line with system calls refused: what cases about starting do
    #[arg(long, value_name = "JSON", hide = true, requires = "command")]
    hinder: Option<String>,
    #[arg(last = true, hide = true, requires = "hinder")]
    command: Vec<OsString>,
}

/// Runs the suite; fails on any escape and any dead canary.
pub async fn run(args: &AttackArgs, environment: &Environment) -> Result<ExitCode, Exit> {
    if let Some(hindrance) = &args.hinder {
        match hinder::exec(hindrance, &args.command)? {}
    }
    let catalogue = Catalogue::load(args.cases.as_deref())?.only(&args.only)?;
    if args.list {
        match args.json {
            true => println!("{}", report::list_document(&catalogue)),
            false => print!("{}", report::list(&catalogue)),
        }
        return Ok(ExitCode::SUCCESS);
    }
    let config = args.common.load(environment)?;
    let since = Stopwatch::start();
    let mode = args.isolation.unwrap_or(Mode::configured(&config.sandbox));
    let length = if args.skip_slow { Length::WithoutSlow } else { Length::Whole };
    let mut runner = Runner::open(config, mode, length).await?;
    let setting = runner.setting();
    let tell = |text: &str| if args.json { eprintln!("{text}") } else { println!("{text}") };
    tell(&report::head());
    let mut rows = Vec::new();
    let mut ended = Ok(());
    for case in &catalogue.cases {
        match runner.run(&catalogue, case).await {
            Ok(row) => {
                tell(&report::line(&row));
                rows.push(row);
            }
            Err(exit) => {
                ended = Err(exit);
                break;
            }
        }
    }
    let last = runner.close().await?;
    ended?;
    for row in last {
        tell(&report::line(&row));
        rows.push(row);
    }
    tell(&report::summary(&setting, &rows));
    if args.json {
        let took_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        println!("{}", report::document(&setting, &catalogue, &rows, took_ms));
    }
    let failed = rows.iter().any(|row| row.verdict.fails());
    Ok(if failed { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}
