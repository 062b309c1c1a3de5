//! `belljar bench`: the sandbox measured against its promises, beside whatever peers this host has.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::bench::peer::Places;
use crate::bench::report::{Measured, peers_text};
use crate::bench::rows::{How, ROWS, Row};
use crate::bench::stage::{Scale, Stage};
use crate::bench::{machine, measure};
use crate::cli::Common;
use crate::config::environment::Environment;
use crate::exit::{Exit, FAILED};
use crate::organs;

/// Options of `belljar bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Print one JSON document on stdout, with every sample; the table goes to stderr.
    #[arg(long)]
    json: bool,
    /// Only this row; may be repeated. `soak` runs only when named.
    #[arg(long = "only", value_name = "NAME")]
    only: Vec<String>,
    /// Name the rows and their promises, and measure nothing.
    #[arg(long)]
    list: bool,
    /// A tenth of everything: to see that it works.
    #[arg(long)]
    quick: bool,
    /// Exit with 1 when a promise is missed or could not be measured. Without it, only a row that failed does, and a soak that found
    /// anything.
    #[arg(long)]
    check: bool,
    /// How long `soak` runs.
    #[arg(long, value_name = "N", default_value_t = 1)]
    minutes: u64,
    /// A Python that has jupyter_client and ipykernel; default: where scripts/bench installs it.
    #[arg(long, value_name = "PYTHON")]
    jupyter: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

/// Where scripts/bench puts Jupyter, below the cache directory.
const JUPYTER: &str = "bench/jupyter/bin/python";

/// Measures, prints, and judges.
pub async fn run(args: &BenchArgs, environment: &Environment) -> Result<ExitCode, Exit> {
    let rows = chosen(&args.only)?;
    if args.list {
        return print_list(&rows);
    }
    let config = args.common.load(environment)?;
    let image = organs::mount(&config).await?;
    let failed = |error: crate::bench::Failure| Exit::failed(error.to_string());
    let jupyter = args.jupyter.clone().unwrap_or_else(|| config.cache_dir.join(JUPYTER));
    let rootfs = organs::rootfs(&image);
    let places = Places::lay_out(&rootfs, &config.cache_dir, jupyter).map_err(failed)?;
    let scale = if args.quick { Scale::Quick } else { Scale::Full };
    let stage = Arc::new(Stage::set(config, rootfs, scale, places).map_err(failed)?);
    let machine = machine::describe();
    eprintln!("{machine}\n{}", peers_text(&stage.peers));
    let mut measured = Vec::new();
    for row in rows {
        let (stage, soak) = (Arc::clone(&stage), Duration::from_secs(args.minutes.saturating_mul(60)));
        // On a worker thread, as the server runs its turns.
        let task = tokio::spawn(async move { measure(&stage, row, soak).await });
        let one = task.await.map_err(|error| Exit::failed(error.to_string()))?;
        eprint!("{}", one.to_text());
        measured.push(one);
    }
    if args.json {
        print(&document(args, &machine, &stage, &measured))?;
    }
    // A soak is a test; everything else measures, on a machine that may be busy.
    let broken = measured.iter().any(|one| one.outcome.is_err() || matches!(one.row.how, How::Soak) && !one.kept());
    let missed = args.check && measured.iter().any(|one| !one.kept());
    Ok(if broken || missed { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

fn chosen(only: &[String]) -> Result<Vec<&'static Row>, Exit> {
    if only.is_empty() {
        return Ok(ROWS.iter().filter(|row| !matches!(row.how, How::Soak)).collect());
    }
    only.iter()
        .map(|name| {
            ROWS.iter().find(|row| row.name == name).ok_or_else(|| {
                let names: Vec<_> = ROWS.iter().map(|row| row.name).collect();
                Exit::usage(format!("no row is called {name}; there are: {}", names.join(", ")))
            })
        })
        .collect()
}

fn print_list(rows: &[&Row]) -> Result<ExitCode, Exit> {
    for row in rows {
        print(&format_args!("{:18} {}", row.name, row.what))?;
        for promise in row.promises {
            print(&format_args!("{:18}   promised: {}", "", promise.says))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn document(args: &BenchArgs, machine: &Value, stage: &Stage, measured: &[Measured]) -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "machine": machine,
        "peers": stage.peers,
        "quick": args.quick,
        "rows": measured.iter().map(Measured::to_json).collect::<Vec<_>>(),
    })
}

fn print(text: &dyn std::fmt::Display) -> Result<(), Exit> {
    use std::io::Write as _;
    writeln!(std::io::stdout(), "{text}").map_err(|error| Exit::failed(format!("standard output: {error}")))
}
