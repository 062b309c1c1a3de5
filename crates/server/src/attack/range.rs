//! Where attacks are run: a sandbox, the container under attack, and a neighbour that keeps secrets.

use std::time::Duration;

use belljar_ids::ContainerId;
use belljar_sandbox::{
    CellOptions, CellOutcome, ContainerOptions, Language, Lease, Sandbox, SandboxCounts, SandboxError, ZygoteStatus,
};
use tokio::io::AsyncReadExt as _;
use tokio_util::sync::CancellationToken;

use crate::attack::calling::{self, Caller};
use crate::attack::case::{Case, Run, Step, Whose};
use crate::attack::judge::{self, Seen};
use crate::attack::mode::Mode;
use crate::cell::{Outcome, Reason};
use crate::driver::calls::{append_lines, text};
use crate::random::{OsIds, secret};

/// Wall time of a step, unless it says otherwise.
pub const CELL_WALL_S: u64 = 30;
/// For a container that another step of the same case may still hold.
const LEASE_WAIT: Duration = Duration::from_secs(5);
/// Bytes of a captured or read file that are searched for secrets.
const SEARCHED_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Names the system calls.
const PRELUDE: &str = include_str!("prelude.py");
const FORGE: &str = include_str!("forge.py");
/// The name that cells in Python have in tracebacks.
pub const CELL_FILE: &str = "/tmp/srvtoolu_attack/cell.py";

/// Files of the image whose digests are compared after each case.
const SAMPLED: &str = "/usr/bin/bash /usr/bin/env /usr/bin/ls /etc/passwd /etc/ld.so.cache /usr/lib/*-linux-gnu/libc.so.6 \
                       /usr/bin/python3* /usr/lib/os-release";

/// See the module's head.
pub struct Range {
    sandbox: Sandbox,
    mode: Mode,
    neighbour: ContainerId,
    secret: String,
    /// What the neighbour answers when all is well.
    well: String,
    words: Vec<(&'static str, String)>,
    forbidden: Vec<String>,
}

/// A case could not be run: the suite's or the host's fault.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Broken(String);

impl Broken {
    fn at(what: &str) -> impl FnOnce(&dyn std::fmt::Display) -> Self + '_ {
        move |error| Self(format!("{what}: {error}"))
    }
}

impl Range {
    /// Makes the neighbour and its secrets. `words` are filled into the cases, `forbidden` must not come out of any
    /// container.
    ///
    /// # Errors
    /// A neighbour that cannot be made.
    pub async fn open(
        sandbox: Sandbox,
        mode: Mode,
        words: Vec<(&'static str, String)>,
        mut forbidden: Vec<String>,
    ) -> Result<Self, Broken> {
        let neighbour = new_container(&sandbox, Language::Python).await?;
        let secret = secret("secret");
        forbidden.push(secret.clone());
        let mut range = Self { sandbox, mode, neighbour, secret, well: String::new(), words, forbidden };
        let kept = format!("umask 077; echo {} > /tmp/secret.txt", range.secret);
        range.in_bash(&kept).await?;
        range.in_python(&format!("KEPT = {:?}", format!("kept-{}", range.secret))).await?;
        range.well = range.ask_neighbour().await?;
        if range.well.matches(&range.secret).count() != 2 {
            return Err(Broken(format!("the neighbour answers {:?}", range.well)));
        }
        Ok(range)
    }

    /// What the neighbour says after each case: its file, its interpreter's memory, the image as it sees it.
    async fn ask_neighbour(&self) -> Result<String, Broken> {
        let files = self.in_bash(&format!("cat /tmp/secret.txt && sha256sum {SAMPLED}")).await?;
        Ok(files + &self.in_python("print(KEPT)").await?)
    }

    /// What is not as it was with the neighbour and the image; `None` when all is well.
    pub async fn harm_to_neighbour(&self) -> Option<String> {
        match self.ask_neighbour().await {
            Ok(answer) if answer == self.well => None,
            Ok(answer) => Some(format!("it answered {answer:?} instead of {:?}", self.well)),
            Err(broken) => Some(broken.to_string()),
        }
    }

    /// How many containers and zygotes there are, as text to be compared; none while some are being made.
    pub fn population(&self) -> Option<String> {
        let counts = self.sandbox.counts();
        let warmth = self.sandbox.warmth_status();
        let settled = counts.starting == 0 && warmth.core != ZygoteStatus::Starting;
        let SandboxCounts { ready, leased, dead, pooled, .. } = counts;
        settled.then(|| {
            format!("ready {ready}\nleased {leased}\ndead {dead}\npooled {pooled}\nzygote {:?}\n", warmth.core)
        })
    }

    /// Whether the pool has all the containers it is to have.
    pub fn is_full(&self, pool_containers: usize) -> bool {
        let warm = matches!(self.sandbox.warmth_status().core, ZygoteStatus::Warm { .. });
        self.population().is_some() && self.sandbox.counts().pooled == pool_containers * if warm { 2 } else { 1 }
    }

    /// Runs the steps of a case in a new container and takes it away: what was seen, and what should not have been.
    ///
    /// # Errors
    /// [`Broken`], when there is nothing to judge.
    pub async fn run(&self, case: &Case) -> Result<(Vec<Seen>, Vec<String>), Broken> {
        let in_interpreter = |run: &Run| matches!(run, Run::Cell(_) | Run::CellWithTool(_) | Run::ForgingCell(_));
        let interpreted = case.steps.iter().any(|step| in_interpreter(&step.run));
        let language = if interpreted { Language::Python } else { Language::Bash };
        let container = new_container(&self.sandbox, language).await?;
        let mut all = Vec::new();
        let mut wrong = Vec::new();
        for (index, step) in case.steps.iter().enumerate() {
            let seen = self.step(&container, step).await;
            let fill = |text: &str| self.filled(text);
            let mut found = judge::differences(&seen, step.expected(self.mode), &fill);
            found.extend(self.leaked(&seen));
            wrong.extend(found.into_iter().map(|what| format!("step {}: {what}", index + 1)));
            all.push(seen);
        }
        self.sandbox.remove(&container).await;
        Ok((all, wrong))
    }

    async fn step(&self, own: &ContainerId, step: &Step) -> Seen {
        let id = match step.at {
            Whose::Own => own,
            Whose::Neighbour => &self.neighbour,
        };
        let wall = Duration::from_secs(step.wall_s_max.unwrap_or(CELL_WALL_S));
        let mut lease = match self.sandbox.lease(id, LEASE_WAIT).await {
            Ok(lease) => lease,
            Err(dead) => return Seen::dead(&dead.to_string()),
        };
        match &step.run {
            Run::Bash(lines) => bash(&mut lease, &self.filled(&lines.joined()), wall).await,
            Run::Cell(lines) => python(&mut lease, &self.filled(&lines.joined()), wall).await,
            Run::BashWithTool(lines) => self.calling(lease, Caller::Bash, &lines.joined(), wall).await,
            Run::CellWithTool(lines) => self.calling(lease, Caller::Cell, &lines.joined(), wall).await,
            Run::ForgingCell(lines) => {
                self.calling(lease, Caller::Cell, &format!("{FORGE}\n{}", lines.joined()), wall).await
            }
            Run::Python(lines) => {
                let source = format!("{PRELUDE}\n{}", self.filled(&lines.joined()));
                bash(&mut lease, &format!("exec python3 - <<'END_OF_CASE'\n{source}\nEND_OF_CASE\n"), wall).await
            }
            Run::Put { name, content } => put(&mut lease, name, self.filled(content)).await,
            Run::Read { path } => read(&mut lease, &self.filled(path)).await,
        }
    }

    async fn calling(&self, lease: Lease, caller: Caller, code: &str, wall: Duration) -> Seen {
        judged(calling::run(lease, caller, &self.filled(code), options(wall)).await).await
    }

    fn leaked(&self, seen: &Seen) -> Option<String> {
        let found = self.forbidden.iter().any(|token| seen.contains(token));
        found.then(|| "something of the host or of the neighbour came out".to_owned())
    }

    /// `@WORD@` replaced.
    fn filled(&self, text: &str) -> String {
        self.words.iter().fold(text.to_owned(), |text, (word, value)| text.replace(&format!("@{word}@"), value))
    }

    async fn in_bash(&self, command: &str) -> Result<String, Broken> {
        let mut lease = self.lease_neighbour().await?;
        well(bash(&mut lease, command, Duration::from_secs(CELL_WALL_S)).await)
    }

    async fn in_python(&self, source: &str) -> Result<String, Broken> {
        let mut lease = self.lease_neighbour().await?;
        well(python(&mut lease, source, Duration::from_secs(CELL_WALL_S)).await)
    }

    async fn lease_neighbour(&self) -> Result<Lease, Broken> {
        let lease = self.sandbox.lease(&self.neighbour, LEASE_WAIT).await;
        lease.map_err(|error| Broken::at("the neighbour")(&error))
    }
}

/// What a cell of our own in the neighbour printed.
fn well(seen: Seen) -> Result<String, Broken> {
    match (seen.outcome, seen.return_code) {
        (Outcome::Ended, 0) => Ok(seen.stdout),
        (outcome, code) => Err(Broken(format!("the neighbour: {outcome:?} with {code}: {}", seen.stderr))),
    }
}

async fn new_container(sandbox: &Sandbox, language: Language) -> Result<ContainerId, Broken> {
    let id = ContainerId::mint(&mut OsIds);
    let options = ContainerOptions { ready_for: language, ..ContainerOptions::default() };
    sandbox.create_with(id.clone(), options).await.map_err(|error| Broken::at("a container")(&error))?;
    Ok(id)
}

async fn bash(lease: &mut Lease, command: &str, wall: Duration) -> Seen {
    judged(lease.bash(command, options(wall)).await).await
}

async fn python(lease: &mut Lease, source: &str, wall: Duration) -> Seen {
    judged(lease.python(source, CELL_FILE, options(wall)).await).await
}

fn options(wall: Duration) -> CellOptions {
    CellOptions { wall, cancel: CancellationToken::new(), live: None }
}

async fn judged(outcome: Result<CellOutcome, SandboxError>) -> Seen {
    match outcome {
        Ok(outcome) => seen(outcome).await,
        Err(error) => Seen::dead(&error.to_string()),
    }
}

async fn seen(outcome: CellOutcome) -> Seen {
    let (ended, reason) = (Outcome::of(&outcome), outcome.reason().map(Reason::from));
    let output = outcome.into_output();
    let mut stderr = text(&output.stderr);
    append_lines(&mut stderr, output.notices());
    let mut seen = Seen {
        outcome: ended,
        reason,
        return_code: output.return_code,
        stdout: text(&output.stdout),
        stderr,
        files: Vec::new(),
        contents: Vec::new(),
        stdout_bytes_kept: output.stdout.len() as u64,
        wall_ms: u64::try_from(output.wall.as_millis()).unwrap_or(u64::MAX),
    };
    for file in output.files {
        let mut content = Vec::new();
        let reading = tokio::fs::File::from_std(file.file).take(file.size.min(SEARCHED_BYTES_MAX));
        tokio::pin!(reading);
        // What cannot be read cannot hold a secret either.
        if reading.read_to_end(&mut content).await.is_ok() {
            seen.contents.push(content);
        }
        seen.files.push(file.name);
    }
    seen
}

async fn put(lease: &mut Lease, name: &str, content: String) -> Seen {
    let size = content.len() as u64;
    match lease.put_input(name, std::io::Cursor::new(content.into_bytes()), size).await {
        Ok(()) => Seen::ended(String::new(), String::new()),
        Err(error) => Seen::ended(String::new(), error.to_string()),
    }
}

async fn read(lease: &mut Lease, path: &str) -> Seen {
    let mut content = Vec::new();
    let reading = match lease.read_file(path, SEARCHED_BYTES_MAX).await {
        Ok(mut file) => file.read_to_end(&mut content).await.map(drop).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    Seen::ended(text(&content), reading.err().unwrap_or_default())
}
