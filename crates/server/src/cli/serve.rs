//! `belljar serve`.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use crate::cli::Common;
use crate::config::Config;
use crate::config::environment::Environment;
use crate::exit::Exit;
use crate::listener::Listener;
use crate::principal::Access;
use crate::{batches, organs, routes, stopping};

/// Serves until SIGINT or SIGTERM; a second one ends at once.
pub async fn run(common: &Common, environment: &Environment) -> Result<(), Exit> {
    let config = common.load(environment)?;
    log(environment)?;
    let listener = Listener::bind(&config).await?;
    let organs = organs::open(&config).await?;
    let app = organs.app.clone();
    refuse_open_world(&config, app.access)?;
    announce(&config, &listener, app.access);
    let stopping = app.stopping.clone();
    let mut interrupt = watch(SignalKind::interrupt())?;
    let mut terminate = watch(SignalKind::terminate())?;
    let sweeper = tokio::spawn(organs::sweep(Arc::clone(&app)));
    let unattended = tokio::spawn(batches::run(Arc::clone(&app)));
    let serving = listener.serve(routes::router(Arc::clone(&app)), stopping.clone(), config.serving.connections_max);
    let serving = tokio::spawn(serving);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("stopping: running turns may end; send the signal again to end at once");
    stopping.cancel();
    app.turns.close();
    let drained = async {
        app.turns.wait().await;
        let (served, ran) = tokio::join!(serving, unattended);
        served.and(ran)
    };
    let hurried = tokio::select! {
        ended = tokio::time::timeout(config.serving.shutdown_wait, drained) => {
            if ended.is_err() {
                tracing::warn!("turns were still running when the time was up");
            }
            false
        }
        _ = interrupt.recv() => true,
        _ = terminate.recv() => true,
    };
    sweeper.abort();
    let hurry = async {
        tokio::select! {
            () = std::future::ready(()), if hurried => {}
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let kept = stopping::keep_containers(&app, config.serving.shutdown_wait, hurry).await;
    // In this order: a waiting cell that is let go of is interrupted first, and all code that was not let go of by now
    // would run for that.
    app.sandbox.clone().close().await;
    app.parked.clear();
    if let Err(error) = app.store.write_touches().await {
        tracing::error!(%error, "the ends of containers could not be recorded");
    }
    drop(organs);
    let told = kept.told();
    tracing::info!("stopped");
    told
}

fn watch(kind: SignalKind) -> Result<tokio::signal::unix::Signal, Exit> {
    signal(kind).map_err(|error| Exit::cannot(format!("signals cannot be watched: {error}")))
}

/// Beyond loopback, a server without keys would serve everybody.
fn refuse_open_world(config: &Config, access: Access) -> Result<(), Exit> {
    if access == Access::Open && !config.listen.ip().is_loopback() {
        return Err(Exit::usage(format!(
            "listen = {}: refused without keys, because anyone who reaches this machine could run code on it; \
             create one with `belljar keys create`, or listen on 127.0.0.1",
            config.listen
        )));
    }
    Ok(())
}

fn announce(config: &Config, listener: &Listener, access: Access) {
    let address = listener.address();
    say(format_args!("belljar {} serves http://{address}", env!("CARGO_PKG_VERSION")));
    say(format_args!("  data       {}", config.data_dir.display()));
    for upstream in &config.upstreams {
        say(format_args!("  model      {} for {}", upstream.name, upstream.models.join(", ")));
    }
    if config.is_default {
        say(format_args!("  nothing is configured: the built-in scripted model answers under every model name"));
    }
    match access {
        Access::Open => say(format_args!(
            "  keys       none: any key is accepted, as the workspace `local`, from this machine only"
        )),
        Access::Keys => say(format_args!("  keys       required")),
    }
}

/// Says something to whoever started us. That nobody can hear it, on a full disk or a closed terminal, is no reason not to serve.
fn say(line: std::fmt::Arguments<'_>) {
    let _unheard = writeln!(std::io::stderr(), "{line}");
}

fn log(environment: &Environment) -> Result<(), Exit> {
    let filter = environment.get("BELLJAR_LOG").unwrap_or("info");
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .map_err(|error| Exit::failed(format!("BELLJAR_LOG: {error}")))?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        // It would say that a line cannot be written where lines cannot be written, and panic.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    match environment.get("BELLJAR_LOG_FORMAT") {
        Some("json") => subscriber.json().init(),
        _ => subscriber.with_target(false).init(),
    }
    Ok(())
}
