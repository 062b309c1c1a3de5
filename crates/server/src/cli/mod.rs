//! The command line. Exit status: 0 done; 1 the thing asked for failed; 2 usage; 3 this machine cannot.

pub mod admin;
pub mod attack;
pub mod bench;
pub mod compare;
pub mod doctor;
pub mod exec;
pub mod image;
pub mod keys;
pub mod recording;
pub mod serve;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::environment::Environment;
use crate::config::keys::reference as keys_reference;
use crate::config::{Config, ConfigError, Overrides};
use crate::exit::Exit;

/// A self-hosted Messages API with the code execution tool: any model, on your machine, in a sandbox you can inspect.
#[derive(Debug, Parser)]
#[command(name = "belljar", version, propagate_version = true)]
pub struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the Messages API.
    Serve(serve::ServeArgs),
    /// Tell what this machine allows, what is refused, and why.
    Doctor(doctor::DoctorArgs),
    /// Build, import, list or verify the root filesystems that containers start from.
    Image(image::ImageArgs),
    /// Run one cell, through the running server or in this process when none runs.
    Exec(exec::ExecArgs),
    /// Run the attack suite against this host: what an attacker would try, and whether it is held.
    Attack(attack::AttackArgs),
    /// Measure the sandbox against its promises and its peers.
    Bench(bench::BenchArgs),
    /// Ask several servers the same, and show what differs: outputs, latency, tokens, cost and shapes.
    Compare(compare::CompareArgs),
    /// Create, list or revoke keys.
    Keys(keys::KeysArgs),
    /// Look after a server's state: list, show, usage, gc, backup, verify, restore.
    Admin(admin::AdminArgs),
    /// Show what an upstream was asked and answered.
    Recording(recording::RecordingArgs),
    /// Print every configuration key with its default and meaning, as Markdown.
    Config,
}

/// Options that several commands share.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Address and port of the server.
    #[arg(long, value_name = "ADDRESS", global = true)]
    listen: Option<SocketAddr>,
    /// Where state is kept.
    #[arg(long, value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,
}

impl Common {
    /// The configuration that these options, the environment and the file make.
    pub fn load(&self, environment: &Environment) -> Result<Config, ConfigError> {
        let overrides = Overrides { file: self.config.clone(), listen: self.listen, data_dir: self.data_dir.clone() };
        Config::load(&overrides, environment)
    }
}

/// Runs the command.
pub fn run(command_line: CommandLine) -> ExitCode {
    let environment = Environment::snapshot();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(Exit::cannot(format!("no threads or no polling: {error}"))),
    };
    let outcome = match command_line.command {
        Command::Serve(args) => runtime.block_on(serve::run(&args, &environment)).map(|()| ExitCode::SUCCESS),
        Command::Doctor(args) => doctor::run(&args, &environment, &runtime),
        Command::Image(args) => Ok(runtime.block_on(image::run(args, environment.cache_dir()))),
        Command::Exec(args) => runtime.block_on(exec::run(&args, &environment)),
        Command::Attack(args) => runtime.block_on(attack::run(&args, &environment)),
        // Where a server's requests run. This thread's every wait and every answer would be a switch between threads.
        Command::Bench(args) => runtime
            .block_on(runtime.spawn(async move { bench::run(&args, &environment).await }))
            .unwrap_or_else(|error| Err(Exit::failed(error.to_string()))),
        Command::Compare(args) => runtime.block_on(compare::run(&args, &environment)),
        Command::Config => print_reference(),
        Command::Recording(args) => runtime.block_on(recording::run(&args)).map(|()| ExitCode::SUCCESS),
        Command::Admin(args) => admin::run(&args, &environment).map(|()| ExitCode::SUCCESS),
        Command::Keys(args) => keys::run(&args, &environment).map(|()| ExitCode::SUCCESS),
    };
    // Whatever still blocks a thread must not hold up the end of the process.
    runtime.shutdown_background();
    outcome.unwrap_or_else(report)
}

fn print_reference() -> Result<ExitCode, Exit> {
    let written = std::io::stdout().write_all(keys_reference().as_bytes());
    written.map(|()| ExitCode::SUCCESS).map_err(|error| Exit::failed(format!("standard output: {error}")))
}

fn report(exit: Exit) -> ExitCode {
    // Where nobody can hear it, the exit status still says it.
    let _unheard = writeln!(std::io::stderr(), "belljar: {}", exit.message());
    ExitCode::from(exit.code())
}
