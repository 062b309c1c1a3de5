//! `belljar exec`: one cell, through the running server or in this process when none runs.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::app::Shared;
use crate::cell::{self, CellRequest, Language};
use crate::cli::Common;
use crate::config::Config;
use crate::config::environment::Environment;
use crate::driver::place::new_container;
use crate::exit::{Exit, FAILED};
use crate::organs;
use crate::principal::{LOCAL_WORKSPACE, Principal};
use crate::tenants::permit::ModelPermit;

/// Options of `belljar exec`.
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// What the code is written in.
    #[arg(long, value_enum)]
    language: Language,
    /// An existing container of the running server.
    #[arg(long, value_name = "ID")]
    container: Option<String>,
    /// A file to put into $INPUT_DIR first; may be repeated.
    #[arg(long = "file", value_name = "PATH")]
    files: Vec<PathBuf>,
    /// Print the whole report as one JSON document.
    #[arg(long)]
    json: bool,
    /// The key for the running server.
    #[arg(long, value_name = "KEY", env = "BELLJAR_API_KEY", hide_env_values = true, default_value = "local")]
    key: String,
    #[command(flatten)]
    common: Common,
    /// The code; `-` or nothing reads standard input.
    code: Option<String>,
}

/// Exit status of a cell that ran out of time, as `timeout` has it.
const TIMED_OUT: u8 = 124;
/// Exit status of a cell that was killed.
const KILLED: u8 = 137;
/// How long to wait for an answer before concluding that no server runs.
const PROBE_WAIT: Duration = Duration::from_secs(2);

/// Runs the cell; the exit status is its return code.
pub async fn run(args: &ExecArgs, environment: &Environment) -> Result<ExitCode, Exit> {
    let config = args.common.load(environment)?;
    let source = source(args)?;
    let report = match Remote::find(&config, &args.key).await {
        Some(remote) => remote.run(args, source).await?,
        None => here(args, &config, source).await?,
    };
    print(args.json, &report)?;
    Ok(exit_code(&report))
}

fn source(args: &ExecArgs) -> Result<String, Exit> {
    match args.code.as_deref() {
        Some(code) if code != "-" => Ok(code.to_owned()),
        _ => {
            let mut code = String::new();
            std::io::stdin()
                .read_to_string(&mut code)
                .map_err(|error| Exit::failed(format!("standard input: {error}")))?;
            Ok(code)
        }
    }
}

/// In this process, in a container that goes with it.
async fn here(args: &ExecArgs, config: &Config, source: String) -> Result<Value, Exit> {
    if let Some(id) = &args.container {
        return Err(Exit::failed(format!(
            "Container not found: {id} (no server runs at {}, and containers go with it)",
            config.listen
        )));
    }
    let organs = organs::open(config, None).await?;
    let outcome = in_new_container(args, config, &organs.app, source).await;
    // Whatever came of it: only a closed sandbox has cleared everything away.
    organs.app.sandbox.clone().close().await;
    drop(organs);
    outcome
}

async fn in_new_container(args: &ExecArgs, config: &Config, app: &Shared, source: String) -> Result<Value, Exit> {
    let broken = |error: &dyn std::fmt::Display| Exit::failed(error.to_string());
    let workspace = LOCAL_WORKSPACE.parse().map_err(|error| broken(&error))?;
    let principal = Principal { workspace, isolation: None, models: ModelPermit::default(), key: None };
    let id = new_container(app, &principal).await.map_err(|error| broken(&error))?;
    let mut lease = app.sandbox.lease(&id, PROBE_WAIT).await.map_err(|error| broken(&error))?;
    for path in &args.files {
        let (name, file, size) = input(path).await?;
        lease
            .put_input(&name, file, size)
            .await
            .map_err(|error| Exit::failed(format!("{}: {error}", path.display())))?;
    }
    let request = CellRequest { language: args.language, source, wall: config.serving.cell_wall };
    let report =
        cell::run(app, &principal.workspace, &mut lease, request, None).await.map_err(|error| broken(&error))?;
    drop(lease);
    app.store.delete_container(&principal.workspace, &id).await.map_err(|error| broken(&error))?;
    Ok(json!(report))
}

async fn input(path: &Path) -> Result<(String, tokio::fs::File, u64), Exit> {
    let refused = |error: std::io::Error| Exit::failed(format!("{}: {error}", path.display()));
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| Exit::failed(format!("{}: has no usable file name", path.display())))?;
    let file = tokio::fs::File::open(path).await.map_err(refused)?;
    let size = file.metadata().await.map_err(refused)?.len();
    Ok((name.to_owned(), file, size))
}

/// The running server.
struct Remote {
    base: String,
    key: String,
    client: reqwest::Client,
}

impl Remote {
    async fn find(config: &Config, key: &str) -> Option<Self> {
        // Without a provider no client can be built, and a second installation is refused: both are fine here.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().ok()?;
        let base = format!("http://{}", config.listen);
        let answer = client.get(format!("{base}/healthz")).timeout(PROBE_WAIT).send().await.ok()?;
        answer.status().is_success().then(|| Self { base, key: key.to_owned(), client })
    }

    async fn run(&self, args: &ExecArgs, source: String) -> Result<Value, Exit> {
        let id = match &args.container {
            Some(id) => id.clone(),
            None => {
                let made = self.post("/belljar/v1/containers", &json!({})).await?;
                made["id"].as_str().unwrap_or_default().to_owned()
            }
        };
        for path in &args.files {
            let (name, file, size) = input(path).await?;
            let url = self.url(&["belljar", "v1", "containers", &id, "files", "files", "input", &name])?;
            let request = self.client.put(url).header("content-length", size).body(reqwest::Body::from(file));
            self.send(request).await?;
        }
        let language = match args.language {
            Language::Python => "python",
            Language::Bash => "bash",
        };
        let report = self
            .post(&format!("/belljar/v1/containers/{id}/cells"), &json!({ "language": language, "source": source }))
            .await;
        if args.container.is_none() {
            let url = self.url(&["belljar", "v1", "containers", &id])?;
            self.send(self.client.delete(url)).await?;
        }
        report
    }

    fn url(&self, segments: &[&str]) -> Result<reqwest::Url, Exit> {
        let mut url: reqwest::Url = self.base.parse().map_err(|error| Exit::failed(format!("{error}")))?;
        if let Ok(mut path) = url.path_segments_mut() {
            path.clear().extend(segments);
        }
        Ok(url)
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Value, Exit> {
        self.send(self.client.post(format!("{}{path}", self.base)).json(body)).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Value, Exit> {
        let answer = request.header("x-api-key", &self.key).send().await;
        let answer = answer.map_err(|error| Exit::failed(format!("the server at {}: {error}", self.base)))?;
        let status = answer.status();
        let body: Value = answer.json().await.map_err(|error| Exit::failed(format!("the server's answer: {error}")))?;
        match status.is_success() {
            true => Ok(body),
            false => Err(Exit::failed(body["error"]["message"].as_str().unwrap_or("the server refused").to_owned())),
        }
    }
}

fn print(as_json: bool, report: &Value) -> Result<(), Exit> {
    use std::io::Write as _;
    let text = |key: &str| report[key].as_str().unwrap_or_default().to_owned();
    let written = match as_json {
        true => writeln!(std::io::stdout(), "{report}"),
        false => std::io::stdout()
            .write_all(text("stdout").as_bytes())
            .and_then(|()| std::io::stderr().write_all(text("stderr").as_bytes())),
    };
    written.map_err(|error| Exit::failed(format!("standard output: {error}")))
}

fn exit_code(report: &Value) -> ExitCode {
    let code = match report["outcome"].as_str() {
        Some("ended") => u8::try_from(report["return_code"].as_i64().unwrap_or(1)).unwrap_or(FAILED),
        Some("timed_out") => TIMED_OUT,
        _ => KILLED,
    };
    ExitCode::from(code)
}
