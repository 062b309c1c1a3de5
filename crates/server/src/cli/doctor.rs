//! `belljar doctor`: what this machine allows, found by trying.

use std::process::ExitCode;

use belljar_image::{ImageStore, Monitor};
use belljar_sandbox::probe::{Finding, Status, probe};
use belljar_sandbox::{Isolation, Rootfs, Sandbox, SandboxConfig, descriptors};
use belljar_store::{BlobPlace, Database, StoreError};
use clap::Args;
use serde_json::json;
use tokio::runtime::Runtime;

use crate::cli::Common;
use crate::config::Config;
use crate::config::environment::Environment;
use crate::exit::{Exit, FAILED};

/// Options of `belljar doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print one JSON document on stdout.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    common: Common,
}

/// Tries everything that serving needs, and tells; fails when serving would be refused.
pub fn run(args: &DoctorArgs, environment: &Environment, runtime: &Runtime) -> Result<ExitCode, Exit> {
    let config = args.common.load(environment)?;
    let mut findings = probe(config.sandbox.limits_need);
    findings.push(open_files(&config.sandbox, descriptors::room()));
    findings.push(image(&config));
    findings.push(runtime.block_on(database(&config)));
    findings.push(runtime.block_on(contents(&config)));
    findings.push(runtime.block_on(gvisor(&config)));
    let refused = findings.iter().any(|finding| finding.status == Status::Refused);
    if args.json {
        println!("{}", json!({ "serves": !refused, "findings": findings }));
    } else {
        print(&findings, refused);
    }
    Ok(if refused { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

/// Whether the hard limit of open files, to which the server raises its own, lets as many containers be in use at once as the
/// configuration allows.
fn open_files(sandbox: &SandboxConfig, room: Option<usize>) -> Finding {
    let wanted = sandbox.containers_at_once();
    let finding = |status, found, advice| Finding { name: "open_files", status, found, advice };
    match room {
        None => finding(Status::Ok, "no limit".to_owned(), None),
        Some(room) if room >= wanted => {
            finding(Status::Ok, format!("room for {room} containers in use at once, of {wanted}"), None)
        }
        Some(room) => finding(
            Status::Warn,
            format!("room for {room} containers in use at once, of {wanted}"),
            Some(
                "raise the hard limit of open files (LimitNOFILE of systemd), or lower sandbox.containers_max"
                    .to_owned(),
            ),
        ),
    }
}

fn image(config: &Config) -> Finding {
    let found = ImageStore::open(&config.cache_dir).and_then(|images| images.resolve(&config.image));
    match found {
        Ok(image) => Finding {
            name: "image",
            status: Status::Ok,
            found: format!("{} {}", config.image, image.digest()),
            advice: None,
        },
        Err(error) => Finding {
            name: "image",
            status: Status::Refused,
            found: error.to_string(),
            advice: Some("run `belljar image build`".to_owned()),
        },
    }
}

/// Whether the database that is configured answers.
async fn database(config: &Config) -> Finding {
    let place = match &config.store.database {
        Database::Sqlite => format!("SQLite in {}", config.data_dir.display()),
        Database::Postgres(place) => place.to_string(),
    };
    reached(
        "database",
        place,
        config.store.database.reach().await,
        "see [store] of the configuration, and docs/storage.md",
    )
}

/// Whether the place for contents that is configured answers.
async fn contents(config: &Config) -> Finding {
    let place = match &config.store.blobs {
        BlobPlace::Disk => format!("files in {}", config.data_dir.display()),
        BlobPlace::Objects(place) => place.to_string(),
    };
    reached(
        "contents",
        place,
        config.store.blobs.reach().await,
        "see [store] of the configuration, and docs/storage.md",
    )
}

fn reached(name: &'static str, place: String, reach: Result<Option<String>, StoreError>, advice: &str) -> Finding {
    match reach {
        Ok(None) => Finding { name, status: Status::Ok, found: place, advice: None },
        Ok(Some(answer)) => Finding { name, status: Status::Ok, found: format!("{place} ({answer})"), advice: None },
        Err(error) => {
            Finding { name, status: Status::Refused, found: error.to_string(), advice: Some(advice.to_owned()) }
        }
    }
}

/// What is said when gVisor is not there.
const GVISOR_ADVICE: &str = "install runsc (Debian's package of that name, from trixie on, or `scripts/test`), and name it in \
                             sandbox.runsc if it is not on the PATH";

/// Whether containers of gVisor can be had, found out by running a command in one. A refusal only where the
/// configuration asks for it: a key that does is told when it comes.
async fn gvisor(config: &Config) -> Finding {
    let missing = match config.sandbox.isolation {
        Isolation::Gvisor => Status::Refused,
        Isolation::Namespaces => Status::Warn,
    };
    let lacking = |found: String, advice: &str| Finding {
        name: "gvisor",
        status: missing,
        found: format!("not available: {found}"),
        advice: Some(advice.to_owned()),
    };
    let Some(runsc) = &config.sandbox.runsc else {
        return lacking("runsc is not installed".to_owned(), GVISOR_ADVICE);
    };
    match try_gvisor(config).await {
        Ok(()) => Finding {
            name: "gvisor",
            status: Status::Ok,
            found: format!("a container ran a command on gVisor's kernel ({})", runsc.display()),
            advice: None,
        },
        Err(reason) => lacking(reason, "what runsc says of it is above; containers in namespaces are not concerned"),
    }
}

async fn try_gvisor(config: &Config) -> Result<(), String> {
    let said = |error: &dyn std::fmt::Display| error.to_string();
    let images = ImageStore::open(&config.cache_dir).map_err(|error| said(&error))?;
    let image = images.resolve(&config.image).map_err(|error| said(&error))?;
    let mounted = images.mount(&image, &Monitor::silent()).await.map_err(|error| said(&error))?;
    let rootfs = Rootfs {
        path: mounted.path().to_path_buf(),
        owner_base: mounted.owner_base(),
        digest: mounted.digest().to_string(),
    };
    let isolation = Isolation::Gvisor;
    let trial = SandboxConfig { isolation, pool_containers: 0, zygotes: Vec::new(), ..config.sandbox.clone() };
    let sandbox = Sandbox::open(trial, rootfs).await.map_err(|error| said(&error))?;
    sandbox.close().await;
    Ok(())
}

fn print(findings: &[Finding], refused: bool) {
    let width = findings.iter().map(|finding| finding.name.len()).max().unwrap_or(0);
    for finding in findings {
        let mark = match finding.status {
            Status::Ok => "ok     ",
            Status::Warn => "warn   ",
            Status::Refused => "REFUSED",
        };
        println!("{mark}  {:width$}  {}", finding.name, finding.found);
        if let Some(advice) = &finding.advice {
            println!("         {:width$}  -> {advice}", "");
        }
    }
    match refused {
        true => println!("\nServing would be refused on this machine."),
        false => println!("\nThis machine can serve."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_open_files_without_room_for_all_containers_is_a_warning() {
        let sandbox = SandboxConfig { containers_max: 256, pool_containers: 4, ..SandboxConfig::default() };
        let cases = [(None, Status::Ok), (Some(264), Status::Ok), (Some(263), Status::Warn), (Some(0), Status::Warn)];
        for (room, status) in cases {
            let finding = open_files(&sandbox, room);
            assert_eq!((finding.status, finding.advice.is_some()), (status, status == Status::Warn), "{room:?}");
        }
    }
}
