//! Which Debian mirror to use: what the host's own apt uses, if that is a Debian archive.

use std::fs;
use std::path::{Path, PathBuf};

/// The archive when the host does not say.
const ARCHIVE: &str = "http://deb.debian.org/debian";
/// Security updates when the host does not say.
const SECURITY: &str = "http://deb.debian.org/debian-security";
/// The keys of Debian's archive, on the host.
pub(crate) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Where packages come from. Signatures are checked whatever the transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mirrors {
    archive: String,
    security: String,
}

impl Mirrors {
    /// From the configuration of the host's apt below `etc_apt`; unreadable or foreign entries are passed over.
    pub(crate) fn of_host(etc_apt: &Path) -> Self {
        let mut files = vec![etc_apt.join("sources.list")];
        let mut parts: Vec<PathBuf> = match fs::read_dir(etc_apt.join("sources.list.d")) {
            Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
            Err(_) => Vec::new(),
        };
        parts.sort();
        files.extend(parts);
        let texts = files.iter().filter_map(|path| fs::read_to_string(path).ok());
        Self::of_uris(texts.flat_map(|text| uris(&text)))
    }

    /// With one archive given by the operator; security updates come from the usual place.
    pub(crate) fn given(archive: &str) -> Self {
        Self { archive: archive.into(), security: SECURITY.into() }
    }

    fn of_uris(uris: impl Iterator<Item = String>) -> Self {
        let (mut archive, mut security) = (None, None);
        for uri in uris {
            let uri = uri.trim_end_matches('/');
            if !(uri.starts_with("http://") || uri.starts_with("https://")) {
                continue;
            }
            // Third parties' repositories do not end like this.
            match uri.rsplit('/').next() {
                Some("debian") => archive.get_or_insert_with(|| uri.to_owned()),
                Some("debian-security") => security.get_or_insert_with(|| uri.to_owned()),
                _ => continue,
            };
        }
        Self {
            archive: archive.unwrap_or_else(|| ARCHIVE.into()),
            security: security.unwrap_or_else(|| SECURITY.into()),
        }
    }

    /// A sources.list for `suite`.
    pub(crate) fn sources(&self, suite: &str) -> String {
        let Self { archive, security } = self;
        format!(
            "deb [signed-by={KEYRING}] {archive} {suite} main\n\
             deb [signed-by={KEYRING}] {archive} {suite}-updates main\n\
             deb [signed-by={KEYRING}] {security} {suite}-security main\n"
        )
    }
}

/// The addresses in a file of either of apt's two formats (sources.list(5)) that have a component `main`: third parties'
/// repositories often end in `/debian` too, but name their components otherwise.
fn uris(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("deb ").map(str::trim_start) else {
            continue;
        };
        let rest = if rest.starts_with('[') { rest.split_once(']').map_or("", |(_, rest)| rest) } else { rest };
        let words: Vec<&str> = rest.split_whitespace().collect();
        if let [uri, _suite, components @ ..] = words.as_slice()
            && components.contains(&"main")
        {
            found.push((*uri).to_owned());
        }
    }
    for stanza in text.split("\n\n") {
        let words = |field: &str| -> Vec<&str> {
            stanza
                .lines()
                .find_map(|line| line.strip_prefix(field))
                .map(|rest| rest.split_whitespace().collect())
                .unwrap_or_default()
        };
        if words("Components:").contains(&"main") && words("Types:").contains(&"deb") {
            found.extend(words("URIs:").into_iter().map(str::to_owned));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_configurations() {
        let usual = ("http://deb.debian.org/debian", "http://deb.debian.org/debian-security");
        let cases = [
            ("", usual),
            ("deb http://mirror.example/debian bookworm main\n", ("http://mirror.example/debian", usual.1)),
            (
                "deb [arch=amd64 signed-by=/x] https://m.example/debian/ bookworm main contrib\n\
                 deb https://s.example/debian-security bookworm-security main",
                ("https://m.example/debian", "https://s.example/debian-security"),
            ),
            (
                "Types: deb\nURIs: http://a.example/debian http://b.example/debian\nSuites: trixie\nComponents: main\n",
                ("http://a.example/debian", usual.1),
            ),
            ("# deb http://commented.example/debian x main\ndeb-src http://src.example/debian x main\n", usual),
            ("deb http://archive.ubuntu.com/ubuntu noble main\n", usual),
            ("deb https://third.example/linux/debian bookworm stable\n", usual),
            ("deb cdrom:[Debian]/debian bookworm main\ndeb file:/srv/debian x main\n", usual),
        ];
        for (text, (archive, security)) in cases {
            let found = Mirrors::of_uris(uris(text).into_iter());
            assert_eq!(found, Mirrors { archive: archive.into(), security: security.into() }, "{text}");
        }
    }
}
