//! The project's own checks, started as `cargo xtask <task>`.
//!
//! Reading order: [`stage`] (what runs and how it is counted), [`tidy`] (the architecture's rules as tests).

mod counts;
mod escape;
mod fuzzing;
mod process;
mod stage;
mod summary;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::stage::Stage;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Belljar's own checks")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand, Clone, Copy)]
enum Task {
    /// Everything the CI runs, in order, with a table and totals at the end.
    Ci,
    /// The architecture's rules.
    Tidy,
    /// `cargo fmt --check` on the whole workspace.
    Fmt,
    /// `cargo clippy` on the whole workspace, warnings denied.
    Lint,
    /// Licences, duplicates, sources and advisories of the dependencies.
    Deny,
    /// Unit tests of every crate, and of what runs inside the wall in Python.
    Unit,
    /// Tests of what runs inside the wall in Python alone.
    Driver,
    /// The store's tests once more, against a PostgreSQL and an S3-compatible object store started for them.
    Stores,
    /// The fixture tests of the wire format and the turn.
    Conformance,
    /// The attack suite, as root and as an ordinary user.
    Escape,
    /// The official SDKs against a server started for them.
    E2e,
    /// Programs that people need, and every refusal of the system call policy, in containers.
    Programs,
    /// Every fuzz target for a few seconds.
    Fuzz,
    /// Every benchmark once, to see that it still runs.
    BenchSmoke,
}

impl Task {
    fn stages(self) -> Vec<Stage> {
        match self {
            Task::Ci => Stage::CI.to_vec(),
            Task::Tidy => vec![Stage::Tidy],
            Task::Fmt => vec![Stage::Fmt],
            Task::Lint => vec![Stage::Lint],
            Task::Deny => vec![Stage::Deny],
            Task::Unit => vec![Stage::Unit, Stage::Driver],
            Task::Driver => vec![Stage::Driver],
            Task::Stores => vec![Stage::Stores],
            Task::Conformance => vec![Stage::Conformance],
            Task::Escape => vec![Stage::Build, Stage::Escape],
            Task::E2e => vec![Stage::Build, Stage::E2e],
            Task::Programs => vec![Stage::Build, Stage::Programs],
            Task::Fuzz => vec![Stage::Fuzz],
            Task::BenchSmoke => vec![Stage::BenchSmoke],
        }
    }
}

fn main() -> ExitCode {
    let stages = Cli::parse().task.stages();
    let root = workspace_root();
    let strict = std::env::var("CI").is_ok_and(|value| value == "true");
    let mut report = summary::Report::new(strict);
    for stage in stages {
        println!("==> {}", stage.name());
        report.add(stage, stage::run(stage, &root));
    }
    report.print();
    if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}
