//! The `belljar` binary: the Messages API with the code execution tool, on this machine.

mod access;
mod app;
mod asked;
mod attack;
mod batches;
mod bench;
mod calling;
mod cell;
mod checkpoints;
mod cli;
mod clock;
mod compare;
mod config;
mod continuations;
mod driver;
mod exit;
mod failure;
mod gate;
mod handover;
mod listener;
mod organs;
mod outcomes;
mod parked;
mod principal;
mod random;
mod restart;
mod room;
mod routes;
mod running;
mod scope;
mod signals;
mod stopping;
mod tenants;
mod transfer;
mod utf8;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let command_line = match cli::CommandLine::try_parse() {
        Ok(command_line) => command_line,
        Err(error) => {
            // Help and version are answers, not errors.
            let code = if error.use_stderr() { exit::USAGE } else { 0 };
            if error.print().is_err() {
                return ExitCode::from(exit::FAILED);
            }
            return ExitCode::from(code);
        }
    };
    cli::run(command_line)
}
