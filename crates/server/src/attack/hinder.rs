//! Runs this program with something missing: system calls that the kernel refuses, or too few descriptors.
//!
//! What a start meets then is the kernel's own refusal at that step. Nothing in the product knows that it is a trial.

use std::convert::Infallible;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, setrlimit};
use seccompiler::{TargetArch, apply_filter, compile_from_json};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::attack::case::{Refuse, Test};
use crate::exit::Exit;

/// What is missing.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Hindrance {
    /// System calls that fail.
    pub refuse: Vec<Refuse>,
    /// Open files it may have.
    pub open_files_max: Option<u64>,
}

/// Becomes `belljar ARGUMENTS`, hindered. Returns only when that is impossible.
///
/// # Errors
/// A hindrance that cannot be had; nothing was started.
pub fn exec(hindrance: &str, arguments: &[OsString]) -> Result<Infallible, Exit> {
    let hindrance: Hindrance = serde_json::from_str(hindrance).map_err(|error| Exit::usage(error.to_string()))?;
    let program = std::env::current_exe().map_err(|error| Exit::cannot(error.to_string()))?;
    if let Some(max) = hindrance.open_files_max {
        let limit = Rlimit { current: Some(max), maximum: Some(max) };
        setrlimit(Resource::Nofile, limit).map_err(|error| Exit::cannot(error.to_string()))?;
    }
    for refuse in &hindrance.refuse {
        let target = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| Exit::cannot(error.to_string()))?;
        let filters = compile_from_json(filter(refuse)?.to_string().as_bytes(), target);
        for program in filters.map_err(|error| Exit::usage(error.to_string()))?.values() {
            apply_filter(program).map_err(|error| Exit::cannot(error.to_string()))?;
        }
    }
    let failed = Command::new(program).args(arguments).exec();
    Err(Exit::cannot(format!("this program cannot be run anew: {failed}")))
}

fn filter(refuse: &Refuse) -> Result<Value, Exit> {
    let errno = errno(&refuse.errno)?.raw_os_error();
    let mut rule = json!({ "syscall": refuse.call });
    if let (Some(argument), Some(value)) = (refuse.argument, refuse.value) {
        let op = match refuse.test {
            Test::Is => json!("eq"),
            Test::HasBits => json!({ "masked_eq": value }),
        };
        rule["args"] = json!([{ "index": argument, "type": "dword", "op": op, "val": value }]);
    }
    Ok(json!({ "hinder": { "mismatch_action": "allow", "match_action": { "errno": errno }, "filter": [rule] } }))
}

fn errno(name: &str) -> Result<Errno, Exit> {
    match name {
        "EACCES" => Ok(Errno::ACCESS),
        "EAGAIN" => Ok(Errno::AGAIN),
        "EINVAL" => Ok(Errno::INVAL),
        "ENOMEM" => Ok(Errno::NOMEM),
        "ENOSPC" => Ok(Errno::NOSPC),
        "ENOSYS" => Ok(Errno::NOSYS),
        "EOPNOTSUPP" => Ok(Errno::OPNOTSUPP),
        "EPERM" => Ok(Errno::PERM),
        other => Err(Exit::usage(format!("{other} is not an error number this suite knows"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::catalogue::Catalogue;

    #[test]
    fn every_refusal_of_the_cases_compiles() {
        let cases = Catalogue::load(None).expect("cases").cases;
        let mut compiled = 0;
        for refuse in cases.iter().filter_map(|case| case.start.as_ref()).flat_map(|start| &start.refuse) {
            for architecture in [TargetArch::x86_64, TargetArch::aarch64] {
                let filter = filter(refuse).expect("an error number");
                let filters = compile_from_json(filter.to_string().as_bytes(), architecture);
                assert_eq!(filters.expect(&refuse.call).len(), 1);
            }
            compiled += 1;
        }
        assert!(compiled > 10);
    }

    #[test]
    fn nonsense_is_a_usage_error() {
        let unknown_errno = r#"{"refuse":[{"call":"mount","errno":"EWHAT"}],"open_files_max":null}"#;
        for hindrance in ["{}", unknown_errno] {
            let Err(exit) = exec(hindrance, &[]);
            assert_eq!(exit.code(), crate::exit::USAGE, "{hindrance}");
        }
    }
}
