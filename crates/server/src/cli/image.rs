//! `belljar image build|import|list|verify`.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use belljar_image::{
    BuildOptions, CancellationToken, FailureClass, ImageError, ImageEvent, ImageListing, ImageName, ImageStore,
    ImportOptions, Made, Monitor, Phase, Reuse, UnpackLimits,
};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

/// The root filesystem containers start from
#[derive(Debug, Args)]
pub struct ImageArgs {
    #[command(subcommand)]
    command: ImageCommand,
    /// Print one JSON document on stdout
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    /// Build the default image: Debian, Python and its libraries, tools, fonts
    Build {
        /// Name to give it
        #[arg(long, default_value = ImageName::DEFAULT, value_parser = parse_name)]
        name: ImageName,
        /// Debian archive to fetch from, instead of the one this machine's apt uses
        #[arg(long, value_name = "URL")]
        mirror: Option<String>,
        /// Build even if this recipe was built already: takes in Debian's updates
        #[arg(long)]
        fresh: bool,
    },
    /// Import a directory, a tar (plain, gzip, zstd) or an OCI layout directory
    Import {
        /// What to import
        source: PathBuf,
        /// Name to give it
        #[arg(long, default_value = "imported", value_parser = parse_name)]
        name: ImageName,
    },
    /// List the images of this machine
    List,
    /// Hash an image and compare; without a name, all of them
    Verify {
        /// Name, digest, or the first digits of a digest
        image: Option<String>,
    },
}

fn parse_name(text: &str) -> Result<ImageName, String> {
    text.parse().map_err(|error: ImageError| error.to_string())
}

/// Runs the command. Exit status as everywhere: 0 done, 1 failed, 3 this machine cannot (2, usage, is clap's).
pub async fn run(args: ImageArgs, cache_dir: PathBuf) -> ExitCode {
    let cancel = CancellationToken::new();
    let signals = tokio::spawn(cancel_on_signal(cancel.clone()));
    let result = dispatch(args.command, &cache_dir, cancel).await;
    signals.abort();
    let (document, code) = match result {
        Ok(report) => {
            if !args.json {
                print_lines(&report.lines);
            }
            (report.document, if report.good { 0 } else { 1 })
        }
        Err(error) => {
            eprintln!("belljar image: {error}");
            let (class, code) = match error.class() {
                FailureClass::Machine => ("machine", 3),
                FailureClass::Request => ("request", 1),
                FailureClass::Interrupted => ("interrupted", 1),
                FailureClass::Host => ("host", 1),
            };
            (json!({"error": {"class": class, "message": error.to_string()}}), code)
        }
    };
    if args.json {
        print_lines(&[document.to_string()]);
    }
    ExitCode::from(code)
}

/// A closed pipe at the other end is not our failure.
fn print_lines(lines: &[String]) {
    let mut stdout = std::io::stdout().lock();
    for line in lines {
        if writeln!(stdout, "{line}").is_err() {
            return;
        }
    }
}

async fn cancel_on_signal(cancel: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        tracing::warn!("signals cannot be handled: an interrupted build leaves its programs running");
        return;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    cancel.cancel();
}

/// What a command has to say: lines for people, a document for machines.
struct Report {
    lines: Vec<String>,
    document: Value,
    good: bool,
}

async fn dispatch(command: ImageCommand, cache_dir: &Path, cancel: CancellationToken) -> Result<Report, ImageError> {
    let store = ImageStore::open(cache_dir)?;
    let started = Instant::now();
    let progress = std::sync::Arc::new(Progress::new());
    let heard = progress.clone();
    let monitor = Monitor::new(move |event| heard.hear(event), cancel);
    let result = match command {
        ImageCommand::Build { name, mirror, fresh } => {
            let reuse = if fresh { Reuse::Nothing } else { Reuse::Allowed };
            let options = BuildOptions { name: name.clone(), mirror, reuse };
            let made = store.build(&options, &monitor).await;
            made.map(|made| made_report(&name, &made, started.elapsed(), &progress.phases()))
        }
        ImageCommand::Import { source, name } => {
            let options = ImportOptions { source, name: name.clone(), limits: UnpackLimits::default() };
            let made = store.import(&options, &monitor).await;
            made.map(|made| made_report(&name, &made, started.elapsed(), &progress.phases()))
        }
        ImageCommand::List => store.list().map(|images| list_report(&images)),
        ImageCommand::Verify { image } => verify(&store, image, &monitor).await,
    };
    progress.end();
    result
}

fn made_report(name: &ImageName, made: &Made, elapsed: Duration, phases: &[(Phase, u64, Duration)]) -> Report {
    let record = &made.record;
    let mut lines = Vec::new();
    if made.dropped > 0 {
        lines.push(format!("{} devices, FIFOs or sockets were left out", made.dropped));
    }
    lines.push(format!(
        "{name} {} {} {} {:.1} s",
        record.digest,
        size(record.size_bytes),
        if made.reused { "already there" } else { "made" },
        elapsed.as_secs_f64()
    ));
    let phases: Vec<Value> = phases
        .iter()
        .map(|(phase, bytes, elapsed)| json!({"phase": phase.name(), "bytes": bytes, "elapsed_ms": millis(*elapsed)}))
        .collect();
    let document = json!({
        "name": name.as_str(),
        "digest": record.digest,
        "size_bytes": record.size_bytes,
        "content_bytes": record.content_bytes,
        "entries": record.entries,
        "reused": made.reused,
        "dropped": made.dropped,
        "elapsed_ms": millis(elapsed),
        "phases": phases,
    });
    Report { lines, document, good: true }
}

fn list_report(images: &[ImageListing]) -> Report {
    let mut lines = Vec::new();
    let mut rows = Vec::new();
    for image in images {
        let names: Vec<&str> = image.names.iter().map(ImageName::as_str).collect();
        let shown = if names.is_empty() { "-".into() } else { names.join(",") };
        lines.push(format!("{shown:<20} {} {:>10}", image.digest, size(image.size_bytes)));
        let origin = image.record.as_ref().map(|record| &record.origin);
        rows.push(json!({
            "digest": image.digest, "names": names, "size_bytes": image.size_bytes, "origin": origin,
        }));
    }
    if images.is_empty() {
        eprintln!("no images; `belljar image build` makes one");
    }
    Report { lines, document: json!({ "images": rows }), good: true }
}

async fn verify(store: &ImageStore, image: Option<String>, monitor: &Monitor) -> Result<Report, ImageError> {
    let digests = match image {
        Some(image) => vec![store.resolve(&image)?.digest()],
        None => store.list()?.into_iter().map(|image| image.digest).collect(),
    };
    let mut report = Report { lines: Vec::new(), document: Value::Null, good: true };
    let mut rows = Vec::new();
    for digest in digests {
        let image = store.resolve(&digest.to_string())?;
        let found = match store.verify(&image, monitor).await {
            Ok(()) => digest,
            Err(ImageError::Damaged { found, .. }) => found,
            Err(other) => return Err(other),
        };
        let good = found == digest;
        report.good &= good;
        report.lines.push(if good {
            format!("{digest} good")
        } else {
            format!("{digest} DAMAGED, its bytes are {found}")
        });
        rows.push(json!({"digest": digest, "good": good, "found": found}));
    }
    report.document = json!({ "images": rows });
    Ok(report)
}

fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Shows events on stderr: a bar on a terminal, else a line per phase.
struct Progress {
    terminal: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    bars: HashMap<Phase, ProgressBar>,
    done: Vec<(Phase, u64, Duration)>,
}

impl Progress {
    fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), state: Mutex::default() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Only figures for people: they may be used after a panic elsewhere.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn hear(&self, event: ImageEvent) {
        let mut state = self.state();
        match event {
            ImageEvent::Waiting { lock } => {
                eprintln!("another belljar is at work on the images ({}): waiting", lock.display())
            }
            ImageEvent::Reused { phase } => {
                eprintln!("{:<16} kept from an earlier run", phase.label())
            }
            ImageEvent::Started { phase, bytes_total } if self.terminal => {
                state.bars.insert(phase, bar(phase, bytes_total));
            }
            ImageEvent::Started { phase, .. } => eprintln!("{:<16} ...", phase.label()),
            ImageEvent::Progressed { phase, bytes } => {
                if let Some(bar) = state.bars.get(&phase) {
                    bar.set_position(bytes);
                }
            }
            ImageEvent::Finished { phase, bytes, elapsed } => {
                if let Some(bar) = state.bars.remove(&phase) {
                    bar.finish_and_clear();
                }
                state.done.push((phase, bytes, elapsed));
                eprintln!("{:<16} {:>10} {:>6.1} s", phase.label(), size(bytes), elapsed.as_secs_f64());
            }
        }
    }

    fn phases(&self) -> Vec<(Phase, u64, Duration)> {
        self.state().done.clone()
    }

    /// Clears what an interrupted phase left on the terminal.
    fn end(&self) {
        for (_, bar) in self.state().bars.drain() {
            bar.finish_and_clear();
        }
    }
}

fn bar(phase: Phase, bytes_total: Option<u64>) -> ProgressBar {
    let (bar, template) = match bytes_total {
        Some(total) => {
            (ProgressBar::new(total), "{prefix:<16} {bar:30} {binary_bytes:>10} / {binary_total_bytes} {elapsed}")
        }
        None => (ProgressBar::new_spinner(), "{prefix:<16} {spinner} {binary_bytes:>10} {elapsed}"),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_prefix(phase.label());
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
