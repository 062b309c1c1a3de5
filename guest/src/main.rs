//! Process 1 of a container: stands the jail up, then runs commands and does file work for the host.
//!
//! Everything here runs with the rights of the code it runs, and no more; what it tells the host is not believed.

mod channel;
mod checkpoint;
mod clean;
mod command;
mod files;
mod frame;
mod inside;
mod layer;
mod quiet;
mod supervise;
mod tools;
mod warden;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let _program = arguments.next();
    match arguments.next() {
        Some(how) if how == inside::MODE => inside::main(arguments),
        Some(how) if how == tools::MODE => tools::call(arguments),
        // Nobody starts it so.
        Some(_) => ExitCode::from(supervise::EXIT_NO_JAIL),
        None => supervise::main(),
    }
}
