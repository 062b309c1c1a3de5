//! The files a rule looks at, read once.

use std::path::Path;
use std::process::Command;

use super::mask;

/// One file of the repository.
pub struct File {
    /// Relative to the root, with `/`.
    pub path: String,
    /// As it is on disk. Empty for what is not UTF-8.
    pub text: String,
    /// Rust only: comments and literals blanked, same length in lines.
    pub code: String,
    /// Rust only: `code` without its `#[cfg(test)]` modules.
    pub product: String,
}

impl File {
    fn new(path: &str, text: String) -> File {
        let rust = path.ends_with(".rs");
        let code = if rust {
            mask::literals(&text)
        } else {
            String::new()
        };
        let product = if rust {
            mask::test_modules(&code)
        } else {
            String::new()
        };
        File {
            path: path.to_owned(),
            text,
            code,
            product,
        }
    }

    /// Whether it is Rust that only tests, benchmarks or examples build.
    pub fn is_test_code(&self) -> bool {
        let within = |part: &str| self.path.split('/').any(|piece| piece == part);
        within("tests")
            || within("benches")
            || within("examples")
            || self.path.ends_with("/tests.rs")
    }
}

/// All files, and what cargo says of the crates.
pub struct Tree {
    /// Tracked, and untracked but not ignored.
    pub files: Vec<File>,
    /// `cargo metadata --no-deps`.
    pub metadata: serde_json::Value,
}

impl Tree {
    /// Reads the repository at `root`.
    pub fn load(root: &Path) -> Result<Tree, String> {
        let listed = answer(Command::new("git").current_dir(root).args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ]))?;
        let files = listed
            .split('\0')
            .filter(|path| !path.is_empty() && root.join(path).is_file())
            .map(|path| {
                let bytes =
                    std::fs::read(root.join(path)).map_err(|error| format!("{path}: {error}"))?;
                Ok(File::new(
                    path,
                    String::from_utf8(bytes).unwrap_or_default(),
                ))
            })
            .collect::<Result<Vec<_>, String>>()?;
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let metadata = answer(Command::new(cargo).current_dir(root).args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ]))?;
        let metadata =
            serde_json::from_str(&metadata).map_err(|error| format!("cargo metadata: {error}"))?;
        Ok(Tree { files, metadata })
    }

    /// A tree for the tests of the rules.
    #[cfg(test)]
    pub fn sample(files: &[(&str, &str)]) -> Tree {
        Tree {
            files: files
                .iter()
                .map(|(path, text)| File::new(path, (*text).to_owned()))
                .collect(),
            metadata: serde_json::json!({ "packages": [] }),
        }
    }

    /// Rust files.
    pub fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.path.ends_with(".rs"))
    }

    /// Rust files that go into the product: no tests, benchmarks, build scripts or xtask.
    pub fn product(&self) -> impl Iterator<Item = &File> {
        self.rust().filter(|file| {
            !file.is_test_code()
                && !file.path.starts_with("xtask/")
                && !file.path.ends_with("build.rs")
        })
    }

    /// Whether there is such a file or directory.
    pub fn has(&self, path: &str) -> bool {
        let dir = format!("{}/", path.trim_end_matches('/'));
        self.files
            .iter()
            .any(|file| file.path == path || file.path.starts_with(&dir))
    }
}

fn answer(command: &mut Command) -> Result<String, String> {
    let shown = format!("{command:?}");
    let output = command
        .output()
        .map_err(|error| format!("cannot start {shown}: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "{shown} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    String::from_utf8(output.stdout).map_err(|error| format!("{shown} answered no text: {error}"))
}
