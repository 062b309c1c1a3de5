//! The architecture's rules as tests. Each rule is one function from the tree to its findings, with a test on a bad sample.

mod crates;
mod docs;
mod effects;
mod leftovers;
mod mask;
mod quirks;
mod seen;
mod size;
mod tree;
mod turn_arms;
mod words;

use std::path::Path;

use crate::counts::Counts;
use tree::Tree;

/// One place that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// `path` or `path:line`.
    place: String,
    /// What is wrong, and what to do instead.
    what: String,
}

impl Finding {
    fn at(path: &str, line: usize, what: impl Into<String>) -> Finding {
        Finding { place: format!("{path}:{line}"), what: what.into() }
    }

    fn file(path: &str, what: impl Into<String>) -> Finding {
        Finding { place: path.to_owned(), what: what.into() }
    }
}

type Rule = (&'static str, fn(&Tree) -> Vec<Finding>);

const RULES: &[Rule] = &[
    ("crates depend only downwards", crates::dependencies),
    ("pure crates touch nothing outside", effects::pure_crates),
    ("each organ keeps to its own runtime", effects::foreign_words),
    ("unsafe only in the jail and the guest", effects::unsafe_place),
    ("every unsafe block has its argument", effects::unsafe_argued),
    ("the clock is read in listed files", effects::clock),
    ("the environment is read in the configuration", effects::environment),
    ("files are at most 600 lines", size::files),
    ("functions are at most 70 lines", size::functions),
    ("every Rust file says its job", size::heads),
    ("no utils, no common", words::module_names),
    ("no banned words in names", words::banned),
    ("nothing is left undone", leftovers::leftovers),
    ("no catch-all arm in the turn", turn_arms::catch_all),
    ("divergence pages have their headings", docs::divergence),
    ("divergence pages name checks that exist", seen::pages),
    ("divergence cases name pages that exist", seen::table),
    ("quirks name cases that exist, and every case", quirks::table),
    ("links to local files resolve", docs::links),
    ("no machine paths", docs::machine_paths),
];

/// Checks every rule against the files that git knows or would add.
pub fn run(root: &Path) -> Result<Counts, String> {
    let tree = Tree::load(root)?;
    let mut counts = Counts::default();
    for (name, check) in RULES {
        let findings = check(&tree);
        if findings.is_empty() {
            counts.passed += 1;
            println!("ok      {name}");
            continue;
        }
        counts.failed += 1;
        println!("FAILED  {name}");
        for finding in findings {
            println!("        {}: {}", finding.place, finding.what);
        }
    }
    Ok(counts)
}
