//! The nursery of an image, replaced when it has failed.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use belljar_jail::cgroup::Limits;
use belljar_jail::{AtBirth, Attachment, BirthError, JailPlan, Jailed, LaunchError, Nursery, Realm};

use crate::image::Image;

/// Nurseries tried for one container, so that one that was found dead costs nobody a start of the longer way.
const TRIES: usize = 2;

/// Until another one is tried where there could be none: what was in the way may have passed.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// See the module's head.
pub struct Nurseries(Mutex<Present>);

enum Present {
    Waits(Arc<Nursery>),
    /// Containers are launched each by itself meanwhile.
    Failed(Instant),
    /// Nothing is started from this image any more.
    Closed,
}

impl Nurseries {
    /// With the first one. Blocks.
    pub fn start(realm: &Realm, program: &File, plan: &JailPlan) -> Self {
        Self(Mutex::new(started(realm, program, plan)))
    }

    fn lock(&self) -> MutexGuard<'_, Present> {
        // Each change is one assignment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Launches a container from the nursery; none when there is no nursery that works. `at_birth` may have been called
    /// by then. Blocks.
    pub fn launch(
        &self,
        image: &Image,
        program: &File,
        limits: &Limits,
        attachment: Attachment<'_>,
        control: BorrowedFd<'_>,
        mut at_birth: Option<AtBirth<'_>>,
    ) -> Option<Result<Jailed, LaunchError>> {
        for _ in 0..TRIES {
            let nursery = self.present(image, program)?;
            match nursery.launch(
                image.sizes(limits),
                attachment,
                control,
                at_birth.as_mut().map(|at_birth| &mut **at_birth as AtBirth<'_>),
            ) {
                Ok(jailed) => return Some(Ok(jailed)),
                Err(BirthError::Container(error)) => return Some(Err(error)),
                Err(error @ BirthError::Nursery(_)) => {
                    tracing::warn!(%error, "a nursery is replaced");
                    self.replace(&nursery, image, program);
                }
            }
        }
        None
    }

    /// Ends it, once no launch from it is under way. Before this process becomes another program: that one would not know of
    /// it, and never reap it. Blocks.
    pub fn close(&self) {
        let before = std::mem::replace(&mut *self.lock(), Present::Closed);
        drop(before);
    }

    fn present(&self, image: &Image, program: &File) -> Option<Arc<Nursery>> {
        let mut present = self.lock();
        if matches!(&*present, Present::Failed(since) if since.elapsed() >= RETRY_AFTER) {
            *present = started(image.realm(), program, image.own_plan());
        }
        match &*present {
            Present::Waits(nursery) => Some(Arc::clone(nursery)),
            Present::Failed(_) | Present::Closed => None,
        }
    }

    /// The failed one ends when the last launch from it does. Whoever finds it failed too waits for the new one here.
    fn replace(&self, failed: &Arc<Nursery>, image: &Image, program: &File) {
        let mut present = self.lock();
        if matches!(&*present, Present::Waits(present) if Arc::ptr_eq(present, failed)) {
            *present = started(image.realm(), program, image.own_plan());
        }
    }
}

fn started(realm: &Realm, program: &File, plan: &JailPlan) -> Present {
    match Nursery::start(realm, program.as_fd(), plan) {
        Ok(nursery) => Present::Waits(Arc::new(nursery)),
        Err(error) => {
            tracing::warn!(%error, "there is no nursery: each container is launched by itself");
            Present::Failed(Instant::now())
        }
    }
}
