//! Containers that live on while their server becomes another program: a newer one, or itself with another configuration.
//!
//! A process that executes a program keeps its children and its descriptors (`belljar_jail`), and whoever is inside a
//! container notices nothing. What has to go from one program to the other is what the host knows by heart: numbers of
//! requests, nonces, what was read, whose turn it is. Each part says that of itself, beside what it is made of; here it
//! comes together. Nothing of a container is asked for it, so nothing hostile is in it but bytes.
//!
//! What is handed over stands still from then on. It is not let go of when the other program cannot be executed: then this
//! one ends, and everything with it.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use belljar_ids::ContainerId;
pub use belljar_jail::{HandedFd, become_program};
use belljar_jail::{HandedRealm, Realm};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::cell::{HandedCell, UnderWay};
use crate::config::{Rootfs, SandboxConfig};
use crate::container::{Container, Parts, Stance, Told};
use crate::error::SandboxError;
use crate::frame::PROTOCOL_VERSION;
use crate::guest::{Guest, HandedGuest};
use crate::keeper::{Answer, Request};
use crate::lease::Lease;
use crate::parked::Parked;
use crate::repl::frame::REPL_VERSION;
use crate::sandbox::{Sandbox, Shared};
use crate::tools::ToolCall;
use crate::zygote::{HandedZygote, Retired, ZYGOTE_VERSION};

/// Of what is written here. To be raised whenever it changes its form or its meaning.
const VERSION: u32 = 1;

/// What a program must have in common with the one before it to go on with its containers: the form of a handover, and the
/// protocols that those inside speak.
#[must_use]
pub fn form() -> String {
    format!("{VERSION}.{PROTOCOL_VERSION}.{REPL_VERSION}.{ZYGOTE_VERSION}")
}

/// All that lives in a sandbox.
#[derive(Debug, Serialize, Deserialize)]
pub struct Handover {
    form: String,
    /// Digest of the image that all are made from.
    image: String,
    realm: HandedRealm,
    zygotes: Vec<HandedZygote>,
    containers: Vec<Entry>,
}

/// A container with what others know of it.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    told: Told,
    container: HandedContainer,
    /// Those that its cell waits for.
    calls: Vec<ToolCall>,
}

/// What a keeper hands over.
#[derive(Debug, Serialize, Deserialize)]
pub struct HandedContainer {
    pub(crate) guest: HandedGuest,
    /// A cell that waits for its holder.
    pub(crate) cell: Option<HandedCell>,
}

/// What became of a handover.
#[derive(Debug, Default)]
pub struct Inherited {
    /// Containers that live on.
    pub containers: Vec<ContainerId>,
    /// The cells that wait in some of them.
    pub parked: Vec<Parked>,
    /// Containers that are lost, which is said in the log.
    pub lost: Vec<ContainerId>,
}

impl Handover {
    /// The containers in it.
    pub fn containers(&self) -> impl Iterator<Item = &ContainerId> {
        self.containers.iter().map(|entry| &entry.told.id)
    }
}

impl Sandbox {
    /// Everything that lives, for the program that this process is about to become. Containers in use end, but for those in
    /// which one of `parked` waits; so does the pool. Nothing can be done with the sandbox afterwards, and it must not be
    /// closed before the other program is executed.
    ///
    /// # Errors
    /// [`SandboxError::Io`] when this host does not do it.
    pub async fn hand_over(&self, parked: &[&Parked]) -> Result<Handover, SandboxError> {
        let Shared { maker, pool, registry } = &*self.shared;
        registry.close();
        maker.leave_house().await;
        pool.close().await;
        maker.quiet().await;
        maker.host.image().close_nurseries().await;
        // These first: from here on nothing is started, and so nothing inherits what exec is not to close any more.
        let io = |source| SandboxError::Io { what: "hand containers over", source };
        let zygotes = maker.hand_zygotes_over().await.map_err(io)?;
        let waiting: HashMap<&ContainerId, &Parked> =
            parked.iter().map(|parked| (parked.container(), *parked)).collect();
        let mut containers = Vec::new();
        for container in registry.started() {
            match entry(&container, waiting.get(&container.id).copied()).await {
                Some(entry) => containers.push(entry),
                None => drop(self.remove(&container.id).await),
            }
        }
        let image = maker.host.image();
        let realm = image.realm().hand_over().map_err(|errno| io(errno.into()))?;
        Ok(Handover { form: form(), image: image.rootfs.digest.clone(), realm, zygotes, containers })
    }

    /// As [`Sandbox::open`], with what the program before this one has left. `cancel` makes the token that interrupts the cell
    /// which waits in a container, as [`crate::CellOptions::cancel`] does.
    ///
    /// # Errors
    /// As [`Sandbox::open`]; [`SandboxError::Host`] when this program cannot go on with any of it. All of it ends then.
    pub async fn open_with(
        config: SandboxConfig,
        rootfs: Rootfs,
        handover: Handover,
        mut cancel: impl FnMut(&ContainerId) -> CancellationToken,
    ) -> Result<(Sandbox, Inherited), SandboxError> {
        let Handover { form: theirs, image, realm, zygotes, containers } = handover;
        let refused = |why: String| SandboxError::Host(format!("what was handed over cannot be taken over: {why}"));
        if theirs != form() {
            return Err(refused(format!("its form is {theirs}, and this program knows {}", form())));
        }
        if image != rootfs.digest {
            return Err(refused(format!("it is of the image {image}, and this one is {}", rootfs.digest)));
        }
        let realm = Realm::take_over(realm).map_err(|errno| refused(errno.to_string()))?;
        let sandbox = Self::open_in(config, rootfs, Some(realm)).await?;
        let maker = &sandbox.shared.maker;
        let zygotes = Retired::take_over(zygotes, maker.host.cgroups());
        let mut zygotes = zygotes.map_err(|error| refused(error.to_string()))?;
        let mut inherited = Inherited::default();
        for Entry { told, container, calls } in containers {
            let id = told.id.clone();
            match sandbox.take_over(told, container, calls, &mut zygotes, &mut cancel) {
                Ok(parked) => {
                    inherited.parked.extend(parked);
                    inherited.containers.push(id);
                }
                Err(error) => {
                    tracing::error!(container = %id, %error, "a container could not be taken over, and is lost");
                    inherited.lost.push(id);
                }
            }
        }
        maker.retire(zygotes);
        Ok((sandbox, inherited))
    }

    /// One container, with a keeper of its own; the cell that waits in it, if one does.
    fn take_over(
        &self,
        told: Told,
        handed: HandedContainer,
        calls: Vec<ToolCall>,
        zygotes: &mut Retired,
        cancel: &mut impl FnMut(&ContainerId) -> CancellationToken,
    ) -> io::Result<Option<Parked>> {
        let maker = &self.shared.maker;
        let host = &maker.host;
        let HandedContainer { guest, cell } = handed;
        let stop = maker.stop.child_token();
        let mut guest = Guest::take_over(guest, host.image(), host.cgroups(), zygotes, stop.clone())?;
        let kept_bytes_max = usize::try_from(host.config.output_bytes_max).unwrap_or(usize::MAX);
        let cell = cell.map(|cell| UnderWay::take_over(cell, &mut guest, host.answer_wait_max(), kept_bytes_max));
        let cell = cell.transpose()?;
        if cell.is_some() != (told.stance == Stance::Leased) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let (requests, inbox) = mpsc::channel(1);
        let container = Container::inherited(&told, Parts::of(&guest, Arc::default(), stop), requests);
        let container = Arc::new(container);
        let parked = cell.map(|(under_way, holder)| {
            let (reply, outcome) = oneshot::channel();
            let going_on = Request::GoOn { cell: Box::new(under_way), cancel: cancel(&told.id), reply };
            // The keeper begins with it: nobody else knows of the container yet.
            let _there_is_room = container.requests.try_send(going_on);
            let hold = container.held();
            let lease = Lease { container: Arc::clone(&container), host: Arc::clone(host), _hold: hold };
            Parked::take_over(lease, calls, holder, outcome)
        });
        self.shared.registry.enter(Arc::clone(&container));
        maker.keepers.spawn(maker.keep(guest, container, inbox));
        Ok(parked)
    }
}

/// A container that can be handed over: it stands still from here on.
async fn entry(container: &Arc<Container>, parked: Option<&Parked>) -> Option<Entry> {
    let mut told = container.told()?;
    let waiting = match (told.stance, parked) {
        (Stance::Leased, Some(parked)) => parked.hand_over().await.map(|handed| (handed, parked.calls().to_vec())),
        (Stance::Leased, None) => return None,
        (Stance::Ready | Stance::Frozen, _) => None,
    };
    let (handed, calls): (Answer<HandedContainer>, _) = match waiting {
        Some(waiting) => waiting,
        None => {
            let (reply, answer) = oneshot::channel();
            container.requests.send(Request::HandOver { reply }).await.ok()?;
            // A cell that has come to its end while nobody asked lets go of its container.
            told.stance = if told.stance == Stance::Leased { Stance::Ready } else { told.stance };
            (answer.await.ok()?, Vec::new())
        }
    };
    match handed {
        Ok(handed) => Some(Entry { told, container: handed, calls }),
        Err(error) => {
            tracing::error!(container = %container.id, %error, "a container could not be handed over, and is lost");
            None
        }
    }
}
