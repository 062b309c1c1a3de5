//! What there is to try, item by item, and the cases that try it.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::attack::case::Case;
use crate::exit::Exit;

/// Everything that an attacker is known to try; what does not apply says why.
const ITEMS: &str = include_str!("catalogue.json");

/// The cases, by section.
const CASES: &[&str] = &[
    include_str!("cases/a_files.json"),
    include_str!("cases/b_kernel.json"),
    include_str!("cases/c_processes.json"),
    include_str!("cases/c_calls.json"),
    include_str!("cases/d_exhaustion.json"),
    include_str!("cases/d_outputs.json"),
    include_str!("cases/e_network.json"),
    include_str!("cases/j_start.json"),
];

/// Titles of the sections.
pub const SECTIONS: &[(&str, &str)] = &[
    ("A", "host files and runtime"),
    ("B", "kernel surface"),
    ("C", "other processes"),
    ("D", "resource exhaustion"),
    ("E", "network"),
    ("J", "fail-closed start"),
];

/// Something to try.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// `A.mknod`: the section, and a word.
    pub name: String,
    /// In people's words.
    pub text: String,
    /// Why no case tries it here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_applicable: Option<String>,
}

/// Items and cases.
#[derive(Clone, Debug)]
pub struct Catalogue {
    /// What there is to try.
    pub items: Vec<Item>,
    /// What tries it.
    pub cases: Vec<Case>,
}

impl Catalogue {
    /// The built-in cases; with `own`, the cases of that file instead.
    ///
    /// # Errors
    /// [`Exit::usage`] for a file that cannot be read or is no list of cases.
    pub fn load(own: Option<&Path>) -> Result<Self, Exit> {
        let items = serde_json::from_str(ITEMS).map_err(|error| Exit::failed(format!("catalogue.json: {error}")))?;
        let cases = match own {
            Some(path) => {
                let refused = |error: &dyn std::fmt::Display| Exit::usage(format!("{}: {error}", path.display()));
                let text = std::fs::read_to_string(path).map_err(|error| refused(&error))?;
                serde_json::from_str(&text).map_err(|error| refused(&error))?
            }
            None => built_in()?,
        };
        Ok(Self { items, cases })
    }

    /// Keeps the cases whose name contains `only`.
    ///
    /// # Errors
    /// [`Exit::usage`] when none is left.
    pub fn only(mut self, only: &str) -> Result<Self, Exit> {
        self.cases.retain(|case| case.name.contains(only));
        match self.cases.is_empty() {
            true => Err(Exit::usage(format!("no case has {only:?} in its name; `belljar attack --list` has them all"))),
            false => Ok(self),
        }
    }

    /// What a case tries, in people's words.
    pub fn tried(&self, case: &Case) -> String {
        let tried = self.items.iter().filter(|item| case.items.contains(&item.name));
        tried.map(|item| item.text.as_str()).collect::<Vec<_>>().join("; ")
    }

    /// Items without a case, each with the reason.
    pub fn not_applicable(&self) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(|item| item.not_applicable.is_some())
    }
}

fn built_in() -> Result<Vec<Case>, Exit> {
    let mut all = Vec::new();
    for text in CASES {
        let cases: Vec<Case> = serde_json::from_str(text).map_err(|error| Exit::failed(format!("cases: {error}")))?;
        all.extend(cases);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::attack::case::Need;

    fn catalogue() -> Catalogue {
        Catalogue::load(None).expect("the built-in cases parse")
    }

    #[test]
    fn every_item_has_a_case_or_a_reason() {
        let catalogue = catalogue();
        let tried: HashSet<&String> = catalogue.cases.iter().flat_map(|case| &case.items).collect();
        for item in &catalogue.items {
            assert_eq!(tried.contains(&item.name), item.not_applicable.is_none(), "{}", item.name);
            assert!(item.not_applicable.as_ref().is_none_or(|why| why.len() > 20), "{}", item.name);
        }
        let names: HashSet<&String> = catalogue.items.iter().map(|item| &item.name).collect();
        assert_eq!(names.len(), catalogue.items.len(), "an item stands twice");
        for name in tried {
            assert!(names.contains(name), "{name} is not in the catalogue");
        }
    }

    #[test]
    fn every_case_can_be_run_and_named() {
        let catalogue = catalogue();
        let mut names = HashSet::new();
        for case in &catalogue.cases {
            assert!(names.insert(&case.name), "two cases are named {:?}", case.name);
            assert!(!case.items.is_empty(), "{:?} tries nothing", case.name);
            assert!(SECTIONS.iter().any(|(section, _)| *section == case.section()), "{:?}", case.name);
            assert_ne!(case.steps.is_empty(), case.start.is_none(), "{:?}: steps or a start", case.name);
            let needs_root = case.start.as_ref().is_some_and(|start| start.before.is_some());
            assert!(!needs_root || case.needs.contains(&Need::Root), "{:?} mounts", case.name);
        }
    }

    #[test]
    fn an_unknown_name_is_a_usage_error() {
        assert_eq!(catalogue().only("no such case").expect_err("none").code(), crate::exit::USAGE);
        assert!(Catalogue::load(Some(Path::new("/nonexistent"))).is_err());
    }
}
