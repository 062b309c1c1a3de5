//! The whole process, measured from outside: a release server on loopback, driven over plain sockets.
//!
//! `cargo bench --package belljar-server --bench whole [-- --smoke]`. Each figure stands beside a floor or a peer measured in the
//! same run, because only ratios hold on a noisy machine. Writes `bench/runs/<date>-whole.json` unless `--smoke` is given.

mod client;
mod floor;
mod machine;
mod server;

use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use client::Connection;
use server::Server;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Streams at once, on however few cores.
const STREAMS: usize = 500;
/// Memory that one stream may take of the server, in bytes, above the size of its request.
const STREAM_BYTES_MAX: u64 = 256 * 1024;

/// How much is measured.
#[derive(Clone, Copy)]
struct Size {
    rounds: usize,
    streams: usize,
}

fn main() -> Outcome<()> {
    let smoke = std::env::args().any(|argument| argument == "--smoke" || argument == "--test");
    let size = if smoke { Size { rounds: 20, streams: 20 } } else { Size { rounds: 300, streams: STREAMS } };
    let server = Server::start()?;
    let mut rows = Vec::new();
    rows.extend(turn_without_code(&server, size)?);
    rows.extend(turn_with_bash(&server, size)?);
    rows.extend(new_container(&server, size)?);
    rows.push(streams_at_once(&server, size)?);
    let report = json!({ "machine": machine::describe(), "rounds": size.rounds, "rows": rows });
    drop(server);
    if smoke {
        println!("{report:#}");
    } else {
        println!("{}", machine::keep(&report)?.canonicalize()?.file_name().unwrap_or_default().display());
    }
    print_table(&report);
    // Of a few streams, what the process takes for itself is too large a part.
    match report["rows"].as_array().into_iter().flatten().find(|row| row["kept"] == json!(false)) {
        Some(row) if !smoke => Err(format!("{}: a promise is missed", row["what"]).into()),
        _ => Ok(()),
    }
}

/// Bytes in to first event out, and to the last, of a turn whose model answers at once; beside a server that does nothing.
fn turn_without_code(server: &Server, size: Size) -> Outcome<Vec<Value>> {
    let body =
        json!({ "model": "m", "max_tokens": 64, "stream": true, "messages": [{ "role": "user", "content": "hello" }] });
    let request = client::messages(&body, "short");
    let mut ours = Connection::open(server.address())?;
    let canned = ours.stream(&request)?.bytes;
    let floor = floor::Floor::start(canned)?;
    let mut peer = Connection::open(floor.address())?;
    let (mut first, mut whole, mut floor_first, mut floor_whole) = (vec![], vec![], vec![], vec![]);
    for _ in 0..size.rounds {
        let timed = ours.stream(&request)?;
        first.push(timed.first);
        whole.push(timed.whole);
        let timed = peer.stream(&request)?;
        floor_first.push(timed.first);
        floor_whole.push(timed.whole);
    }
    Ok(vec![
        row("turn without code: first event", &mut first, "a server that sends the same bytes", &mut floor_first),
        row("turn without code: last event", &mut whole, "a server that sends the same bytes", &mut floor_whole),
    ])
}

/// A turn with one bash cell in a container that is there already; beside a bare `bash -c`.
fn turn_with_bash(server: &Server, size: Size) -> Outcome<Vec<Value>> {
    let mut ours = Connection::open(server.address())?;
    let container = ours.post("/belljar/v1/containers", &json!({}))?["id"].clone();
    let body = json!({
        "model": "m", "max_tokens": 64, "stream": true, "container": container,
        "tools": [{ "type": "code_execution_20250825", "name": "code_execution" }],
        "messages": [{ "role": "user", "content": "run it" }],
    });
    let request = client::messages(&body, "bash");
    let cell = json!({ "language": "bash", "source": "echo hi" });
    let cells = format!("/belljar/v1/containers/{}/cells", container.as_str().unwrap_or_default());
    let (mut turn, mut alone, mut bare) = (vec![], vec![], vec![]);
    for _ in 0..size.rounds {
        turn.push(ours.stream(&request)?.whole);
        let begun = Instant::now();
        ours.post(&cells, &cell)?;
        alone.push(begun.elapsed());
        bare.push(spawn("bash", &["-c", "echo hi"])?);
    }
    Ok(vec![
        row("turn with one bash cell", &mut turn, "bare `bash -c 'echo hi'`", &mut bare.clone()),
        row("bash cell by the cells endpoint", &mut alone, "bare `bash -c 'echo hi'`", &mut bare),
    ])
}

/// A new container to the output of its first command; beside bubblewrap where it is installed.
fn new_container(server: &Server, size: Size) -> Outcome<Vec<Value>> {
    let mut ours = Connection::open(server.address())?;
    let cell = json!({ "language": "bash", "source": "echo hi" });
    let bwrap = ["--ro-bind", "/", "/", "--unshare-all", "--proc", "/proc", "--dev", "/dev", "bash", "-c", "echo hi"];
    let has_bwrap = spawn("bwrap", &bwrap).is_ok();
    let (mut start, mut peer) = (vec![], vec![]);
    for _ in 0..size.rounds.min(100) {
        let begun = Instant::now();
        let made = ours.post("/belljar/v1/containers", &json!({}))?;
        let id = made["id"].as_str().unwrap_or_default().to_owned();
        ours.post(&format!("/belljar/v1/containers/{id}/cells"), &cell)?;
        start.push(begun.elapsed());
        ours.delete(&format!("/belljar/v1/containers/{id}"))?;
        if has_bwrap {
            peer.push(spawn("bwrap", &bwrap)?);
        }
    }
    if !has_bwrap {
        eprintln!("bubblewrap is not installed: no peer for new containers");
    }
    Ok(vec![row("new container to `echo hi`", &mut start, "bwrap, all namespaces, `echo hi`", &mut peer)])
}

/// Many slow streams at once: processor time and memory of the server for each.
fn streams_at_once(server: &Server, size: Size) -> Outcome<Value> {
    let body = json!({ "model": "m", "max_tokens": 4096, "stream": true, "messages": [{ "role": "user", "content": "hello" }] });
    let request = client::messages(&body, "slow");
    let before = server.usage()?;
    let begun = Instant::now();
    let barrier = Barrier::new(size.streams);
    let address = server.address();
    let (whole, peak) = std::thread::scope(|scope| {
        let streams: Vec<_> = (0..size.streams)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    let timed = Connection::open(address).and_then(|mut connection| connection.stream(&request));
                    timed.map(|timed| timed.whole).map_err(|error| error.to_string())
                })
            })
            .collect();
        let mut peak = before;
        while streams.iter().any(|stream| !stream.is_finished()) {
            if let Ok(usage) = server.usage() {
                peak.resident_bytes = peak.resident_bytes.max(usage.resident_bytes);
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        let whole: Result<Vec<Duration>, String> = streams
            .into_iter()
            .map(|stream| stream.join().unwrap_or_else(|_| Err("a client panicked".to_owned())))
            .collect();
        (whole, peak)
    });
    let mut whole = whole?;
    let after = server.usage()?;
    let streams = size.streams as u64;
    let memory = peak.resident_bytes.saturating_sub(before.resident_bytes) / streams;
    let memory_max = STREAM_BYTES_MAX + request.len() as u64;
    Ok(json!({
        "what": format!("{streams} streams at once"),
        "ours_us": summary(&mut whole),
        "wall_ms": begun.elapsed().as_millis(),
        "cpu_us_per_stream": (after.cpu.saturating_sub(before.cpu)).as_micros() / u128::from(streams),
        "request_bytes": request.len(),
        "memory_bytes_per_stream": memory,
        "memory_bytes_per_stream_max": memory_max,
        "kept": memory <= memory_max,
    }))
}

fn spawn(program: &str, arguments: &[&str]) -> Outcome<Duration> {
    let begun = Instant::now();
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output()?;
    match output.status.success() && output.stdout == b"hi\n" {
        true => Ok(begun.elapsed()),
        false => Err(format!("{program} failed").into()),
    }
}

fn row(what: &str, ours: &mut [Duration], peer: &str, theirs: &mut [Duration]) -> Value {
    let (ours, theirs) = (summary(ours), summary(theirs));
    let ratio = match (ours["median"].as_f64(), theirs["median"].as_f64()) {
        (Some(ours), Some(theirs)) if theirs > 0.0 => json!((ours / theirs * 100.0).round() / 100.0),
        _ => Value::Null,
    };
    json!({ "what": what, "ours_us": ours, "peer": peer, "peer_us": theirs, "ratio_of_medians": ratio })
}

fn summary(times: &mut [Duration]) -> Value {
    times.sort_unstable();
    let at = |per_mille: usize| {
        let index = times.len().saturating_sub(1) * per_mille / 1000;
        times.get(index).map(|time| time.as_secs_f64() * 1e6)
    };
    json!({ "n": times.len(), "min": at(0), "median": at(500), "p99": at(990), "max": at(1000) })
}

fn print_table(report: &Value) {
    println!("{:36} {:>12} {:>12} {:>12}  {:>8}  beside", "what", "median us", "p99 us", "peer us", "ratio");
    for row in report["rows"].as_array().into_iter().flatten() {
        let number = |value: &Value| value.as_f64().map_or_else(|| "-".to_owned(), |number| format!("{number:.1}"));
        println!(
            "{:36} {:>12} {:>12} {:>12}  {:>8}  {}",
            row["what"].as_str().unwrap_or_default(),
            number(&row["ours_us"]["median"]),
            number(&row["ours_us"]["p99"]),
            number(&row["peer_us"]["median"]),
            number(&row["ratio_of_medians"]),
            row["peer"].as_str().map_or_else(
                || format!("{} us CPU, {} bytes each", row["cpu_us_per_stream"], row["memory_bytes_per_stream"]),
                str::to_owned
            ),
        );
    }
}
