//! `belljar compare`: the same requests asked of several servers, side by side.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use crate::compare::answer::Answer;
use crate::compare::ask::Server;
use crate::compare::prices::Prices;
use crate::compare::questions::{self, Question, with_ids};
use crate::compare::report::{self, Asked};
use crate::compare::structure::{Thread, compare};
use crate::config::environment::Environment;
use crate::exit::{Exit, FAILED};

/// Options of `belljar compare`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// Requests: a JSON document, a list of them, or one a line; bodies, or exchanges of a recording.
    #[arg(long, value_name = "FILE")]
    request: PathBuf,
    /// A server to ask; repeat it for each. The first is what the others are held against, unless the file has recorded replies.
    #[arg(long = "base-url", value_name = "URL", required = true)]
    base_urls: Vec<String>,
    /// The environment variable that holds the key; once for all servers, or once for each, in their order. `-` means that a
    /// server needs none.
    #[arg(long = "key-env", value_name = "NAME")]
    key_envs: Vec<String>,
    /// A TOML table of prices for a million tokens; without it, tokens only.
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// How long one answer may take, in seconds.
    #[arg(long, value_name = "N", default_value_t = 600)]
    wait_s_max: u64,
    /// Print one JSON document on stdout, with whole replies.
    #[arg(long)]
    json: bool,
    /// Exit with 1 when shapes differ. Without it, only a server that gave no answer does.
    #[arg(long)]
    check: bool,
}

/// The name of what was recorded.
const RECORDED: &str = "recorded";

/// What a server without keys is sent: it wants some key, whichever.
const NO_KEY: &str = "none";

/// Asks, and prints.
pub async fn run(args: &CompareArgs, environment: &Environment) -> Result<ExitCode, Exit> {
    let servers = servers(args, environment)?;
    let prices = args.prices.as_deref().map(Prices::read).transpose()?.unwrap_or_default();
    let questions = questions::read(&args.request)?;
    let mut threads: Vec<Thread> = servers.iter().map(|_| Thread::new()).collect();
    let mut asked = Vec::with_capacity(questions.len());
    for question in &questions {
        asked.push(ask(question, &servers, &mut threads).await);
    }
    let text = match args.json {
        true => format!("{}\n", report::document(&asked, &prices)),
        false => report::text(&asked, &prices),
    };
    let written = std::io::stdout().write_all(text.as_bytes());
    written.map_err(|error| Exit::failed(format!("standard output: {error}")))?;
    let silent = asked.iter().any(|asked| asked.answers.iter().any(|(_, answer)| answer.is_err()));
    let differ = asked.iter().any(|asked| asked.differences.iter().any(|(_, found)| !found.is_empty()));
    Ok(if silent || (args.check && differ) { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

fn servers(args: &CompareArgs, environment: &Environment) -> Result<Vec<Server>, Exit> {
    let (urls, keys) = (&args.base_urls, &args.key_envs);
    if !(keys.len() <= 1 || keys.len() == urls.len()) {
        return Err(Exit::usage(format!(
            "{} --key-env for {} --base-url: one for all, or one for each",
            keys.len(),
            urls.len()
        )));
    }
    let wait = Duration::from_secs(args.wait_s_max);
    let server = |(index, url): (usize, &String)| {
        let name = keys.get(index).or(keys.first()).filter(|name| name.as_str() != "-");
        let key = match name {
            None => NO_KEY.to_owned(),
            Some(name) => environment
                .get(name)
                .ok_or_else(|| Exit::usage(format!("the environment variable {name} is not set")))?
                .to_owned(),
        };
        Server::new(url, key, wait, environment.get("HTTPS_PROXY"))
    };
    urls.iter().enumerate().map(server).collect()
}

/// Asks one server after the other: none is slowed down by another.
async fn ask(question: &Question, servers: &[Server], threads: &mut [Thread]) -> Asked {
    let mut answers: Vec<(String, Result<Answer, String>)> = Vec::new();
    let mut bodies: Vec<Value> = Vec::new();
    if let Some(recorded) = &question.recorded {
        answers.push((RECORDED.to_owned(), Ok(recorded.clone())));
        bodies.push(question.body.clone());
    }
    for (server, thread) in servers.iter().zip(threads) {
        let body = with_ids(question.body.clone(), &thread.known);
        let answer = server.ask(question, &body).await;
        if let (Some(recorded), Ok(told)) = (&question.recorded, &answer) {
            thread.learn(&question.body, &body, recorded, told);
        }
        answers.push((server.name.clone(), answer));
        bodies.push(body);
    }
    let differences = match answers.split_first() {
        Some(((_, Ok(first)), others)) => others
            .iter()
            .zip(bodies.iter().skip(1))
            .filter_map(|((name, answer), body)| {
                let answer = answer.as_ref().ok()?;
                Some((name.clone(), compare((&bodies[0], first), (body, answer))))
            })
            .collect(),
        Some(((_, Err(_)), _)) | None => Vec::new(),
    };
    let model = question.body["model"].as_str().unwrap_or_default().to_owned();
    Asked { model, stream: question.body["stream"] == true, answers, differences }
}
