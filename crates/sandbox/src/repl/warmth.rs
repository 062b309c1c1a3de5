//! Which zygote a cell wants its REPL from.

/// Which libraries are in a REPL's memory before its first cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Warmth {
    /// numpy, pandas and matplotlib.
    Core,
    /// All that the image has and that takes long to import.
    All,
}

/// Packages that only [`Warmth::All`] has. A missing one costs its users the import, and nobody anything else.
const ONLY_IN_ALL: &[&str] = &["PIL", "openpyxl", "pyarrow", "scipy", "seaborn", "sklearn", "statsmodels", "sympy"];

/// How much of a source is looked at: imports stand at the top, and the look costs the host time.
const LOOKED_AT_BYTES_MAX: usize = 64 * 1024;

impl Warmth {
    /// What a source seems to want, by its lines that begin with an import. Only ever a matter of speed: the text may say
    /// what it likes.
    pub fn wanted(source: &str) -> Self {
        let end = source.floor_char_boundary(LOOKED_AT_BYTES_MAX.min(source.len()));
        let wants_all = source[..end].lines().flat_map(imported).any(|package| ONLY_IN_ALL.contains(&package));
        if wants_all { Self::All } else { Self::Core }
    }
}

/// The top-level packages that a line imports.
fn imported(line: &str) -> impl Iterator<Item = &str> {
    let line = line.trim_start();
    let names = line.strip_prefix("import ").or_else(|| line.strip_prefix("from ").and_then(first_word));
    names.unwrap_or_default().split(',').filter_map(|name| name.trim_start().split([' ', '.', ';', '\t']).next())
}

fn first_word(text: &str) -> Option<&str> {
    text.split_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_are_seen_where_they_stand() {
        let cases = [
            ("", Warmth::Core),
            ("print(2+2)", Warmth::Core),
            ("import numpy as np\nimport pandas", Warmth::Core),
            ("import scipy", Warmth::All),
            ("import os, scipy.stats as s", Warmth::All),
            ("try:\n    from sklearn.svm import SVC\nexcept ImportError: pass", Warmth::All),
            ("from PIL import Image", Warmth::All),
            ("import sympy; x = 1", Warmth::All),
            ("# import scipy", Warmth::Core),
            ("import scipyx", Warmth::Core),
            ("from . import scipy", Warmth::Core),
            ("important scipy", Warmth::Core),
            ("from", Warmth::Core),
            ("from ", Warmth::Core),
            ("import ,,,", Warmth::Core),
        ];
        for (source, warmth) in cases {
            assert_eq!(Warmth::wanted(source), warmth, "{source:?}");
        }
    }

    #[test]
    fn only_the_top_is_looked_at_whatever_characters_it_ends_in() {
        let long = format!("{}\nimport scipy", "é".repeat(LOOKED_AT_BYTES_MAX));
        assert_eq!(Warmth::wanted(&long), Warmth::Core);
        let odd = format!("x{}", "é".repeat(LOOKED_AT_BYTES_MAX));
        assert_eq!(Warmth::wanted(&odd), Warmth::Core);
    }
}
