//! A nursery: the guest program, in the realm with the plan read, where it bears one process 1 after another.
//!
//! A container from it needs no program to be started and no plan to be read: one clone, and what process 1 does to
//! itself. It is trusted, as a zygote is: it reads nothing but the host's few words, and runs nothing. What it bears is a
//! child of the host, which gets its pidfd from the very call that makes it.

mod inside;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;
use rustix::process::Pid;

use crate::channel::{self, Report};
use crate::identity::Identity;
use crate::launch::{
    Attachment, Jailed, LaunchError, Launcher, PidNamespace, limit_silence, next_report, sealed, talk, unexpected,
};
use crate::oom;
use crate::plan::{JailPlan, Sizes};
use crate::realm::Realm;
use crate::step::{SetupError, Step};

pub(crate) use inside::serve;

/// See the module's head. Dropped, it is killed and reaped, and with it what it has borne that nobody got hold of; not
/// to be dropped while a launch from it is under way, which borrowing sees to.
///
/// Process 1 stays in the nursery's process group until the host has got hold of it.
pub struct Nursery {
    launcher: Launcher,
    /// One container at a time is ordered and handed over.
    line: Mutex<OwnedFd>,
    identity: Identity,
}

/// Why no container came of it. Nothing that was started is left but the nursery, and no user code ran.
#[derive(Debug, thiserror::Error)]
pub enum BirthError {
    /// The container could not be set up; another way would not do better.
    #[error(transparent)]
    Container(LaunchError),
    /// The nursery has failed, and is to be dropped: a container can be had from another, or by [`crate::launch`].
    #[error("the nursery failed: {0}")]
    Nursery(#[source] LaunchError),
}

/// What is done with a container's pid namespace when its process 1 is born.
pub type AtBirth<'a> = &'a mut dyn FnMut(PidNamespace);

/// A process 1 that waits in vain for its ids has lost its nursery, and would not have with another.
fn orphaned(error: LaunchError) -> BirthError {
    match error {
        LaunchError::Setup(SetupError { step: Step::AwaitIdMaps, .. }) => BirthError::Nursery(error),
        error => BirthError::Container(error),
    }
}

impl From<LaunchError> for BirthError {
    fn from(error: LaunchError) -> Self {
        Self::Container(error)
    }
}

impl Nursery {
    /// Starts `program` (a sealed memfd) as a nursery of containers with this plan, which is not a ward's. Blocks for a few
    /// milliseconds.
    ///
    /// # Errors
    /// [`LaunchError`]; nothing that was started is left.
    pub fn start(realm: &Realm, program: BorrowedFd<'_>, plan: &JailPlan) -> Result<Self, LaunchError> {
        realm.require(plan.identity)?;
        let order = plan.to_nursery_order().map_err(|error| LaunchError::Channel(error.into()))?;
        let (line, theirs) = channel::pair().map_err(talk)?;
        let launcher = Launcher::spawn(program, theirs, Stdio::null())?;
        limit_silence(&line)?;
        // What it bears enters cgroups of its own.
        Attachment::Unlimited.offer(&line)?;
        // Inherited by all that it bears. Set from here, with the host's rights, code inside cannot lower it again.
        oom::set(launcher.pid(), oom::PROCESS_ONE).map_err(LaunchError::OomScore)?;
        channel::send_order(&line, &order, &[realm.namespace()]).map_err(talk)?;
        match next_report(&line)? {
            Report::Nursery => Ok(Self { launcher, line: Mutex::new(line), identity: plan.identity }),
            other => Err(unexpected(other)),
        }
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.launcher.pid()
    }

    /// As [`crate::launch`], for a container that differs from the plan in its sizes. Blocks for the whole set-up.
    ///
    /// `at_birth` is called with the container's pid namespace as soon as there is a process 1, which is long before all else
    /// stands: what is put in it by then, and not into the container's cgroups, must not do anything before this returns.
    /// It is not called where the namespace cannot be opened yet.
    ///
    /// # Errors
    /// [`BirthError`].
    pub fn launch(
        &self,
        sizes: Sizes,
        attachment: Attachment<'_>,
        control: BorrowedFd<'_>,
        at_birth: Option<AtBirth<'_>>,
    ) -> Result<Jailed, BirthError> {
        sizes.check().map_err(LaunchError::Plan)?;
        let (channel, theirs) = channel::pair().map_err(talk)?;
        limit_silence(&channel)?;
        let entrances = attachment.entrances().map_err(LaunchError::Attach)?;
        let entrances: Vec<_> = entrances.iter().map(AsFd::as_fd).collect();
        // From here on, dropping `jailed` ends it.
        let mut jailed = self.bear(&sizes, [theirs.as_fd(), control], &entrances)?;
        drop(theirs);
        if let Some(at_birth) = at_birth
            && let Ok(namespace) = jailed.pid_namespace()
        {
            at_birth(namespace);
        }
        if self.identity.hides_its_processes() {
            match next_report(&channel).map_err(orphaned)? {
                Report::Apart => jailed.hold_namespaces(&channel)?,
                other => return Err(orphaned(unexpected(other))),
            }
        }
        sealed(&channel, jailed).map_err(orphaned)
    }

    /// Orders one, and gets hold of it.
    fn bear(
        &self,
        sizes: &Sizes,
        fds: [BorrowedFd<'_>; 2],
        entrances: &[BorrowedFd<'_>],
    ) -> Result<Jailed, BirthError> {
        let failed = |errno| BirthError::Nursery(talk(errno));
        // Whoever panicked here has left an answer behind, or none: the next one finds that.
        let line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        channel::send_birth(&*line, sizes, fds, entrances).map_err(failed)?;
        let answer = channel::receive_held(&*line).map_err(failed)?;
        match answer {
            Some((Report::ProcessOne(pid), mut fds)) => match (Pid::from_raw(pid), fds.pop()) {
                (Some(pid), Some(pidfd)) if fds.is_empty() => Ok(Jailed::held(pid, pidfd)),
                _ => Err(BirthError::Nursery(LaunchError::Disorder)),
            },
            // It has made nothing, and goes on.
            Some((Report::Failed(error), fds)) if fds.is_empty() => Err(LaunchError::Setup(error).into()),
            Some(_) => Err(BirthError::Nursery(LaunchError::Disorder)),
            None => Err(failed(Errno::PIPE)),
        }
    }
}

impl std::fmt::Debug for Nursery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nursery").field("pid", &self.pid()).finish_non_exhaustive()
    }
}
