//! Contents in a bucket of an S3-compatible store.
//!
//! ```text
//! <prefix>/owner          the id of the store whose contents these are
//! <prefix>/contents/NAME  contents; the database says which name holds which digest
//! ```
//!
//! A name is made up for each upload and never used again. So an upload streams straight to where it stays, though its digest
//! is known at its end only; nothing sees it before its row is committed; and removing an object may be late, or done by a
//! process that no longer holds the store, without harm to anybody's later upload of the same content.
//!
//! The library is asynchronous, the threads of the database are not, and callers come and go: so requests run on a small
//! runtime of their own.

use super::reader::ContentReader;
use super::{Sweeping, Swept};
use crate::StoreError;
use crate::data_dir::DataDirLock;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::aws::AmazonS3Builder;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, GetOptions, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, RetryConfig,
};
use std::collections::BTreeSet;
use std::future::Future;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::watch;

/// Contents of at least this many bytes go up in parts of this many. S3 takes 10,000 parts.
const PART_BYTES: usize = 8 * 1024 * 1024;
/// Parts of one upload that are on their way at once; with the one being filled, its memory.
const PARTS_AT_ONCE: usize = 2;
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long the store may say nothing.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// A failed request is sent again this often, for so long.
const RETRIES_MAX: usize = 3;
const RETRIES_FOR: Duration = Duration::from_secs(10);
/// Objects looked up in the database at once.
const SWEEP_NAMES: usize = 1000;
const REMOVALS_AT_ONCE: usize = 16;
/// How long a store that is closed waits for objects that are being removed.
const REMOVALS_WAIT: Duration = Duration::from_secs(10);

const WHAT: &str = "the object store";

/// A bucket, and how to reach it.
#[derive(Clone, Debug)]
pub struct ObjectPlace {
    /// The bucket's name. It has to exist.
    pub bucket: String,
    /// What stands before the names of all objects; may be empty.
    pub prefix: String,
    /// Where the store is, as `https://s3.example.org`; without it, Amazon's.
    pub endpoint: Option<String>,
    /// Its region.
    pub region: String,
    /// Whether an endpoint without TLS may be used.
    pub allow_http: bool,
    /// Without these, the machine's own role is asked for some.
    pub credentials: Option<ObjectCredentials>,
}

/// What requests are signed with.
#[derive(Clone)]
pub struct ObjectCredentials {
    /// Its name.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: String,
    /// Of credentials that end.
    pub token: Option<String>,
}

impl std::fmt::Debug for ObjectCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ObjectCredentials(..)")
    }
}

impl std::fmt::Display for ObjectPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.prefix)?;
        match &self.endpoint {
            Some(endpoint) => write!(f, " at {endpoint}"),
            None => Ok(()),
        }
    }
}

/// The contents of one store, in a bucket.
pub(crate) struct Objects {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    place: String,
    runtime: Option<Runtime>,
    handle: Handle,
    /// Objects being removed.
    removals: watch::Sender<usize>,
    spool: PathBuf,
    spooled: AtomicU64,
    disk_free_bytes_min: u64,
    _lock: DataDirLock,
}

impl std::fmt::Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Objects").field("place", &self.place).finish_non_exhaustive()
    }
}

/// What came of looking for an object.
pub(crate) enum Attempt {
    Found(ContentReader),
    /// There is none under this name.
    Missing,
    /// It has another size than it was kept with.
    Resized(u64),
}

impl Objects {
    pub(crate) fn prepare(
        place: &ObjectPlace,
        spool: PathBuf,
        disk_free_bytes_min: u64,
        lock: DataDirLock,
    ) -> Result<Self, StoreError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("store-objects")
            .enable_all()
            .build()
            .map_err(StoreError::io("starting a thread for the object store"))?;
        let prefix = Path::parse(&place.prefix)
            .map_err(|error| StoreError::Misconfigured { what: format!("the prefix of {place}: {error}") })?;
        Ok(Self {
            store: Arc::new(client(place)?),
            prefix,
            place: place.to_string(),
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
            removals: watch::Sender::new(0),
            spool,
            spooled: AtomicU64::new(0),
            disk_free_bytes_min,
            _lock: lock,
        })
    }

    fn owner(&self) -> Path {
        self.prefix.clone().join("owner")
    }

    fn contents(&self) -> Path {
        self.prefix.clone().join("contents")
    }

    fn path(&self, name: &str) -> Path {
        self.contents().join(name)
    }

    /// From a thread that may block.
    fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.handle.block_on(work)
    }

    /// From any runtime. The work goes on if the caller stops waiting.
    async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.handle.spawn(work).await.map_err(|error| StoreError::broken("using the object store", error))?
    }

    /// Makes the place this store's, or says that it is another's. Contents without an owner are nobody's to sweep.
    pub(crate) fn claim(&self, store: &str) -> Result<(), StoreError> {
        self.wait(async {
            for _ in 0..2 {
                match self.read_owner().await? {
                    Some(owner) if owner == store => return Ok(()),
                    Some(owner) => return Err(StoreError::Foreign { place: self.place.clone(), owner: Some(owner) }),
                    None => {}
                }
                let strange = self.store.list(Some(&self.contents())).next().await;
                if strange.transpose().map_err(unreachable)?.is_some() {
                    return Err(StoreError::Foreign { place: self.place.clone(), owner: None });
                }
                if self.write_owner(store).await? {
                    return Ok(());
                }
            }
            Err(StoreError::Foreign { place: self.place.clone(), owner: None })
        })
    }

    async fn read_owner(&self) -> Result<Option<String>, StoreError> {
        let found = match self.store.get(&self.owner()).await {
            Ok(found) => found.bytes().await.map_err(unreachable)?,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(unreachable(error)),
        };
        Ok(Some(String::from_utf8_lossy(&found).trim().to_owned()))
    }

    /// `false` when somebody else was quicker. A store that cannot tell is written to plainly: the lock of the database keeps
    /// out everybody who would write the same.
    async fn write_owner(&self, store: &str) -> Result<bool, StoreError> {
        let text = || Bytes::from(format!("{store}\n")).into();
        let only_new = PutOptions::from(PutMode::Create);
        match self.store.put_opts(&self.owner(), text(), only_new).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(false),
            Err(object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. }) => {
                self.store.put(&self.owner(), text()).await.map_err(unreachable)?;
                Ok(true)
            }
            Err(error) => Err(unreachable(error)),
        }
    }

    /// An upload. Nothing is sent before it has a part's worth of bytes, or its end.
    pub(crate) fn stage(self: &Arc<Self>) -> Result<Staged, StoreError> {
        let name = crate::random::name()?;
        let writer = BufWriter::with_capacity(Arc::clone(&self.store), self.path(&name), PART_BYTES)
            .with_max_concurrency(PARTS_AT_ONCE);
        Ok(Staged { objects: Arc::clone(self), name, state: State::Writing(Box::new(writer)) })
    }

    /// The size of an object, if there is one. Blocks.
    pub(crate) fn size(&self, name: &str) -> Result<Option<u64>, StoreError> {
        match self.wait(self.store.head(&self.path(name))) {
            Ok(found) => Ok(Some(found.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(unreachable(error)),
        }
    }

    /// Begins to read an object.
    pub(crate) async fn open(self: &Arc<Self>, name: &str, size_bytes: u64) -> Result<Attempt, StoreError> {
        let (objects, path) = (Arc::clone(self), self.path(name));
        self.run(async move {
            match objects.store.get(&path).await {
                Ok(found) if found.meta.size != size_bytes => Ok(Attempt::Resized(found.meta.size)),
                Ok(found) => Ok(Attempt::Found(ContentReader::object(
                    Arc::clone(&objects),
                    path,
                    size_bytes,
                    found.into_stream(),
                ))),
                Err(object_store::Error::NotFound { .. }) => Ok(Attempt::Missing),
                Err(error) => Err(unreachable(error)),
            }
        })
        .await
    }

    /// The stream of an object from `from` on.
    pub(super) async fn stream(
        self: Arc<Self>,
        path: Path,
        from: u64,
    ) -> object_store::Result<stream::BoxStream<'static, object_store::Result<Bytes>>> {
        let store = Arc::clone(&self.store);
        let asked = self.handle.spawn(async move {
            let options = GetOptions { range: Some(object_store::GetRange::Offset(from)), ..GetOptions::default() };
            store.get_opts(&path, options).await.map(object_store::GetResult::into_stream)
        });
        asked.await?
    }

    /// Removes an object, some time soon; a failure is only logged.
    pub(crate) fn remove(&self, name: &str) {
        let (store, path, removals) = (Arc::clone(&self.store), self.path(name), self.removals.clone());
        removals.send_modify(|under_way| *under_way += 1);
        self.handle.spawn(async move {
            match store.delete(&path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => tracing::warn!(%path, %error, "could not be removed; the next start will"),
            }
            removals.send_modify(|under_way| *under_way -= 1);
        });
    }

    /// Waits for removals under way.
    pub(crate) async fn removed(&self) {
        // Fails only without a sender, which is here.
        let mut removals = self.removals.subscribe();
        let _none_under_way = removals.wait_for(|under_way| *under_way == 0).await;
    }

    /// Removes every object whose name `known` does not give among those between two names. Blocks.
    pub(crate) fn sweep(
        &self,
        sweeping: Sweeping,
        mut known: impl FnMut(&str, &str) -> Result<BTreeSet<String>, StoreError>,
    ) -> Result<Swept, StoreError> {
        let mut swept = Swept::default();
        let mut listing = self.store.list(Some(&self.contents())).chunks(SWEEP_NAMES);
        while let Some(page) = self.wait(listing.next()) {
            let page = page.into_iter().collect::<object_store::Result<Vec<_>>>().map_err(unreachable)?;
            let names: BTreeSet<&str> = page.iter().filter_map(|object| object.location.filename()).collect();
            let (Some(first), Some(last)) = (names.first(), names.last()) else { continue };
            let known = known(first, last)?;
            let orphans: Vec<Path> =
                names.iter().filter(|name| !known.contains(**name)).map(|name| self.path(name)).collect();
            swept.kept += (names.len() - orphans.len()) as u64;
            swept.orphans_removed += orphans.len() as u64;
            let is_orphan = |object: &&object_store::ObjectMeta| {
                object.location.filename().is_some_and(|name| !known.contains(name))
            };
            swept.orphan_bytes += page.iter().filter(is_orphan).map(|object| object.size).sum::<u64>();
            if sweeping == Sweeping::Count {
                continue;
            }
            let removing = stream::iter(orphans)
                .map(|path| async move {
                    match self.store.delete(&path).await {
                        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                        Err(error) => Err(unreachable(error)),
                    }
                })
                .buffer_unordered(REMOVALS_AT_ONCE)
                .try_collect::<()>();
            self.wait(removing)?;
        }
        Ok(swept)
    }

    /// A file without a name, on the data directory's disk, for a content that is needed as a file. Blocks.
    pub(crate) fn spool(&self, size_bytes: u64) -> Result<std::fs::File, StoreError> {
        let doing = "making a temporary file";
        let path = self.spool.join(self.spooled.fetch_add(1, Ordering::Relaxed).to_string());
        let file = std::fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(StoreError::io(doing))?;
        std::fs::remove_file(&path).map_err(StoreError::io(doing))?;
        super::disk::expect_room(&file, size_bytes, self.disk_free_bytes_min)?;
        Ok(file)
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        let is_own = Handle::try_current().is_ok_and(|handle| handle.id() == self.handle.id());
        if *self.removals.borrow() == 0 || is_own {
            return runtime.shutdown_background();
        }
        // Somebody's runtime may be what drops this, and there nobody may wait; what is left the next start removes.
        let mut removals = self.removals.subscribe();
        let waiting = std::thread::Builder::new().name("store-removals".to_owned()).spawn(move || {
            let none_under_way = async {
                let _ = tokio::time::timeout(REMOVALS_WAIT, removals.wait_for(|under_way| *under_way == 0)).await;
            };
            runtime.block_on(none_under_way);
            runtime.shutdown_background();
        });
        if let Ok(waiting) = waiting {
            let _ = waiting.join();
        }
    }
}

/// Asks a store for what is under our prefix.
pub(super) async fn reach(place: &ObjectPlace) -> Result<String, StoreError> {
    let prefix = Path::parse(&place.prefix)
        .map_err(|error| StoreError::Misconfigured { what: format!("the prefix of {place}: {error}") })?;
    let owner = prefix.join("owner");
    match client(place)?.head(&owner).await {
        Ok(_) => Ok("there, and in use by a Belljar".to_owned()),
        // A store says the same of a bucket that is not there.
        Err(object_store::Error::NotFound { .. }) => {
            let listed = client(place)?.list(Some(&owner)).next().await;
            listed.transpose().map_err(unreachable)?;
            Ok("there, and empty".to_owned())
        }
        Err(error) => Err(unreachable(error)),
    }
}

fn client(place: &ObjectPlace) -> Result<impl ObjectStore + use<>, StoreError> {
    // Fails when there is one already, which is ring too.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    // The whole of a request may take long: a client that reads slowly makes it so.
    let options =
        ClientOptions::new().with_timeout_disabled().with_connect_timeout(CONNECT_MAX).with_read_timeout(SILENCE_MAX);
    let retry = RetryConfig {
        backoff: BackoffConfig { max_backoff: Duration::from_secs(2), ..BackoffConfig::default() },
        max_retries: RETRIES_MAX,
        retry_timeout: RETRIES_FOR,
    };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&place.bucket)
        .with_region(&place.region)
        .with_client_options(options.with_allow_http(place.allow_http))
        .with_retry(retry);
    if let Some(endpoint) = &place.endpoint {
        builder = builder.with_endpoint(endpoint).with_virtual_hosted_style_request(false);
    }
    if let Some(ObjectCredentials { access_key_id, secret_access_key, token }) = &place.credentials {
        builder = builder.with_access_key_id(access_key_id).with_secret_access_key(secret_access_key);
        if let Some(token) = token {
            builder = builder.with_token(token);
        }
    }
    builder.build().map_err(|error| StoreError::Misconfigured { what: format!("{place}: {error}") })
}

fn unreachable(error: object_store::Error) -> StoreError {
    let mut why = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(deeper) = cause {
        let text = deeper.to_string();
        if !why.contains(&text) {
            why = format!("{why}: {text}");
        }
        cause = deeper.source();
    }
    StoreError::Unreachable { what: WHAT, why }
}

/// An upload on its way; gone when dropped, unless it is kept.
#[derive(Debug)]
pub(crate) struct Staged {
    objects: Arc<Objects>,
    name: String,
    state: State,
}

enum State {
    Writing(Box<BufWriter>),
    /// It is whole and durable; or its end failed, after which the library has called it off, or it is there all the same.
    Written,
    /// A row of a change refers to it, or it is being seen to elsewhere.
    Kept,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Writing(_) => "Writing",
            Self::Written => "Written",
            Self::Kept => "Kept",
        })
    }
}

impl Staged {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// From now on a row refers to it.
    pub(super) fn keep(&mut self) -> &str {
        self.state = State::Kept;
        &self.name
    }

    pub(crate) async fn write(mut self, chunk: Bytes) -> Result<Self, StoreError> {
        let objects = Arc::clone(&self.objects);
        let write = async move {
            match &mut self.state {
                State::Writing(writer) => writer.put(chunk).await.map_err(unreachable)?,
                State::Written | State::Kept => return Err(StoreError::Interrupted),
            }
            Ok(self)
        };
        objects.run(write).await
    }

    pub(crate) async fn finish(mut self) -> Result<Self, StoreError> {
        let objects = Arc::clone(&self.objects);
        let finish = async move {
            match std::mem::replace(&mut self.state, State::Written) {
                State::Writing(mut writer) => writer.shutdown().await.map_err(ended)?,
                State::Written | State::Kept => return Err(StoreError::Interrupted),
            }
            Ok(self)
        };
        objects.run(finish).await
    }
}

fn ended(error: std::io::Error) -> StoreError {
    match error.kind() {
        ErrorKind::Other if error.get_ref().is_some_and(|inner| inner.is::<object_store::Error>()) => {
            match error.into_inner().map(|inner| inner.downcast::<object_store::Error>()) {
                Some(Ok(inner)) => unreachable(*inner),
                _ => StoreError::Unreachable { what: WHAT, why: "an upload did not end".to_owned() },
            }
        }
        _ => StoreError::Unreachable { what: WHAT, why: error.to_string() },
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.state, State::Kept) {
            State::Writing(mut writer) => {
                // What was sent of it nobody sees, but it takes room until it is called off.
                self.objects.handle.spawn(async move {
                    if let Err(error) = writer.abort().await {
                        tracing::warn!(%error, "an unfinished upload stays in the object store");
                    }
                });
            }
            State::Written => self.objects.remove(&self.name),
            State::Kept => {}
        }
    }
}
