//! Complete containers, made ahead of need: a shelf of them for each language.
//!
//! One on a shelf has a task of its own, which notices its death, and becomes its keeper when it is claimed: a claim
//! is a few stores and one message. One task fills the shelves, one container at a time, while nobody waits for a start.

use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use belljar_ids::ContainerId;
use belljar_jail::cgroup::Limits;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::{Notify, oneshot, watch};

use crate::container::{Container, Parts};
use crate::error::{DeathReason, SandboxError};
use crate::guest::Guest;
use crate::image::Image;
use crate::maker::{Entrusted, Made, Maker, Purpose};
use crate::options::Language;
use crate::repl::Warmth;
use crate::state::{Event, Life};

/// Between a claim and the word of it, and again between the word that a place is free and the start of what fills it:
/// whoever claimed is about to run something, and the cores are few. A claim that tells at once wakes a second thread.
const REFILL_PAUSE: Duration = Duration::from_millis(10);
/// After the first failure to make a container; doubled with each that follows.
const BACK_OFF_MIN: Duration = Duration::from_secs(1);
const BACK_OFF_MAX: Duration = Duration::from_secs(60);

/// See the module's head.
pub struct Pool {
    /// Of each shelf.
    size: usize,
    shelves: Mutex<Shelves>,
    /// Something was taken, died, or can be made now.
    changed: Notify,
    /// Containers that are being made, or stand on a shelf, or are being cleared away from there.
    ahead: watch::Sender<usize>,
}

/// A container that is the pool's, for as long as this lives.
struct Ahead(Arc<Pool>);

impl Ahead {
    fn of(pool: &Arc<Pool>) -> Self {
        pool.ahead.send_modify(|count| *count += 1);
        Self(Arc::clone(pool))
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.0.ahead.send_modify(|count| *count -= 1);
    }
}

#[derive(Default)]
struct Shelves {
    bash: Vec<Shelved>,
    python: Vec<Shelved>,
    /// Nothing comes onto them any more.
    closed: bool,
}

struct Shelved {
    life: Arc<Life>,
    parts: Parts,
    image: Arc<Image>,
    limits: Limits,
    /// Readable when it has died; asked at the claim, so that no news has to have travelled.
    ended: Arc<OwnedFd>,
    taken: oneshot::Sender<Taken>,
}

/// What becomes of a container that leaves its shelf.
enum Taken {
    /// It gets a name and a keeper.
    Claimed { entrusted: Entrusted, limits: Limits },
    /// It is handed back.
    Back(oneshot::Sender<Made>),
}

impl Shelves {
    fn of(&mut self, language: Language) -> &mut Vec<Shelved> {
        match language {
            Language::Bash => &mut self.bash,
            Language::Python => &mut self.python,
        }
    }
}

impl Shelved {
    fn lives(&self) -> bool {
        let mut ended = [PollFd::new(&self.ended, PollFlags::IN)];
        !self.life.state().is_over() && poll(&mut ended, Some(&Timespec::default())) == Ok(0)
    }
}

impl Pool {
    pub fn new(size: usize) -> Self {
        Self { size, shelves: Mutex::default(), changed: Notify::new(), ahead: watch::Sender::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, Shelves> {
        // Every change is one call on a vector.
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        let shelves = self.lock();
        shelves.bash.len() + shelves.python.len()
    }

    /// Gives the name `id`, and the limits, to a container of the shelf for `language`; none when there is none that
    /// they can be given to.
    pub fn claim(&self, maker: &Maker, id: &ContainerId, language: Language, limits: Limits) -> Option<Arc<Container>> {
        while let Some(shelved) = self.next(maker, language, &limits) {
            if let Err(error) = shelved.limit(limits) {
                tracing::warn!(%error, "a pooled container could not be given other limits");
                continue;
            }
            let (container, inbox) = maker.named(id.clone(), shelved.parts);
            let entrusted = (Arc::clone(&container), inbox);
            // Refused when its task ended, which is when it died.
            if shelved.taken.send(Taken::Claimed { entrusted, limits }).is_ok() {
                return Some(container);
            }
        }
        None
    }

    /// Takes a container off the shelf for `language`, unnamed, with these limits.
    pub async fn take(&self, maker: &Maker, language: Language, limits: Limits) -> Option<Made> {
        while let Some(shelved) = self.next(maker, language, &limits) {
            if let Err(error) = shelved.limit(limits) {
                tracing::warn!(%error, "a pooled container could not be given other limits");
                continue;
            }
            let (back, made) = oneshot::channel();
            if shelved.taken.send(Taken::Back(back)).is_ok()
                && let Ok(mut made) = made.await
            {
                made.guest.limited_to(limits);
                return Some(made);
            }
        }
        None
    }

    /// The next one that lives and can be given these limits.
    fn next(&self, maker: &Maker, language: Language, limits: &Limits) -> Option<Shelved> {
        let image = maker.host.image();
        if !image.fits_pooled(limits) {
            return None;
        }
        loop {
            let shelved = self.lock().of(language).pop()?;
            if Arc::ptr_eq(&shelved.image, &image) && shelved.lives() {
                return Some(shelved);
            }
        }
    }

    /// Something may be made now that could not be before.
    fn wake(&self) {
        self.changed.notify_one();
    }

    /// Lets go of all there are; each task clears its own away.
    pub fn drain(&self) {
        let mut shelves = self.lock();
        let dropped = (std::mem::take(&mut shelves.bash), std::mem::take(&mut shelves.python));
        drop(shelves);
        drop(dropped);
        self.changed.notify_one();
    }

    /// Makes no more, and waits until nothing is left of those there are.
    pub async fn close(&self) {
        self.lock().closed = true;
        self.drain();
        let mut ahead = self.ahead.subscribe();
        // It ends with `self` alone.
        let _never_closed = ahead.wait_for(|count| *count == 0).await;
    }

    fn forget_dead(&self) {
        let mut shelves = self.lock();
        for language in [Language::Bash, Language::Python] {
            shelves.of(language).retain(|shelved| !shelved.life.state().is_over());
        }
        drop(shelves);
        self.changed.notify_one();
    }

    /// What is lacking most.
    fn lacking(&self, maker: &Maker) -> Option<Language> {
        let mut shelves = self.lock();
        if shelves.closed {
            return None;
        }
        let wanted = |language| match language {
            Language::Bash => true,
            Language::Python => maker.forks(),
        };
        let languages = [Language::Bash, Language::Python].into_iter().filter(|language| wanted(*language));
        let counted = languages.map(|language| (shelves.of(language).len(), language));
        let (count, language) = counted.min_by_key(|(count, _)| *count)?;
        (count < self.size).then_some(language)
    }

    fn shelve(maker: &Arc<Maker>, language: Language, made: Made, ahead: Ahead) {
        let Made { guest, life, stop } = made;
        let (taken, leaving) = oneshot::channel();
        let ended = guest.ended();
        let parts = Parts::of(&guest, Arc::clone(&life), stop.clone());
        let (image, limits) = (Arc::clone(guest.image()), guest.limits());
        let shelved = Shelved { life: Arc::clone(&life), parts, image, limits, ended, taken };
        let mut shelves = ahead.0.lock();
        // Asked with the shelves in hand: whoever changes the image, or closes the pool, empties them afterwards.
        if !shelves.closed && maker.is_present(&shelved.image) && life.step(Event::Shelve).is_ok() {
            shelves.of(language).push(shelved);
        }
        drop(shelves);
        maker.keepers.spawn(stand(ahead, Arc::clone(maker), Made { guest, life, stop }, leaving));
    }
}

impl Shelved {
    /// Sets what differs from the limits it was made with.
    fn limit(&self, limits: Limits) -> Result<(), belljar_jail::cgroup::CgroupError> {
        if limits == self.limits {
            return Ok(());
        }
        self.parts.reins.with(|cgroup| cgroup.set_limits(&limits)).map(drop)
    }
}

/// The life of a container on a shelf.
async fn stand(ahead: Ahead, maker: Arc<Maker>, made: Made, leaving: oneshot::Receiver<Taken>) {
    let Made { mut guest, life, stop } = made;
    let reason = tokio::select! {
        // A claim is answered even if a death comes with it: the keeper finds out.
        biased;
        taken = leaving => match taken {
            Ok(Taken::Claimed { entrusted: (container, inbox), limits }) => {
                guest.limited_to(limits);
                let pool = Arc::clone(&ahead.0);
                // The pool and the maker are not this container's to keep any more.
                drop(ahead);
                let mut keeping = pin!(maker.keep(guest, container, inbox));
                drop(maker);
                let paused = tokio::time::timeout(REFILL_PAUSE, &mut keeping).await;
                pool.wake();
                drop(pool);
                if paused.is_err() {
                    keeping.await;
                }
                return;
            }
            Ok(Taken::Back(back)) => match back.send(Made { guest, life, stop }) {
                Ok(()) => return ahead.0.wake(),
                Err(made) => return end(maker, made.guest, made.life, DeathReason::Removed).await,
            },
            Err(_dropped) => DeathReason::Removed,
        },
        disturbance = guest.disturbed() => match disturbance {
            Ok(end) => {
                tracing::warn!(%end, "the REPL of a pooled container ended");
                DeathReason::Removed
            }
            Err(reason) => guest.explain(reason),
        },
    };
    if reason != DeathReason::Removed {
        tracing::warn!(%reason, "a pooled container died");
    }
    life.die(reason.clone());
    ahead.0.forget_dead();
    end(maker, guest, life, reason).await;
}

async fn end(maker: Arc<Maker>, guest: Guest, life: Arc<Life>, reason: DeathReason) {
    life.die(reason);
    maker.bury(guest, &life).await;
}

/// Keeps the shelves full until the sandbox stops.
pub async fn fill(pool: Arc<Pool>, maker: Arc<Maker>) {
    let stop = maker.house_stop.clone();
    stop.run_until_cancelled(refill(&pool, &maker)).await;
    pool.drain();
}

/// Has the shelf for Python filled once REPLs can be had by forking, as long as containers are made from this image.
pub async fn wake_when_warm(pool: Arc<Pool>, maker: Arc<Maker>, image: Arc<Image>) {
    let mut status = image.zygotes().watch(Warmth::Core);
    let waking = async {
        while status.changed().await.is_ok() {
            pool.wake();
        }
    };
    tokio::select! {
        () = maker.stop.cancelled() => {}
        () = image.stop.cancelled() => {}
        () = waking => {}
    }
}

async fn refill(pool: &Arc<Pool>, maker: &Arc<Maker>) {
    let mut back_off = BACK_OFF_MIN;
    loop {
        let Some(language) = pool.lacking(maker) else {
            pool.changed.notified().await;
            tokio::time::sleep(REFILL_PAUSE).await;
            continue;
        };
        maker.quiet().await;
        // A task of its own, which is not dropped halfway when the sandbox stops.
        let making = maker.keepers.spawn({
            let (ahead, maker) = (Ahead::of(pool), Arc::clone(maker));
            async move {
                let made =
                    maker.make(Purpose::Ahead, maker.host.config.isolation, language, maker.host.limits()).await?;
                Pool::shelve(&maker, language, made, ahead);
                Ok::<_, SandboxError>(())
            }
        });
        let made = making.await.map_err(|error| SandboxError::Launch(error.to_string())).flatten();
        let Err(error) = made else {
            back_off = BACK_OFF_MIN;
            continue;
        };
        tracing::warn!(%error, retry_after = ?back_off, "the pool could not be filled");
        tokio::time::sleep(back_off).await;
        back_off = (back_off * 2).min(BACK_OFF_MAX);
    }
}
