//! `belljar doctor`: what this machine allows, found by trying.

use std::process::ExitCode;

use belljar_image::ImageStore;
use belljar_sandbox::probe::{Finding, Status, probe};
use clap::Args;
use serde_json::json;

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
pub fn run(args: &DoctorArgs, environment: &Environment) -> Result<ExitCode, Exit> {
    let config = args.common.load(environment)?;
    let mut findings = probe(config.sandbox.limits_need);
    findings.push(image(&config));
    let refused = findings.iter().any(|finding| finding.status == Status::Refused);
    if args.json {
        println!("{}", json!({ "serves": !refused, "findings": findings }));
    } else {
        print(&findings, refused);
    }
    Ok(if refused { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
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
