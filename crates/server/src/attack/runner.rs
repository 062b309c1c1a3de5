//! Runs cases one after the other, because canaries are the whole host's, and looks at the canaries after each.

use std::time::Duration;

use belljar_image::{ImageRef, ImageStore, Monitor, Mounted};
use belljar_sandbox::probe::{Status, probe};
use belljar_sandbox::{LimitsNeed, Rootfs, Sandbox, SandboxConfig};
use serde::Serialize;

use crate::attack::canary::{Bait, Canaries, Dead, SETTLE_MAX, settled};
use crate::attack::case::{Case, Need};
use crate::attack::catalogue::Catalogue;
use crate::attack::host::{self, Ids};
use crate::attack::judge::Seen;
use crate::attack::mode::Mode;
use crate::attack::range::{CELL_WALL_S, Range};
use crate::attack::start;
use crate::clock::Stopwatch;
use crate::config::Config;
use crate::exit::Exit;
use crate::organs;

const MIB: u64 = 1024 * 1024;
/// Small, so that attacks on them are over soon.
const MEMORY_BYTES_MAX: u64 = 384 * MIB;
const DISK_BYTES_MAX: u64 = 96 * MIB;
const PROCESSES_MAX: u32 = 64;
const OUTPUT_BYTES_MAX: u64 = 65_536;
/// Attacked containers come from the pool, as a server's do.
const POOL_CONTAINERS: usize = 1;
/// For a zygote to import its libraries, on a busy machine.
const POOL_WAIT_MAX: Duration = Duration::from_secs(120);

/// What came of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Denied or contained, exactly as expected, and every canary lives.
    Held,
    /// Something else than the expected denial came of it.
    Escaped,
    /// A canary died.
    CanaryDead,
    /// The case could not be judged.
    Broken,
    /// This machine or this user lacks what it needs.
    Skipped,
}

impl Verdict {
    /// Whether the suite fails for it.
    pub fn fails(self) -> bool {
        match self {
            Self::Held | Self::Skipped => false,
            Self::Escaped | Self::CanaryDead | Self::Broken => true,
        }
    }
}

/// One line of the report.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// `A` to `J`; `-` for what is looked at in the end.
    pub section: String,
    /// The case.
    pub name: String,
    /// What it tries.
    pub tried: String,
    /// What came of it.
    pub verdict: Verdict,
    /// How it was refused, or why it was skipped, in few words.
    pub how: String,
    /// What is not as it must be.
    pub wrong: Vec<String>,
    /// Canaries that died.
    pub dead: Vec<Dead>,
    /// With the look at the canaries, in milliseconds.
    pub took_ms: u64,
}

/// Whether this host limits containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limits {
    /// Memory, processes and time, by cgroups.
    Enforced,
    /// The configuration has `limits = "best_effort"`, and this user has no cgroups.
    None,
}

impl Limits {
    fn found(need: LimitsNeed) -> Self {
        let found = probe(need);
        let good = |name: &str| found.iter().any(|finding| finding.name == name && finding.status == Status::Ok);
        if good("cgroup_limits") { Self::Enforced } else { Self::None }
    }
}

/// How much of the suite is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// All of it.
    Whole,
    /// Without what is marked as slow in the mode.
    WithoutSlow,
}

/// What was attacked, and by whom.
#[derive(Clone, Debug, Serialize)]
pub struct Setting {
    /// The mode.
    pub isolation: Mode,
    /// Who runs the server.
    pub user: String,
    /// The image's digest.
    pub image: String,
    /// Whether limits are enforced.
    pub limits: Limits,
}

/// An opened sandbox with everything around it.
pub struct Runner {
    config: Config,
    mode: Mode,
    length: Length,
    limits: Limits,
    sandbox: Sandbox,
    /// None after a canary died: the next case gets a new one.
    ground: Option<Ground>,
    ids: Ids,
    before: Host,
    images: ImageStore,
    image: ImageRef,
    _mounted: Mounted,
}

/// What the host had before there was a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Host {
    processes: String,
    control_groups: String,
    mounts: String,
}

impl Host {
    fn look(ids: Ids) -> Result<Self, Exit> {
        let unreadable = |error: std::io::Error| Exit::cannot(format!("this host cannot be looked at: {error}"));
        Ok(Self {
            processes: host::processes(&ids).map_err(unreadable)?,
            control_groups: host::control_groups_of(std::process::id()),
            mounts: host::mounts().map_err(unreadable)?,
        })
    }
}

impl Runner {
    /// Opens the sandbox, lays out the bait and makes the neighbour.
    ///
    /// # Errors
    /// [`Exit::cannot`] when this machine cannot run containers, [`Exit::failed`] when there is no image.
    pub async fn open(config: Config, mode: Mode, length: Length) -> Result<Self, Exit> {
        let settings = mode.configure(small(&config))?;
        let images = ImageStore::open(&config.cache_dir).map_err(organs::image_exit)?;
        let image = images.resolve(&config.image).map_err(organs::image_exit)?;
        let mounted = images.mount(&image, &Monitor::silent()).await.map_err(organs::image_exit)?;
        let limits = Limits::found(settings.limits_need);
        let ids = Ids::from(mounted.owner_base());
        let before = Host::look(ids)?;
        let rootfs = Rootfs {
            path: mounted.path().to_path_buf(),
            owner_base: mounted.owner_base(),
            digest: mounted.digest().to_string(),
        };
        let sandbox = Sandbox::open(settings, rootfs).await.map_err(organs::sandbox_exit)?;
        let ground = Some(Ground::lay_out(&sandbox, mode, ids).await?);
        Ok(Self { config, mode, length, limits, sandbox, ground, ids, before, images, image, _mounted: mounted })
    }

    /// What is under attack.
    pub fn setting(&self) -> Setting {
        let user = rustix::process::geteuid();
        Setting {
            isolation: self.mode,
            user: if user.is_root() { "root".to_owned() } else { format!("ordinary user {}", user.as_raw()) },
            image: self.image.digest().to_string(),
            limits: self.limits,
        }
    }

    /// Runs one case and looks at the canaries.
    ///
    /// # Errors
    /// A host on which no new bait can be laid after a canary died.
    pub async fn run(&mut self, catalogue: &Catalogue, case: &Case) -> Result<Row, Exit> {
        let since = Stopwatch::start();
        let mut row = Row {
            section: case.section().to_owned(),
            name: case.name.clone(),
            tried: catalogue.tried(case),
            verdict: Verdict::Held,
            how: String::new(),
            wrong: Vec::new(),
            dead: Vec::new(),
            took_ms: 0,
        };
        if let Some(why) = self.lacking(case) {
            return Ok(Row { verdict: Verdict::Skipped, how: why, ..row });
        }
        let ground = match self.ground.take() {
            Some(ground) => ground,
            None => Ground::lay_out(&self.sandbox, self.mode, self.ids).await?,
        };
        match self.attack(&ground, case).await {
            Ok((how, wrong)) => {
                row.verdict = if wrong.is_empty() { Verdict::Held } else { Verdict::Escaped };
                (row.how, row.wrong) = (how, wrong);
            }
            Err(broken) => (row.verdict, row.how) = (Verdict::Broken, broken),
        }
        row.dead = ground.dead().await;
        match row.dead.is_empty() {
            true => self.ground = Some(ground),
            false => row.verdict = Verdict::CanaryDead,
        }
        row.took_ms = millis(since);
        Ok(row)
    }

    async fn attack(&self, ground: &Ground, case: &Case) -> Result<(String, Vec<String>), String> {
        if let Some(start) = &case.start {
            let started = start::run(start, self.mode, &self.start_settings(), &self.config).await?;
            return Ok((started.summary, started.wrong));
        }
        let (seen, wrong) = ground.range.run(case).await.map_err(|broken| broken.to_string())?;
        let how: Vec<String> = seen.iter().map(Seen::summary).collect();
        Ok((how.join(" | "), wrong))
    }

    /// Why a case says nothing here.
    fn lacking(&self, case: &Case) -> Option<String> {
        let here = std::env::consts::ARCH;
        if let Some(wanted) = case.architecture.as_ref().filter(|wanted| *wanted != here) {
            return Some(format!("for {wanted} only"));
        }
        if self.length == Length::WithoutSlow && case.slow_in.contains(&self.mode) {
            return Some("slow in this mode, left out by --skip-slow".to_owned());
        }
        let root = rustix::process::geteuid().is_root();
        let lacks = |need: &&Need| match need {
            Need::Limits => self.limits == Limits::None,
            Need::Root => !root,
            Need::Ordinary => root,
            Need::Namespaces => self.mode != Mode::Namespaces,
            Need::Gvisor => self.mode != Mode::Gvisor,
        };
        let why = match case.needs.iter().find(lacks) {
            Some(Need::Limits) => {
                Some("this user has no cgroups: memory, processes and time are not limited".to_owned())
            }
            Some(Need::Root) => Some("needs the host's root".to_owned()),
            Some(Need::Ordinary) => Some("needs an ordinary user of the host".to_owned()),
            Some(Need::Namespaces) => Some("needs isolation `namespaces`".to_owned()),
            Some(Need::Gvisor) => Some("needs isolation `gvisor`".to_owned()),
            None => None,
        };
        why.or_else(|| start::lacking(case))
    }

    /// `[sandbox]` of a start, as this suite has it.
    fn start_settings(&self) -> Vec<(&'static str, String)> {
        let limits = match self.config.sandbox.limits_need {
            LimitsNeed::Required => "\"required\"",
            LimitsNeed::BestEffort => "\"best_effort\"",
        };
        let mut settings = vec![
            ("image", format!("{:?}", self.config.image)),
            ("isolation", format!("{:?}", self.mode.name())),
            ("limits", limits.to_owned()),
            ("memory_bytes_max", MEMORY_BYTES_MAX.to_string()),
            ("disk_bytes_max", DISK_BYTES_MAX.to_string()),
            ("processes_max", PROCESSES_MAX.to_string()),
        ];
        settings.extend(
            self.config.sandbox.runsc.as_ref().map(|runsc| ("runsc", format!("{:?}", runsc.display().to_string()))),
        );
        settings
    }

    /// Closes everything; what is looked at once, in the end.
    ///
    /// # Errors
    /// A host that cannot be looked at.
    pub async fn close(self) -> Result<Vec<Row>, Exit> {
        let mut rows = Vec::new();
        let since = Stopwatch::start();
        let verified = self.images.verify(&self.image, &Monitor::silent()).await;
        rows.push(last("the image is what its digest says", verified.err().map(|error| error.to_string()), since));
        let since = Stopwatch::start();
        let Self { sandbox, ground, before, ids, .. } = self;
        drop(ground);
        sandbox.close().await;
        let after = Host::look(ids)?;
        let what = [
            ("no process is left", &before.processes, &after.processes),
            ("no control group is left", &before.control_groups, &after.control_groups),
            ("no mount is left", &before.mounts, &after.mounts),
        ];
        for (name, before, after) in what {
            let left = host::added(before, after);
            rows.push(last(name, (!left.is_empty()).then_some(left), since));
        }
        Ok(rows)
    }
}

/// A neighbour, bait on the host, and what they were like before.
struct Ground {
    range: Range,
    canaries: Canaries,
    population: Option<String>,
}

impl Ground {
    async fn lay_out(sandbox: &Sandbox, mode: Mode, ids: Ids) -> Result<Self, Exit> {
        for left in sandbox.list() {
            sandbox.remove(&left.id).await;
        }
        let cannot = |error: &dyn std::fmt::Display| Exit::cannot(format!("the canaries cannot be laid out: {error}"));
        let bait = Bait::lay(ids).map_err(|error| cannot(&error))?;
        let mut words = bait.words().map_err(|error| cannot(&error))?;
        words.push(("OUTPUT_BYTES_MAX", OUTPUT_BYTES_MAX.to_string()));
        let mut forbidden = host::password_lines();
        forbidden.push(bait.token().to_owned());
        let range = Range::open(sandbox.clone(), mode, words, forbidden).await.map_err(|error| cannot(&error))?;
        if !settled(POOL_WAIT_MAX, || range.is_full(POOL_CONTAINERS)).await {
            return Err(cannot(&format!("the pool does not fill: {:?}", range.population())));
        }
        let canaries = Canaries::watch(bait).map_err(|error| cannot(&error))?;
        let population = range.population();
        Ok(Self { range, canaries, population })
    }

    async fn dead(&self) -> Vec<Dead> {
        let mut dead = Vec::new();
        let harm = self.range.harm_to_neighbour().await;
        dead.extend(harm.map(|what| Dead { canary: "neighbour and image", what }));
        if !settled(SETTLE_MAX, || self.range.population() == self.population).await {
            let [before, now] = [self.population.clone(), self.range.population()].map(Option::unwrap_or_default);
            dead.push(Dead { canary: "containers", what: host::difference(&before, &now) });
        }
        dead.extend(self.canaries.dead().await);
        dead
    }
}

fn last(name: &str, wrong: Option<String>, since: Stopwatch) -> Row {
    Row {
        section: "-".to_owned(),
        name: name.to_owned(),
        tried: "looked at once, in the end".to_owned(),
        verdict: if wrong.is_some() { Verdict::CanaryDead } else { Verdict::Held },
        how: String::new(),
        wrong: wrong.into_iter().collect(),
        dead: Vec::new(),
        took_ms: millis(since),
    }
}

fn millis(since: Stopwatch) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// The configured sandbox with the suite's own limits.
fn small(config: &Config) -> SandboxConfig {
    SandboxConfig {
        cpus: 1.0,
        memory_bytes_max: MEMORY_BYTES_MAX,
        disk_bytes_max: DISK_BYTES_MAX,
        processes_max: PROCESSES_MAX,
        cell_wall_s_max: CELL_WALL_S,
        output_bytes_max: OUTPUT_BYTES_MAX,
        pool_containers: POOL_CONTAINERS,
        ..config.sandbox.clone()
    }
}
