//! What the built image is made from: lists and scripts compiled into the program, and their digest.

use std::collections::BTreeMap;

use crate::OWNER_BASE;
use crate::digest::{Digest, PartsDigest};
use crate::pack::{BUILD_EPOCH_S, MKFS_OPTIONS};

/// Raised when the code of the build changes what comes out.
const BUILDER_VERSION: u32 = 1;

/// The Debian release.
pub(crate) const SUITE: &str = "trixie";
/// The CPython of that release.
pub(crate) const PYTHON: &str = "3.13";

pub(crate) const PYTHON_LOCK: &str = include_str!("../lock/python.txt");
pub(crate) const DEBIAN_LIST: &str = include_str!("../lock/debian.txt");
pub(crate) const DPKG_OPTIONS: &str = include_str!("../recipe/dpkg.txt");
pub(crate) const ENTER: &str = include_str!("../recipe/enter.sh");
pub(crate) const SETUP: &str = include_str!("../recipe/setup.sh");

/// Digest of what the Debian phase is made from.
pub(crate) fn debian_digest() -> Digest {
    let parts = PartsDigest::default().part("builder", &BUILDER_VERSION.to_le_bytes()).part("suite", SUITE.as_bytes());
    parts.part("debian list", DEBIAN_LIST.as_bytes()).part("dpkg options", DPKG_OPTIONS.as_bytes()).finish()
}

/// Digest of everything a build is made from, but for the state of Debian's archive on its day and the versions of
/// the host's tools.
pub(crate) fn recipe_digest() -> Digest {
    let mut parts = PartsDigest::default().part("builder", &BUILDER_VERSION.to_le_bytes());
    for (name, content) in [
        ("suite", SUITE),
        ("python", PYTHON),
        ("python lock", PYTHON_LOCK),
        ("debian list", DEBIAN_LIST),
        ("dpkg options", DPKG_OPTIONS),
        ("enter", ENTER),
        ("setup", SETUP),
    ] {
        parts = parts.part(name, content.as_bytes());
    }
    for option in MKFS_OPTIONS {
        parts = parts.part("mkfs option", option.as_bytes());
    }
    parts.part("owner base", &OWNER_BASE.to_le_bytes()).part("epoch", &BUILD_EPOCH_S.to_le_bytes()).finish()
}

/// Lines of a list of ours, without comments and blank lines.
pub(crate) fn lines_of(list: &str) -> impl Iterator<Item = &str> {
    list.lines().map(|line| line.split('#').next().unwrap_or_default().trim()).filter(|line| !line.is_empty())
}

/// One locked wheel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pin {
    pub(crate) name: String,
    pub(crate) version: String,
}

/// A line of the lock file that does not say what it must.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the Python lock file: {problem}")]
pub(crate) struct BadLock {
    pub(crate) line: usize,
    pub(crate) problem: &'static str,
}

/// Reads a lock file in pip's `--require-hashes` format, narrowed to what `scripts/lock-python` writes: each package
/// once, `name==version`, exactly one SHA-256.
pub(crate) fn parse_lock(text: &str) -> Result<BTreeMap<Digest, Pin>, BadLock> {
    let mut pins = BTreeMap::new();
    let mut names = std::collections::BTreeSet::new();
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    while let Some((index, line)) = lines.next() {
        let bad = |problem| BadLock { line: index + 1, problem };
        let spec = line.strip_suffix(" \\").ok_or(bad("no continuation after the version"))?;
        let (name, version) = spec.split_once("==").ok_or(bad("not name==version"))?;
        let plain =
            |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-+!".contains(&b)) && !text.is_empty();
        if !plain(name) || !plain(version) {
            return Err(bad("a name or version with strange characters"));
        }
        let (_, hash) = lines.next().ok_or(bad("no hash"))?;
        let hash = hash.strip_prefix("    --hash=").ok_or(bad("no hash"))?;
        let digest = hash.strip_prefix("sha256:").and_then(|hex| hex.parse().ok()).ok_or(bad("not one sha256 hash"))?;
        if !names.insert(name.to_ascii_lowercase()) {
            return Err(bad("the package is there twice"));
        }
        if pins.insert(digest, Pin { name: name.into(), version: version.into() }).is_some() {
            return Err(bad("the hash is there twice"));
        }
    }
    Ok(pins)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "a9";
    const B: &str = "b0";

    fn hash(digits: &str) -> String {
        format!("    --hash=sha256:{}", digits.repeat(32))
    }

    #[test]
    fn our_lock_has_every_package_of_the_specification() {
        let pins = parse_lock(PYTHON_LOCK).expect("our lock is good");
        let names: Vec<&str> = pins.values().map(|pin| pin.name.as_str()).collect();
        // wire.md §7.4; python-dateutil and the like under their package names.
        for wanted in [
            "pandas",
            "numpy",
            "scipy",
            "scikit-learn",
            "statsmodels",
            "matplotlib",
            "seaborn",
            "pyarrow",
            "openpyxl",
            "xlsxwriter",
            "xlrd",
            "pillow",
            "python-pptx",
            "python-docx",
            "pypdf",
            "pdfplumber",
            "pypdfium2",
            "pdf2image",
            "pdfkit",
            "tabula-py",
            "reportlab",
            "rlpycairo",
            "img2pdf",
            "sympy",
            "mpmath",
            "tqdm",
            "python-dateutil",
            "pytz",
            "joblib",
            "pip",
        ] {
            assert!(names.contains(&wanted), "{wanted} is not locked");
        }
        assert_eq!(pins.len(), PYTHON_LOCK.matches("--hash=").count());
    }

    #[test]
    fn good_lock() {
        let text = format!("# comment\nnumpy==2.4.6 \\\n{}\n\nx-y==1!2+3 \\\n{}\n", hash(A), hash(B));
        let pins = parse_lock(&text).expect("good");
        let found: Vec<(&str, &str)> = pins.values().map(|p| (p.name.as_str(), p.version.as_str())).collect();
        assert_eq!(found, [("numpy", "2.4.6"), ("x-y", "1!2+3")]);
    }

    #[test]
    fn bad_locks() {
        let cases = [
            (format!("numpy==1\n{}\n", hash(A)), 1, "no continuation after the version"),
            (format!("numpy>=1 \\\n{}\n", hash(A)), 1, "not name==version"),
            (format!("nu mpy==1 \\\n{}\n", hash(A)), 1, "a name or version with strange characters"),
            (format!("numpy== \\\n{}\n", hash(A)), 1, "a name or version with strange characters"),
            (format!("-r==x \\\nnumpy==1 \\\n{}\n", hash(A)), 1, "no hash"),
            ("numpy==1 \\\n".into(), 1, "no hash"),
            ("numpy==1 \\\n    --hash=sha256:00\n".into(), 1, "not one sha256 hash"),
            ("numpy==1 \\\n    --hash=md5:00\n".into(), 1, "not one sha256 hash"),
            (format!("numpy==1 \\\n{} \\\n{}\n", hash(A), hash(B)), 1, "not one sha256 hash"),
            (format!("a==1 \\\n{}\nA==2 \\\n{}\n", hash(A), hash(B)), 3, "the package is there twice"),
            (format!("a==1 \\\n{}\nb==2 \\\n{}\n", hash(A), hash(A)), 3, "the hash is there twice"),
        ];
        for (text, line, problem) in cases {
            assert_eq!(parse_lock(&text), Err(BadLock { line, problem }), "{text}");
        }
    }

    #[test]
    fn lists_have_comments_and_no_duplicates() {
        let packages: Vec<&str> = lines_of(DEBIAN_LIST).collect();
        let mut unique = packages.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), packages.len());
        assert!(packages.iter().all(|name| { name.bytes().all(|b| b.is_ascii_alphanumeric() || b"+.-".contains(&b)) }));
        let reasons = DEBIAN_LIST.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        assert!(reasons.clone().all(|line| line.contains('#')), "every package has its reason");
        assert!(lines_of(DPKG_OPTIONS).all(|line| line.starts_with("path-")));
    }

    #[test]
    fn recipe_digest_is_stable_within_a_build_of_the_program() {
        assert_eq!(recipe_digest(), recipe_digest());
    }
}
