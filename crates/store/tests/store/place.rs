//! Where a test's store is: on this machine's disk, or in the PostgreSQL and the object store that `tests/harness/stores.py`
//! has started, in a schema and under a prefix of its own.

use crate::fixture::files_under;
use belljar_ids::{IdSource as _, SeededIds};
use belljar_store::{BlobPlace, Clock, Database, ObjectCredentials, ObjectPlace, PostgresPlace, StoreOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const POSTGRES: &str = "BELLJAR_TEST_POSTGRES";
const S3: &str = "BELLJAR_TEST_S3";
/// The folder in which that object store keeps its objects as files.
const S3_ROOT: &str = "BELLJAR_TEST_S3_ROOT";
const BUCKET: &str = "belljar";
const ACCESS_KEY: &str = "belljar-test";
const SECRET_KEY: &str = "belljar-test-secret";

/// One of the two.
#[derive(Clone)]
pub enum Place {
    Here,
    Elsewhere(Services),
}

#[derive(Clone)]
pub struct Services {
    pub postgres: String,
    pub s3: String,
    pub s3_root: PathBuf,
    pub name: String,
}

impl Place {
    /// Another one for each call.
    pub async fn new() -> Self {
        static CALLS: AtomicU64 = AtomicU64::new(0);
        let mut random = [0_u8; 4];
        SeededIds::new(u64::from(std::process::id()) << 32 | CALLS.fetch_add(1, Ordering::Relaxed)).fill(&mut random);
        let place = Self::named(&format!("t{}_{:08x}", std::process::id(), u32::from_le_bytes(random)));
        if let Self::Elsewhere(services) = &place {
            services.sql(&format!("CREATE SCHEMA {}", services.name)).await;
        }
        place
    }

    /// The one of this name; its schema has to be there.
    pub fn named(name: &str) -> Self {
        match (std::env::var(POSTGRES), std::env::var(S3), std::env::var(S3_ROOT)) {
            (Ok(postgres), Ok(s3), Ok(root)) => {
                Self::Elsewhere(Services { postgres, s3, s3_root: root.into(), name: name.to_owned() })
            }
            _ => Self::Here,
        }
    }

    pub fn name(&self) -> &str {
        match self {
            Self::Here => "here",
            Self::Elsewhere(services) => &services.name,
        }
    }

    pub fn options(&self, clock: Arc<dyn Clock>) -> StoreOptions {
        StoreOptions { database: self.database(), blobs: self.blob_place(), ..StoreOptions::new(clock) }
    }

    pub fn database(&self) -> Database {
        match self {
            Self::Here => Database::Sqlite,
            Self::Elsewhere(services) => Database::Postgres(PostgresPlace::parse(&services.url()).unwrap()),
        }
    }

    pub fn blob_place(&self) -> BlobPlace {
        match self {
            Self::Here => BlobPlace::Disk,
            Self::Elsewhere(services) => BlobPlace::Objects(Box::new(services.objects())),
        }
    }

    /// Statements that a test slips under the store.
    pub async fn sql(&self, data_dir: &Path, statements: &str) {
        match self {
            Self::Here => {
                let database = rusqlite::Connection::open(data_dir.join("belljar.sqlite")).unwrap();
                database.execute_batch(statements).unwrap();
            }
            Self::Elsewhere(services) => services.sql(statements).await,
        }
    }

    /// The one number that a statement answers.
    pub async fn number(&self, data_dir: &Path, statement: &str) -> i64 {
        match self {
            Self::Here => {
                let database = rusqlite::Connection::open(data_dir.join("belljar.sqlite")).unwrap();
                database.query_row(statement, [], |row| row.get(0)).unwrap()
            }
            Self::Elsewhere(services) => {
                let (url, statement) = (services.url(), statement.to_owned());
                let ask = move || {
                    postgres::Client::connect(&url, postgres::NoTls).unwrap().query_one(&statement, &[]).unwrap().get(0)
                };
                tokio::task::spawn_blocking(ask).await.unwrap()
            }
        }
    }

    /// The files that hold contents.
    pub fn blobs(&self, data_dir: &Path) -> Vec<PathBuf> {
        match self {
            Self::Here => files_under(&data_dir.join("blobs")),
            Self::Elsewhere(services) => services.files("contents"),
        }
    }
}

impl Services {
    pub fn url(&self) -> String {
        format!("{}?options=-csearch_path%3D{}", self.postgres, self.name)
    }

    pub fn objects(&self) -> ObjectPlace {
        let credentials = ObjectCredentials {
            access_key_id: ACCESS_KEY.to_owned(),
            secret_access_key: SECRET_KEY.to_owned(),
            token: None,
        };
        ObjectPlace {
            bucket: BUCKET.to_owned(),
            prefix: format!("tests/{}", self.name),
            endpoint: Some(self.s3.clone()),
            region: "us-east-1".to_owned(),
            allow_http: true,
            credentials: Some(credentials),
        }
    }

    pub async fn sql(&self, statements: &str) {
        let (url, statements) = (self.url(), statements.to_owned());
        let run = move || postgres::Client::connect(&url, postgres::NoTls).unwrap().batch_execute(&statements).unwrap();
        tokio::task::spawn_blocking(run).await.unwrap();
    }

    /// Objects below a folder of this store's prefix.
    pub fn files(&self, folder: &str) -> Vec<PathBuf> {
        let root = self.s3_root.join(BUCKET).join("tests").join(&self.name).join(folder);
        if root.is_dir() { files_under(&root) } else { Vec::new() }
    }
}
