//! The nursery of an image, replaced when it has failed.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};

use belljar_jail::cgroup::Limits;
use belljar_jail::{Attachment, BirthError, JailPlan, Jailed, LaunchError, Nursery, Realm};

use crate::image::Image;

/// Nurseries tried for one container, so that one that was found dead costs nobody a start of the longer way.
const TRIES: usize = 2;

/// See the module's head.
pub struct Nurseries {
    /// None when this machine would not have one: then containers are launched each by itself.
    present: Mutex<Option<Arc<Nursery>>>,
}

impl Nurseries {
    /// With the first one. Blocks.
    pub fn start(realm: &Realm, program: &File, plan: &JailPlan) -> Self {
        Self { present: Mutex::new(started(realm, program, plan)) }
    }

    /// Launches a container from the nursery; none when there is no nursery that works. Blocks.
    pub fn launch(
        &self,
        image: &Image,
        program: &File,
        limits: &Limits,
        attachment: Attachment<'_>,
        control: BorrowedFd<'_>,
    ) -> Option<Result<Jailed, LaunchError>> {
        for _ in 0..TRIES {
            let nursery = self.present.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
            match nursery.launch(image.sizes(limits), attachment, control) {
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

    /// The failed one ends when the last launch from it does. Whoever finds it failed too waits for the new one here.
    fn replace(&self, failed: &Arc<Nursery>, image: &Image, program: &File) {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        if present.as_ref().is_some_and(|present| Arc::ptr_eq(present, failed)) {
            *present = started(image.realm(), program, image.own_plan());
        }
    }
}

fn started(realm: &Realm, program: &File, plan: &JailPlan) -> Option<Arc<Nursery>> {
    match Nursery::start(realm, program.as_fd(), plan) {
        Ok(nursery) => Some(Arc::new(nursery)),
        Err(error) => {
            tracing::warn!(%error, "there is no nursery: each container is launched by itself");
            None
        }
    }
}
