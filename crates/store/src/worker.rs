//! A thread that owns something blocking and carries out jobs on it, one after another.

use crate::StoreError;
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};

/// How many jobs may wait; callers beyond that wait for room.
const JOBS_WAITING_MAX: usize = 64;

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

/// The thread and the way to it. Dropping it carries out the jobs that wait, then ends the thread.
pub(crate) struct Worker<S> {
    jobs: Option<mpsc::Sender<Job<S>>>,
    thread: Option<JoinHandle<()>>,
}

impl<S: Send + 'static> Worker<S> {
    /// Starts a thread named `name` (15 bytes are shown by tools) that owns `state`.
    pub(crate) fn start(name: &str, mut state: S) -> Result<Self, StoreError> {
        let (jobs, mut waiting) = mpsc::channel::<Job<S>>(JOBS_WAITING_MAX);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                while let Some(job) = waiting.blocking_recv() {
                    job(&mut state);
                }
            })
            .map_err(StoreError::io("starting a database thread"))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Has `work` done on the thread. A caller that stops waiting does not stop the work.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut S) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let gone = || StoreError::broken("reaching a database thread", "the thread has ended");
        let (answer, answered) = oneshot::channel();
        let job: Job<S> = Box::new(move |state| {
            // Fails only when the caller stopped waiting; nobody is left to tell.
            drop(answer.send(work(state)));
        });
        let jobs = self.jobs.as_ref().ok_or_else(gone)?;
        jobs.send(job).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

impl<S> Drop for Worker<S> {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a database thread had panicked");
        }
    }
}
