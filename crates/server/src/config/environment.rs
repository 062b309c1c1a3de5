//! The only place that reads the environment. Every variable that matters is in [`VARIABLES`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Every environment variable that Belljar reads, with its meaning.
pub const VARIABLES: [(&str, &str); 14] = [
    ("BELLJAR_CONFIG", "path of the configuration file, when `--config` is not given"),
    ("BELLJAR_CACHE_DIR", "where images are kept"),
    ("BELLJAR_LOG", "what is logged, in `tracing` filter syntax; default `info`"),
    ("BELLJAR_LOG_FORMAT", "`text` (default) or `json`"),
    ("BELLJAR_HANDOVER", "set by a server for itself alone, when it restarts in place"),
    ("PATH", "where `runsc` is looked for, when `sandbox.runsc` does not say"),
    ("HTTPS_PROXY", "proxy towards `anthropic` upstreams, and towards `openai` upstreams whose `base_url` is `https`"),
    (
        "AWS_ACCESS_KEY_ID",
        "signs requests of `via = \"bedrock\"`, and to the object store where `store.access_key_id_env` names no other",
    ),
    ("AWS_SECRET_ACCESS_KEY", "its secret; never sent"),
    ("AWS_SESSION_TOKEN", "goes with them where they are temporary"),
    ("AWS_BEARER_TOKEN_BEDROCK", "a Bedrock API key, in place of a signature"),
    ("GOOGLE_APPLICATION_CREDENTIALS", "file of a service account's key, for `via = \"vertex\"`"),
    ("XDG_DATA_HOME", "where user data goes"),
    ("XDG_CACHE_HOME", "where caches go"),
];

/// A snapshot of the environment, taken once at start.
#[derive(Debug, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    root: bool,
}

impl Environment {
    /// Takes the snapshot.
    pub fn snapshot() -> Self {
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self { variables: variables.collect(), root: rustix::process::geteuid().is_root() }
    }

    /// An environment of these variables.
    #[cfg(test)]
    pub fn of(variables: &[(&str, &str)]) -> Self {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { variables, root: false }
    }

    /// A variable's value; empty counts as unset.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// `BELLJAR_CONFIG`.
    pub fn config_file(&self) -> Option<PathBuf> {
        self.get("BELLJAR_CONFIG").map(PathBuf::from)
    }

    /// `$XDG_DATA_HOME/belljar`, `/var/lib/belljar` for root, else `~/.local/share/belljar`.
    pub fn default_data_dir(&self) -> PathBuf {
        self.directory("XDG_DATA_HOME", "/var/lib", ".local/share")
    }

    /// `BELLJAR_CACHE_DIR`, `$XDG_CACHE_HOME/belljar`, `/var/cache/belljar` for root without a home, else `~/.cache/belljar`.
    pub fn cache_dir(&self) -> PathBuf {
        if let Some(path) = self.get("BELLJAR_CACHE_DIR") {
            return PathBuf::from(path);
        }
        match (self.get("XDG_CACHE_HOME"), self.get("HOME")) {
            (Some(cache), _) => Path::new(cache).join("belljar"),
            (None, Some(home)) => Path::new(home).join(".cache/belljar"),
            (None, None) => PathBuf::from("/var/cache/belljar"),
        }
    }

    fn directory(&self, variable: &str, system: &str, under_home: &str) -> PathBuf {
        let base = match (self.get(variable), self.get("HOME")) {
            (Some(base), _) => PathBuf::from(base),
            (None, Some(home)) if !self.root => Path::new(home).join(under_home),
            _ => PathBuf::from(system),
        };
        base.join("belljar")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(root: bool, variables: &[(&str, &str)]) -> Environment {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Environment { variables, root }
    }

    #[test]
    fn data_goes_where_the_user_keeps_data() {
        let ada = ("HOME", "/home/ada");
        let cases = [
            (environment(true, &[("HOME", "/root")]), "/var/lib/belljar"),
            (environment(false, &[ada]), "/home/ada/.local/share/belljar"),
            (environment(false, &[ada, ("XDG_DATA_HOME", "/data")]), "/data/belljar"),
            (environment(false, &[]), "/var/lib/belljar"),
        ];
        for (environment, expected) in cases {
            assert_eq!(environment.default_data_dir(), Path::new(expected), "{environment:?}");
        }
    }

    #[test]
    fn an_empty_variable_is_an_unset_one() {
        assert_eq!(environment(true, &[("BELLJAR_CONFIG", "")]).config_file(), None);
    }
}
