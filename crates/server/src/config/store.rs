//! `[store]`: where metadata and contents are kept. Secrets come from the environment, never from the file.

use belljar_store::{BlobPlace, Database, ObjectCredentials, ObjectPlace, PostgresPlace};
use serde::Deserialize;

use super::ConfigError;
use super::environment::Environment;

/// Where state is kept, resolved.
#[derive(Clone, Debug, Default)]
pub struct StoreChoice {
    /// Metadata.
    pub database: Database,
    /// Contents.
    pub blobs: BlobPlace,
}

/// `[store]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "each key is documented in `keys`")]
pub struct StoreTable {
    pub database: Option<String>,
    pub database_url_env: Option<String>,
    pub database_password_env: Option<String>,
    pub blobs: String,
    pub endpoint: Option<String>,
    pub region: String,
    pub allow_http: bool,
    pub access_key_id_env: Option<String>,
    pub secret_access_key_env: Option<String>,
    pub token_env: Option<String>,
}

impl Default for StoreTable {
    fn default() -> Self {
        Self {
            database: None,
            database_url_env: None,
            database_password_env: None,
            blobs: "disk".to_owned(),
            endpoint: None,
            region: "us-east-1".to_owned(),
            allow_http: false,
            access_key_id_env: None,
            secret_access_key_env: None,
            token_env: None,
        }
    }
}

fn refused<T>(text: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError(text.into()))
}

/// A variable that the file names has to be there.
fn named<'e>(
    key: &str,
    variable: Option<&String>,
    environment: &'e Environment,
) -> Result<Option<&'e str>, ConfigError> {
    match variable {
        None => Ok(None),
        Some(variable) => match environment.get(variable) {
            Some(value) => Ok(Some(value)),
            None => refused(format!("store.{key}: the environment variable `{variable}` is not set")),
        },
    }
}

impl StoreTable {
    /// Checked, with its secrets.
    pub fn resolve(&self, environment: &Environment) -> Result<StoreChoice, ConfigError> {
        Ok(StoreChoice { database: self.database(environment)?, blobs: self.blobs(environment)? })
    }

    fn database(&self, environment: &Environment) -> Result<Database, ConfigError> {
        let url = named("database_url_env", self.database_url_env.as_ref(), environment)?;
        let place = match (self.database.as_deref(), url) {
            (Some(_), Some(_)) => return refused("store: set `database` or `database_url_env`, not both"),
            (None | Some("sqlite"), None) => {
                return match self.database_password_env {
                    None => Ok(Database::Sqlite),
                    Some(_) => refused("store.database_password_env: SQLite has no password"),
                };
            }
            (Some(url), None) if !url.contains("://") => {
                return refused("store.database: must be \"sqlite\" or an address as \"postgres://user@host/name\"");
            }
            (Some(url), None) => match read(url)? {
                place if place.has_password() => {
                    return refused(
                        "store.database: has a password in it; name a variable in `database_password_env`, or the whole \
                         address in `database_url_env`",
                    );
                }
                place => place,
            },
            (None, Some(url)) => read(url)?,
        };
        let password = named("database_password_env", self.database_password_env.as_ref(), environment)?;
        Ok(Database::Postgres(match password {
            Some(password) => place.with_password(password),
            None => place,
        }))
    }

    fn blobs(&self, environment: &Environment) -> Result<BlobPlace, ConfigError> {
        if self.blobs == "disk" {
            return match &self.endpoint {
                None => Ok(BlobPlace::Disk),
                Some(_) => refused("store.endpoint: means nothing while `blobs` is \"disk\""),
            };
        }
        let Some(place) = self.blobs.strip_prefix("s3://") else {
            return refused("store.blobs: must be \"disk\" or \"s3://bucket/prefix\"");
        };
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        if bucket.is_empty() {
            return refused("store.blobs: names no bucket");
        }
        if let Some(endpoint) = &self.endpoint
            && !endpoint.starts_with("https://")
            && !(self.allow_http && endpoint.starts_with("http://"))
        {
            return refused("store.endpoint: must begin with `https://`, or with `http://` where `allow_http` is true");
        }
        Ok(BlobPlace::Objects(Box::new(ObjectPlace {
            bucket: bucket.to_owned(),
            prefix: prefix.trim_matches('/').to_owned(),
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            allow_http: self.allow_http,
            credentials: self.credentials(environment)?,
        })))
    }

    fn credentials(&self, environment: &Environment) -> Result<Option<ObjectCredentials>, ConfigError> {
        let variable = |key: &str, name: &Option<String>, usual: &str| match name {
            Some(_) => named(key, name.as_ref(), environment),
            None => Ok(environment.get(usual)),
        };
        let id = variable("access_key_id_env", &self.access_key_id_env, "AWS_ACCESS_KEY_ID")?;
        let secret = variable("secret_access_key_env", &self.secret_access_key_env, "AWS_SECRET_ACCESS_KEY")?;
        let token = variable("token_env", &self.token_env, "AWS_SESSION_TOKEN")?;
        match (id, secret) {
            (Some(id), Some(secret)) => Ok(Some(ObjectCredentials {
                access_key_id: id.to_owned(),
                secret_access_key: secret.to_owned(),
                token: token.map(str::to_owned),
            })),
            (None, None) => Ok(None),
            (Some(_), None) => refused("store.secret_access_key_env: there is an access key without its secret"),
            (None, Some(_)) => refused("store.access_key_id_env: there is a secret without its access key"),
        }
    }
}

fn read(url: &str) -> Result<PostgresPlace, ConfigError> {
    PostgresPlace::parse(url).map_err(|error| ConfigError(format!("store.database: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file::ConfigFile;

    const VARIABLES: [(&str, &str); 5] = [
        ("URL", "postgres://ada:hidden-one@db.example:6432/belljar"),
        ("PASSWORD", "hidden-two"),
        ("ID", "AKIA"),
        ("SECRET", "hidden-three"),
        ("NO_URL", "mysql://ada@db/belljar"),
    ];

    fn resolved(text: &str) -> Result<String, String> {
        let file = ConfigFile::parse(&format!("[store]\n{text}")).map_err(|error| error.to_string())?;
        let choice = file.store.resolve(&Environment::of(&VARIABLES)).map_err(|error| error.to_string())?;
        let shown = format!("{choice:?}");
        assert!(!shown.contains("hidden"), "{shown}");
        let database = match &choice.database {
            Database::Sqlite => "sqlite".to_owned(),
            Database::Postgres(place) => format!("{place}, password {}", place.has_password()),
        };
        Ok(match &choice.blobs {
            BlobPlace::Disk => format!("{database}; disk"),
            BlobPlace::Objects(place) => format!("{database}; {place}, credentials {}", place.credentials.is_some()),
        })
    }

    #[test]
    fn places_are_read_and_secrets_never_shown() {
        let cases = [
            ("", "sqlite; disk"),
            ("database = \"sqlite\"\nblobs = \"disk\"", "sqlite; disk"),
            ("database = \"postgres://ada@db/belljar\"", "PostgreSQL at db:5432/belljar, password false; disk"),
            (
                "database = \"postgres://ada@db/belljar\"\ndatabase_password_env = \"PASSWORD\"",
                "PostgreSQL at db:5432/belljar, password true; disk",
            ),
            ("database_url_env = \"URL\"", "PostgreSQL at db.example:6432/belljar, password true; disk"),
            ("blobs = \"s3://bucket\"", "sqlite; s3://bucket/, credentials false"),
            (
                "blobs = \"s3://bucket/a/b/\"\nendpoint = \"https://s3.example\"\naccess_key_id_env = \"ID\"\n\
                 secret_access_key_env = \"SECRET\"",
                "sqlite; s3://bucket/a/b at https://s3.example, credentials true",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(resolved(text), Ok(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_or_would_show_a_secret_is_refused() {
        let cases = [
            ("database = \"postgres://ada:hidden@db/belljar\"", "store.database: has a password in it"),
            ("database = \"mysql\"", "store.database: must be"),
            ("database_url_env = \"NO_URL\"", "store.database: the database's address cannot be read"),
            ("database_url_env = \"GONE\"", "store.database_url_env: the environment variable `GONE` is not set"),
            ("database = \"sqlite\"\ndatabase_url_env = \"URL\"", "store: set `database` or"),
            ("database_password_env = \"PASSWORD\"", "store.database_password_env: SQLite has no password"),
            ("blobs = \"gs://bucket\"", "store.blobs: must be"),
            ("blobs = \"s3:///prefix\"", "store.blobs: names no bucket"),
            ("blobs = \"s3://b\"\nendpoint = \"http://s3\"", "store.endpoint: must begin with `https://`"),
            ("endpoint = \"https://s3\"", "store.endpoint: means nothing"),
            ("blobs = \"s3://b\"\naccess_key_id_env = \"ID\"", "store.secret_access_key_env: there is"),
            ("blob = \"disk\"", "unknown key `store.blob`; did you mean `blobs`?"),
        ];
        for (text, expected) in cases {
            let said = resolved(text).expect_err(text);
            assert!(said.starts_with(expected), "{text}: {said}");
            assert!(!said.contains("hidden"), "{said}");
        }
    }
}
