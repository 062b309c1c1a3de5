//! PostgreSQL: a connection that comes back, and the hold on the store.
//!
//! Who serves holds an advisory lock, on the very connection that carries its changes. PostgreSQL lets go of it when that
//! connection ends and not before, so a change can only be committed while nobody else holds the store. A connection that
//! was lost is made again with the lock, and only if nobody held the store in between: then what this process has in
//! memory and what it is uploading still count.

use super::error::{Error, Result};
use super::values::Parameter;
use postgres::config::{Host, SslMode};
use postgres::{Client, Config, Statement};
use rusqlite::types::ToSql;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::time::Duration;

/// How long a connection may take to stand.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long what was sent may go unacknowledged before the connection counts as lost.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// How long a process that has just ended may still seem to hold the store.
const HOLD_ATTEMPTS: u32 = 40;
const HOLD_LOOKED_AT: Duration = Duration::from_millis(50);

/// What each connection is told first. The server is to find out by itself, and soon, that a client's machine is gone:
/// it holds the lock until then.
const SETTINGS: &str = "SET lock_timeout = '5s'; SET statement_timeout = '60s'; SET idle_in_transaction_session_timeout = '60s'; \
                       SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3; \
                       SET synchronous_commit = on; SET client_min_messages = warning";

/// Schemas of one database are stores of their own.
const LOCK: &str = "SELECT pg_try_advisory_lock(hashtextextended('belljar ' || current_schema(), 0)) AS taken";

/// Whether a connection holds the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// It does, or it is of no use.
    Exclusive,
    /// It does not.
    Beside,
}

/// A connection that is made again when it was lost.
pub(crate) struct Postgres {
    config: Config,
    hold: Hold,
    /// How often the store had been taken hold of when we did: whoever does it counts on.
    tenure: Cell<Option<i64>>,
    change: Cell<Change>,
    live: RefCell<Option<Live>>,
}

struct Live {
    client: Client,
    prepared: HashMap<String, Statement>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    None,
    Open,
    /// One of its statements failed: PostgreSQL would answer its commit with success, and undo it.
    Failed,
}

impl Postgres {
    pub(crate) fn connect(config: &Config, hold: Hold) -> Result<Self> {
        let connection = Self {
            config: prudent(config),
            hold,
            tenure: Cell::new(None),
            change: Cell::new(Change::None),
            live: RefCell::new(None),
        };
        connection.with(|_| Ok(()))?;
        Ok(connection)
    }

    /// `host:port/name`; no user, no password.
    pub(crate) fn place(&self) -> String {
        place(&self.config)
    }

    /// Takes hold of the store for good, after [`Hold::Exclusive`] had the lock: a new tenure begins.
    pub(crate) fn begin_tenure(&self, tenure: i64) {
        self.tenure.set(Some(tenure));
    }

    pub(super) fn begin(&self, sql: &str) -> Result<()> {
        self.again_if_lost(|live| live.batch(sql))?;
        self.change.set(Change::Open);
        Ok(())
    }

    pub(super) fn commit(&self) -> Result<()> {
        let done = match self.change.get() {
            Change::Open => self.with(|live| live.batch("COMMIT")),
            Change::Failed => Err(Error::Undone),
            Change::None => Err(Error::Undone),
        };
        if done.is_ok() {
            self.change.set(Change::None);
        }
        done
    }

    /// Undoes the change, if one is open. A connection on which that fails is of no more use, and ends with it.
    pub(super) fn undo(&self) {
        if self.change.replace(Change::None) == Change::None {
            return;
        }
        let mut slot = self.live.borrow_mut();
        if slot.as_mut().is_some_and(|live| live.batch("ROLLBACK").is_err()) {
            *slot = None;
        }
    }

    pub(super) fn batch(&self, sql: &str) -> Result<()> {
        self.noted(self.with(|live| live.batch(sql)))
    }

    pub(super) fn query(&self, sql: &str, parameters: &[&dyn ToSql]) -> Result<Vec<postgres::Row>> {
        let query =
            |live: &mut Live| live.run(sql, parameters, |client, statement, list| client.query(statement, list));
        self.noted(self.again_if_lost(query))
    }

    pub(super) fn execute(&self, sql: &str, parameters: &[&dyn ToSql]) -> Result<usize> {
        let execute =
            |live: &mut Live| live.run(sql, parameters, |client, statement, list| client.execute(statement, list));
        let changed = self.noted(self.with(execute))?;
        Ok(usize::try_from(changed).unwrap_or(usize::MAX))
    }

    fn noted<T>(&self, done: Result<T>) -> Result<T> {
        if done.is_err() && self.change.get() == Change::Open {
            self.change.set(Change::Failed);
        }
        done
    }

    /// Does something that changes nothing, once more if the connection turns out to be lost and no change is open.
    fn again_if_lost<T>(&self, mut work: impl FnMut(&mut Live) -> Result<T>) -> Result<T> {
        match self.with(&mut work) {
            Err(Error::Unreachable(_)) if self.change.get() == Change::None => self.with(work),
            done => done,
        }
    }

    /// Does something on a live connection, which is made if there is none. A change stays on the connection it was begun
    /// on: with that, it is lost.
    fn with<T>(&self, work: impl FnOnce(&mut Live) -> Result<T>) -> Result<T> {
        let mut slot = self.live.borrow_mut();
        if slot.as_ref().is_some_and(|live| live.client.is_closed()) {
            *slot = None;
        }
        if slot.is_none() {
            if self.change.get() != Change::None {
                return Err(Error::Unreachable("the connection was lost during a change".to_owned()));
            }
            *slot = Some(self.make()?);
        }
        match slot.as_mut() {
            Some(live) => work(live),
            None => Err(Error::Unreachable("no connection".to_owned())),
        }
    }

    fn make(&self) -> Result<Live> {
        let tls = tls().map_err(|error| Error::Unreachable(format!("TLS cannot be set up: {error}")))?;
        let unreachable = |error: postgres::Error| Error::Unreachable(format!("{}: {}", self.place(), told(&error)));
        let mut client = self.config.connect(tls).map_err(unreachable)?;
        client.batch_execute(SETTINGS).map_err(unreachable)?;
        let mut live = Live { client, prepared: HashMap::new() };
        if self.hold == Hold::Exclusive {
            lock(&mut live, &self.place())?;
            if let Some(ours) = self.tenure.get() {
                let last = live.client.query_one("SELECT tenure FROM store", &[]).map_err(unreachable)?;
                if last.try_get::<_, i64>(0).map_err(unreachable)? != ours {
                    return Err(Error::Superseded { place: self.place() });
                }
                tracing::warn!(database = self.place(), "the database is back, and the store is still ours");
            }
        }
        Ok(live)
    }
}

impl Live {
    fn run<T>(
        &mut self,
        sql: &str,
        parameters: &[&dyn ToSql],
        work: impl FnOnce(
            &mut Client,
            &Statement,
            &[&(dyn postgres::types::ToSql + Sync)],
        ) -> std::result::Result<T, postgres::Error>,
    ) -> Result<T> {
        let values =
            parameters.iter().map(|value| value.to_sql().map(Parameter)).collect::<rusqlite::Result<Vec<_>>>()?;
        let list: Vec<_> = values.iter().map(|value| value as &(dyn postgres::types::ToSql + Sync)).collect();
        let statement = self.prepare(sql)?;
        work(&mut self.client, &statement, &list).map_err(|error| failure(&self.client, error))
    }

    fn batch(&mut self, sql: &str) -> Result<()> {
        self.client.batch_execute(sql).map_err(|error| failure(&self.client, error))
    }

    fn prepare(&mut self, sql: &str) -> Result<Statement> {
        if let Some(statement) = self.prepared.get(sql) {
            return Ok(statement.clone());
        }
        let prepared = self.client.prepare(&numbered(sql));
        let statement = prepared.map_err(|error| failure(&self.client, error))?;
        self.prepared.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

fn lock(live: &mut Live, place: &str) -> Result<()> {
    for _ in 0..HOLD_ATTEMPTS {
        let row = live.client.query_one(LOCK, &[]).map_err(|error| failure(&live.client, error))?;
        if row.try_get::<_, bool>(0).map_err(|error| failure(&live.client, error))? {
            return Ok(());
        }
        std::thread::sleep(HOLD_LOOKED_AT);
    }
    Err(Error::Held { place: place.to_owned() })
}

/// Whether the server refused, or is gone. One that shuts down says so (class 57) before it goes.
fn failure(client: &Client, error: postgres::Error) -> Error {
    let leaving = error.code().is_some_and(|code| code.code().starts_with("57P") || code.code().starts_with("08"));
    // What the network says comes before the connection knows itself that it is over.
    let cut = std::error::Error::source(&error).is_some_and(|cause| cause.is::<std::io::Error>());
    if client.is_closed() || error.is_closed() || leaving || cut {
        Error::Unreachable(told(&error))
    } else {
        Error::Postgres(Box::new(error))
    }
}

/// With its cause, which carries what the server or the network said.
fn told(error: &postgres::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// `?1` is `$1` there.
fn numbered(sql: &str) -> String {
    let mut text = String::with_capacity(sql.len());
    let mut rest = sql.chars().peekable();
    while let Some(letter) = rest.next() {
        let is_parameter = letter == '?' && rest.peek().is_some_and(char::is_ascii_digit);
        text.push(if is_parameter { '$' } else { letter });
    }
    text
}

/// What was not said, as it is safe: a name, an end to waiting, and TLS with every server that is not on this machine.
fn prudent(config: &Config) -> Config {
    let mut config = config.clone();
    if config.get_application_name().is_none() {
        config.application_name("belljar");
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_MAX);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(SILENCE_MAX);
    }
    if config.get_ssl_mode() == SslMode::Prefer && !config.get_hosts().iter().all(is_here) {
        config.ssl_mode(SslMode::Require);
    }
    config
}

fn is_here(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        Host::Unix(_) => true,
    }
}

/// `host:port/name`; no user, no password.
pub(crate) fn place(config: &Config) -> String {
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(name)) => name.clone(),
        Some(Host::Unix(path)) => path.display().to_string(),
        None => "localhost".to_owned(),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let name = config.get_dbname().or_else(|| config.get_user()).unwrap_or_default();
    format!("{host}:{port}/{name}")
}

/// rustls with ring, and the system's roots; certificates are checked whenever TLS is spoken.
fn tls() -> std::result::Result<tokio_postgres_rustls::MakeRustlsConnect, rustls::Error> {
    use rustls_platform_verifier::BuilderVerifierExt as _;
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_platform_verifier()?
        .with_no_client_auth();
    Ok(tokio_postgres_rustls::MakeRustlsConnect::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_numbered_as_the_server_wants_them() {
        assert_eq!(numbered("a = ?1 AND (b, c) < (?2, ?10) -- why?"), "a = $1 AND (b, c) < ($2, $10) -- why?");
    }

    #[test]
    fn only_servers_of_this_machine_are_spoken_to_in_the_clear() {
        let mode = |url: &str| prudent(&url.parse().unwrap_or_default()).get_ssl_mode();
        assert_eq!(mode("postgres://a@127.0.0.1/b"), SslMode::Prefer);
        assert_eq!(mode("postgres://a@localhost/b"), SslMode::Prefer);
        assert_eq!(mode("host=/run/postgresql user=a"), SslMode::Prefer);
        assert_eq!(mode("postgres://a@db.internal/b"), SslMode::Require);
        assert_eq!(mode("postgres://a@10.0.0.1,localhost/b"), SslMode::Require);
        assert_eq!(mode("postgres://a@db.internal/b?sslmode=disable"), SslMode::Disable);
    }

    #[test]
    fn a_place_has_no_secret() {
        let config: Config = "postgres://me:secret@db:99/name".parse().unwrap_or_default();
        assert_eq!(place(&config), "db:99/name");
        assert!(!format!("{config:?}").contains("secret"));
    }
}
