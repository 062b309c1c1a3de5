//! Making containers, on demand and ahead of it, and clearing them away, with a bound on how many at once.

use std::sync::{Arc, OnceLock};

use belljar_ids::ContainerId;
use belljar_jail::cgroup::Limits;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cell::First;
use crate::container::{Container, Parts};
use crate::error::{DeathReason, SandboxError};
use crate::guest::Guest;
use crate::host::{SharedHost, random_name};
use crate::image::Image;
use crate::keeper::{self, Request};
use crate::options::{Isolation, Language};
use crate::rehearsal;
use crate::repl::{self, Warmth};
use crate::state::Life;
use crate::zygote::{self, Attendance, HandedZygote, Pensions, Retired};

/// Containers started at once, per core: a start waits for the kernel now and then, but more than a few only wait for
/// each other.
const LAUNCHES_PER_CORE: usize = 3;
/// Containers cleared away at once, per core.
const REAPERS_PER_CORE: usize = 2;

/// Of the REPL that a container is made with.
const FIRST_WARMTH: Warmth = Warmth::Core;

/// See the module's head.
pub struct Maker {
    pub host: SharedHost,
    pub keepers: TaskTracker,
    attendants: TaskTracker,
    /// Zygotes of the program before this one.
    retired: OnceLock<Pensions>,
    /// What nobody waits for: the pool is filled, what is unused is frozen.
    pub house: TaskTracker,
    /// Ends that, before all else.
    pub house_stop: CancellationToken,
    /// Parent of every container's own.
    pub stop: CancellationToken,
    launches: Semaphore,
    reapers: Arc<Semaphore>,
    /// Starts that somebody waits for.
    awaited: watch::Sender<usize>,
}

/// A complete container that is nobody's yet. Dropped, it is killed and cleared away, which blocks.
pub struct Made {
    pub guest: Guest,
    pub life: Arc<Life>,
    pub stop: CancellationToken,
}

/// Why a container is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// Somebody asked for it.
    For(ContainerId),
    /// For the pool.
    Ahead,
}

impl Purpose {
    /// What the host calls the container's cgroup.
    fn name(&self) -> Result<String, SandboxError> {
        match self {
            Self::For(id) => Ok(id.as_str().to_owned()),
            Self::Ahead => Ok(format!("pooled_{}", random_name()?)),
        }
    }
}

impl Maker {
    pub fn new(host: SharedHost) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let stop = CancellationToken::new();
        Self {
            host,
            keepers: TaskTracker::new(),
            attendants: TaskTracker::new(),
            retired: OnceLock::new(),
            house: TaskTracker::new(),
            house_stop: stop.child_token(),
            stop,
            launches: Semaphore::new(cores * LAUNCHES_PER_CORE),
            reapers: Arc::new(Semaphore::new(cores * REAPERS_PER_CORE)),
            awaited: watch::Sender::new(0),
        }
    }

    /// Notes that somebody waits for a start, for as long as the answer lives; the pool is not filled meanwhile.
    pub fn awaiting(&self) -> Awaiting<'_> {
        self.awaited.send_modify(|count| *count += 1);
        Awaiting(&self.awaited)
    }

    /// Waits until nobody waits for a start.
    pub async fn quiet(&self) {
        let mut awaited = self.awaited.subscribe();
        // It ends with `self` alone.
        let _never_closed = awaited.wait_for(|count| *count == 0).await;
    }

    /// Makes a container of the present image.
    pub async fn make(
        &self,
        purpose: Purpose,
        isolation: Isolation,
        language: Language,
        limits: Limits,
    ) -> Result<Made, SandboxError> {
        let permit = self.launches.acquire().await.map_err(|_closed| SandboxError::Closed)?;
        let (stop, name) = (self.stop.child_token(), purpose.name()?);
        // In gVisor a REPL is no child of a zygote.
        let forks = language == Language::Python && isolation == Isolation::Namespaces;
        let ahead = if forks { Some(FIRST_WARMTH) } else { None };
        let guest = Guest::start(&self.host, self.host.image(), name, isolation, limits, stop.clone(), ahead).await?;
        let made = self.ready(Made { guest, life: Arc::default(), stop }, language, &purpose).await;
        drop(permit);
        made
    }

    /// Whether a container of this kind may come from the pool, which holds one kind. What limits the processes of one
    /// in gVisor was given to it at its start.
    pub fn pools(&self, isolation: Isolation, limits: &Limits) -> bool {
        let config = &self.host.config;
        isolation == config.isolation && (isolation == Isolation::Namespaces || *limits == self.host.limits())
    }

    /// Sees to it that a container is ready for a language. One that cannot be is cleared away.
    pub async fn ready(&self, mut made: Made, language: Language, purpose: &Purpose) -> Result<Made, SandboxError> {
        match ready(&mut made.guest, &self.host, language, purpose).await {
            Ok(()) => Ok(made),
            Err(error) => {
                made.life.die(DeathReason::Removed);
                self.bury(made.guest, &made.life).await;
                Err(error)
            }
        }
    }

    /// Whether REPLs can be had by forking.
    pub fn forks(&self) -> bool {
        self.host.image().zygotes().is_warm(Warmth::Core)
    }

    /// Starts the tasks behind the zygotes of an image.
    pub fn attend(&self, image: &Arc<Image>, attendances: [Attendance; 2]) {
        for attendance in attendances {
            let (host, image, stop) = (SharedHost::clone(&self.host), Arc::clone(image), image.stop.clone());
            let tasks = self.attendants.clone();
            self.attendants.spawn(zygote::attend(attendance, host, image, stop, tasks));
        }
    }

    /// Ends everything and waits for it. REPLs end before the zygotes, which hear of their ends.
    pub async fn close(&self) {
        self.stop.cancel();
        self.keepers.close();
        self.keepers.wait().await;
        self.leave_house().await;
        let image = self.host.image();
        image.stop.cancel();
        image.close_nurseries().await;
        self.attendants.close();
        self.attendants.wait().await;
    }

    /// Ends what nobody waits for, and waits for that.
    pub async fn leave_house(&self) {
        self.house_stop.cancel();
        self.house.close();
        self.house.wait().await;
    }

    /// Hears zygotes that were handed over for as long as they have children. To be called once.
    pub fn retire(&self, zygotes: Retired) {
        let pensions = zygotes.attend(&self.attendants, &self.host.image().stop);
        let _called_once = self.retired.set(pensions);
    }

    /// All zygotes with children, for the program that this process is about to become; the others end.
    pub async fn hand_zygotes_over(&self) -> std::io::Result<Vec<HandedZygote>> {
        let image = self.host.image();
        let mut handed = match self.retired.get() {
            Some(pensions) => pensions.hand_over().await?,
            None => Vec::new(),
        };
        handed.extend(image.zygotes().hand_over(&image.stop).await?);
        Ok(handed)
    }

    /// Gives a container its name and its keeper.
    pub fn entrust(&self, made: Made, id: ContainerId) -> Arc<Container> {
        let Made { guest, life, stop } = made;
        let (container, inbox) = self.named(id, Parts::of(&guest, life, stop));
        self.keepers.spawn(self.keep(guest, Arc::clone(&container), inbox));
        container
    }

    /// A container with a name, and what its keeper is to listen to.
    pub fn named(&self, id: ContainerId, parts: Parts) -> Entrusted {
        let (requests, inbox) = mpsc::channel(1);
        (Arc::new(Container::claimed(id, (self.host.config.clock)(), parts, requests)), inbox)
    }

    /// The task of a container's keeper.
    pub fn keep(
        &self,
        guest: Guest,
        container: Arc<Container>,
        inbox: mpsc::Receiver<Request>,
    ) -> impl Future<Output = ()> + Send + use<> {
        keeper::keep(guest, SharedHost::clone(&self.host), Arc::clone(&self.reapers), container, inbox)
    }

    /// Clears away a container that never was anybody's.
    pub async fn bury(&self, guest: Guest, life: &Life) {
        keeper::bury(guest, &self.reapers, life).await;
    }

    /// Whether containers are still made from this image.
    pub fn is_present(&self, image: &Arc<Image>) -> bool {
        Arc::ptr_eq(image, &self.host.image())
    }
}

/// Gives a container what it lacks for a language, and where nobody waits for it, what its first cell needs.
async fn ready(
    guest: &mut Guest,
    host: &SharedHost,
    language: Language,
    purpose: &Purpose,
) -> Result<(), SandboxError> {
    if language == Language::Python && guest.repl.is_none() {
        guest.first = None;
        interpreter(guest, host, purpose).await?;
    }
    if *purpose == Purpose::Ahead {
        guest.first = Some(First::of(guest, host)?);
    }
    Ok(())
}

/// Gives a container a REPL; where nobody waits for it, one that has touched its pages and run a cell.
async fn interpreter(guest: &mut Guest, host: &SharedHost, purpose: &Purpose) -> Result<(), SandboxError> {
    let mut repl = repl::start(guest, FIRST_WARMTH).await?;
    match purpose {
        Purpose::For(_) => guest.repl = Some(repl),
        Purpose::Ahead => {
            repl.touch(&mut guest.talk).await?;
            guest.repl = Some(repl);
            rehearsal::run(guest, host).await?;
        }
    }
    Ok(())
}

/// A container that has its name, and its keeper's inbox.
pub type Entrusted = (Arc<Container>, mpsc::Receiver<Request>);

/// Somebody waits for a start.
pub struct Awaiting<'a>(&'a watch::Sender<usize>);

impl Drop for Awaiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}
