//! What a long operation tells while it runs, and how it is told to stop.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::error::ImageError;

/// A step of a build or import that takes long enough to be worth a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// mmdebstrap fetches and unpacks Debian.
    Debian,
    /// pip fetches the locked wheels.
    Wheels,
    /// A tar, OCI layout or directory is copied into a new root.
    Unpack,
    /// Wheels are installed in the new root, caches filled.
    Install,
    /// mkfs.erofs packs the root.
    Pack,
    /// The packed file is hashed.
    Digest,
    /// The packed file is unpacked for use without root.
    Extract,
}

impl Phase {
    /// A few words for people.
    pub fn label(self) -> &'static str {
        match self {
            Self::Debian => "Debian packages",
            Self::Wheels => "Python wheels",
            Self::Unpack => "unpack",
            Self::Install => "install",
            Self::Pack => "pack",
            Self::Digest => "digest",
            Self::Extract => "extract",
        }
    }

    /// The stable name in `--json` output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Debian => "debian",
            Self::Wheels => "wheels",
            Self::Unpack => "unpack",
            Self::Install => "install",
            Self::Pack => "pack",
            Self::Digest => "digest",
            Self::Extract => "extract",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// One piece of news. Byte counts are what the phase has written so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageEvent {
    /// Another process holds the cache's lock file; we wait for it.
    Waiting {
        /// The lock file.
        lock: PathBuf,
    },
    /// A phase begins.
    Started {
        /// Which.
        phase: Phase,
        /// How many bytes it will go through, where that is known.
        bytes_total: Option<u64>,
    },
    /// A phase goes on.
    Progressed {
        /// Which.
        phase: Phase,
        /// Bytes so far.
        bytes: u64,
    },
    /// A phase is done.
    Finished {
        /// Which.
        phase: Phase,
        /// Bytes in the end.
        bytes: u64,
        /// How long it took.
        elapsed: Duration,
    },
    /// An earlier, interrupted run already did this phase.
    Reused {
        /// Which.
        phase: Phase,
    },
}

/// Passed to every long operation: takes its events, and can stop it.
#[derive(Clone)]
pub struct Monitor {
    on_event: Arc<dyn Fn(ImageEvent) + Send + Sync>,
    cancel: CancellationToken,
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor").field("cancelled", &self.cancel.is_cancelled()).finish_non_exhaustive()
    }
}

impl Monitor {
    /// `on_event` is called from several threads and must not block. Cancelling `cancel` ends the operation with
    /// [`ImageError::Interrupted`] once its programs are gone.
    pub fn new(on_event: impl Fn(ImageEvent) + Send + Sync + 'static, cancel: CancellationToken) -> Self {
        Self { on_event: Arc::new(on_event), cancel }
    }

    /// Nobody listens and nobody stops it.
    pub fn silent() -> Self {
        Self::new(|_| {}, CancellationToken::new())
    }

    pub(crate) fn emit(&self, event: ImageEvent) {
        (self.on_event)(event);
    }

    pub(crate) fn cancel(&self) -> &CancellationToken {
        &self.cancel
    }

    /// For loops in blocking code.
    pub(crate) fn go_on(&self) -> Result<(), ImageError> {
        if self.cancel.is_cancelled() { Err(ImageError::Interrupted) } else { Ok(()) }
    }

    /// Announces a phase; the returned meter announces its end.
    pub(crate) fn start(&self, phase: Phase, bytes_total: Option<u64>) -> Meter {
        self.emit(ImageEvent::Started { phase, bytes_total });
        Meter { monitor: self.clone(), phase, started: std::time::Instant::now(), bytes: 0, told: 0 }
    }
}

/// Counts one phase's bytes, and tells of them every 4 MiB.
#[derive(Debug)]
pub(crate) struct Meter {
    monitor: Monitor,
    phase: Phase,
    started: std::time::Instant,
    bytes: u64,
    told: u64,
}

impl Meter {
    const STEP_BYTES: u64 = 4 << 20;

    pub(crate) fn add(&mut self, bytes: u64) {
        self.set(self.bytes.saturating_add(bytes));
    }

    pub(crate) fn set(&mut self, bytes: u64) {
        self.bytes = bytes;
        if bytes.saturating_sub(self.told) >= Self::STEP_BYTES {
            self.told = bytes;
            self.monitor.emit(ImageEvent::Progressed { phase: self.phase, bytes });
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    pub(crate) fn finish(self) {
        let elapsed = self.started.elapsed();
        self.monitor.emit(ImageEvent::Finished { phase: self.phase, bytes: self.bytes, elapsed });
    }
}
