//! A whole server in this process, on loopback: real routes, store and sandbox, and a model that plays scripts.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;

use belljar_sandbox::Sandbox;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::Failure;
use super::ours;
use super::stage::{Needs, Stage};
use crate::cell::Language;
use crate::exit::Exit;
use crate::listener::Listener;
use crate::organs::{self, Organs};
use crate::routes;

/// A running server. To be closed, which takes its containers with it.
pub struct Served {
    address: SocketAddr,
    organs: Organs,
    serving: JoinHandle<()>,
    /// Its data and its scripts.
    _folder: tempfile::TempDir,
}

impl Served {
    /// Opens it with a script for each of these cells, by name; returns when its interpreters are warm.
    pub async fn open(stage: &Stage, cells: &[(&str, &str)]) -> Result<Self, Failure> {
        let failed = |exit: Exit| exit.message().to_owned();
        let folder = tempfile::Builder::new().prefix("belljar-bench-").tempdir()?;
        let scripts = folder.path().join("scripts");
        fs::create_dir(&scripts)?;
        for (name, code) in cells {
            fs::write(scripts.join(format!("{name}.json")), script(code).to_string())?;
        }
        let config = stage.server(&folder.path().join("data"), &scripts);
        let listener = Listener::bind(&config).await.map_err(failed)?;
        let address = listener.address();
        let organs = organs::open(&config, None).await.map_err(failed)?;
        let (router, stopping) = (routes::router(Arc::clone(&organs.app)), organs.app.stopping.clone());
        let serving = tokio::spawn(listener.serve(router, stopping, config.serving.connections_max));
        let needs = Needs { containers: config.sandbox.containers_max, pooled: 0, language: Language::Python };
        ours::await_up(&organs.app.sandbox, needs).await?;
        Ok(Self { address, organs, serving, _folder: folder })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its containers.
    pub fn sandbox(&self) -> &Sandbox {
        &self.organs.app.sandbox
    }

    /// Ends it, when its clients have hung up.
    pub async fn close(self) -> Result<(), Failure> {
        let app = &self.organs.app;
        app.stopping.cancel();
        app.turns.close();
        app.turns.wait().await;
        self.serving.await?;
        app.sandbox.clone().close().await;
        app.parked.clear();
        Ok(())
    }
}

/// A model that writes a cell, and ends when it has seen what came of it.
fn script(code: &str) -> Value {
    let call = json!({ "type": "tool_use", "name": "code_execution", "input": { "code": code } });
    json!({ "steps": [{ "content": [call] }, { "content": [{ "type": "text", "text": "Done." }] }] })
}
