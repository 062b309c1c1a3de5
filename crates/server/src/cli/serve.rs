//! `belljar serve`.

use std::io::{IsTerminal as _, Write as _};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use belljar_sandbox::handover::{self, HandedFd};
use clap::Args;
use tokio::task::JoinHandle;

use crate::app::{App, Shared};
use crate::cli::Common;
use crate::config::Config;
use crate::config::environment::Environment;
use crate::exit::Exit;
use crate::handover::{Estate, Living};
use crate::listener::Listener;
use crate::principal::Access;
use crate::restart::{Ground, Program};
use crate::signals::{Signals, Wish};
use crate::{batches, organs, routes, stopping};

/// Options of `belljar serve`.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    common: Common,
    /// Only check the configuration, and that a container can start, and tell what a server would begin with.
    #[arg(long)]
    check: bool,
}

/// Serves until SIGINT or SIGTERM; a second one ends at once. SIGHUP has it restart in place, unless it belongs to a terminal.
pub async fn run(args: &ServeArgs, environment: &Environment) -> Result<(), Exit> {
    let config = args.common.load(environment)?;
    if args.check {
        return check(&config).await;
    }
    log(environment)?;
    let mut signals = Signals::watch()?;
    let program = Program::of_this_process().map_err(|error| Exit::cannot(format!("/proc/self/exe: {error}")))?;
    let (listener, inheritance) = match Estate::received(environment)? {
        None => (Listener::bind(&config).await?, None),
        Some(Estate { listener, living }) => {
            let listener = Listener::inherited(listener, &config).await?;
            (listener, living.map(Living::inheritance).transpose()?)
        }
    };
    let organs = organs::open(&config, inheritance).await?;
    let app = organs.app.clone();
    let access = app.gate.access(&app.store).await.map_err(|failure| Exit::failed(failure.into_error().message))?;
    refuse_open_world(&config, access)?;
    announce(&config, &listener, access);
    let kept_open = listener.for_the_next();
    let house = House {
        sweeper: tokio::spawn(organs::sweep(Arc::clone(&app))),
        unattended: tokio::spawn(batches::run(Arc::clone(&app))),
        serving: tokio::spawn(listener.serve(
            routes::router(Arc::clone(&app)),
            app.stopping.clone(),
            config.serving.connections_max,
        )),
    };
    match wished(&mut signals, &program).await {
        None => {
            tracing::info!("stopping: running turns may end; send the signal again to end at once");
            let hurried = house.drained(&app, &config, &mut signals).await;
            let told = stop(&app, &config, hurried, signals.stop()).await;
            drop(organs);
            tracing::info!("stopped");
            told
        }
        Some(ground) => {
            tracing::info!("restarting in place: running turns may end");
            let hurried = house.drained(&app, &config, &mut signals).await;
            let listener = kept_open.map_err(|error| Exit::failed(format!("the listening socket: {error}")))?;
            restart(&app, &config, (&program, &ground), listener, hurry(hurried, signals.stop())).await
        }
    }
}

/// Waits for a stop, or for a restart that can be: then with what the next program begins with.
async fn wished(signals: &mut Signals, program: &Program) -> Option<Ground> {
    loop {
        match signals.next().await {
            Wish::Stop => return None,
            Wish::Restart => tokio::select! {
                tried = program.tried() => match tried {
                    Ok(ground) => return Some(ground),
                    Err(why) => tracing::error!("not restarted, and serving on as before: {why}"),
                },
                () = signals.stop() => return None,
            },
        }
    }
}

async fn check(config: &Config) -> Result<(), Exit> {
    let ground = Ground::proved(config).await?.written();
    let written = std::io::stdout().write_all(ground.as_bytes());
    written.map_err(|error| Exit::failed(format!("standard output: {error}")))
}

/// What runs beside requests.
struct House {
    sweeper: JoinHandle<()>,
    unattended: JoinHandle<()>,
    serving: JoinHandle<()>,
}

/// Whether somebody asked for the end a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hurried {
    No,
    Yes,
}

impl House {
    /// Lets nothing new in, and waits for what runs, as long as there is time and nobody is in a hurry.
    async fn drained(self, app: &App, config: &Config, signals: &mut Signals) -> Hurried {
        app.stopping.cancel();
        app.turns.close();
        let drained = async {
            app.turns.wait().await;
            let (served, ran) = tokio::join!(self.serving, self.unattended);
            served.and(ran)
        };
        let hurried = tokio::select! {
            ended = tokio::time::timeout(config.serving.shutdown_wait, drained) => {
                if ended.is_err() {
                    tracing::warn!("turns were still running when the time was up");
                }
                Hurried::No
            }
            () = signals.stop() => Hurried::Yes,
        };
        self.sweeper.abort();
        hurried
    }
}

/// Completes when somebody is in a hurry.
async fn hurry(hurried: Hurried, stop: impl Future<Output = ()>) {
    match hurried {
        Hurried::Yes => {}
        Hurried::No => stop.await,
    }
}

/// Puts on disk what lives, and ends it.
async fn stop(app: &Shared, config: &Config, hurried: Hurried, again: impl Future<Output = ()>) -> Result<(), Exit> {
    let kept = stopping::keep_containers(app, config.serving.shutdown_wait, hurry(hurried, again)).await;
    // In this order: a waiting cell that is let go of is interrupted first, and all code that was not let go of by now
    // would run for that.
    app.sandbox.clone().close().await;
    app.parked.clear();
    write_touches(app).await;
    kept.told()
}

async fn write_touches(app: &App) {
    if let Err(error) = app.store.write_touches().await {
        tracing::error!(%error, "the ends of containers could not be recorded");
    }
}

/// Becomes the next program. Live containers go on in it if they can, else they are put on disk; those that are still in use
/// are so in any case.
async fn restart(
    app: &Shared,
    config: &Config,
    (program, ground): (&Program, &Ground),
    listener: OwnedFd,
    hurry: impl Future<Output = ()>,
) -> Result<(), Exit> {
    let present = Ground { form: handover::form(), image: app.image_digest.clone() };
    let wait = config.serving.shutdown_wait;
    if *ground != present {
        tracing::warn!(?present, next = ?ground, "live containers cannot go on and are put on disk");
        stopping::keep_containers(app, wait, hurry).await.warn();
        app.sandbox.clone().close().await;
        app.parked.clear();
        write_touches(app).await;
        return Err(become_next(program, &listener, None));
    }
    stopping::keep_used(app, wait, hurry).await.warn();
    write_touches(app).await;
    let handed = Living::of(app).await.map_err(|error| Exit::failed(format!("restart: {error}")))?;
    let (living, _running, _cells) = handed;
    let (containers, waiting) = living.counted();
    tracing::info!(containers, waiting, "live containers go on in the next program");
    Err(become_next(program, &listener, Some(living)))
}

/// Only now is the socket marked to stay open: nothing is started any more that would inherit it.
fn become_next(program: &Program, listener: &OwnedFd, living: Option<Living>) -> Exit {
    match HandedFd::hand_over(listener) {
        Ok(listener) => program.become_next(&Estate { listener, living }),
        Err(errno) => Exit::failed(format!("the listening socket: {errno}")),
    }
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
            "  keys       none: any key is accepted, as the workspace `local`, from this machine only, until there is one"
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
