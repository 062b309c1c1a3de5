//! Which crate may depend on which: the rooms of ARCHITECTURE.md as a table.

use serde_json::Value;

use super::Finding;
use super::tree::Tree;

struct Room {
    name: &'static str,
    /// Our own crates it may use.
    ours: &'static [&'static str],
    /// Other people's crates it must not use.
    never: &'static [&'static str],
}

/// No runtime, no IO, no clock, no randomness.
const PURE: &[&str] = &[
    "tokio",
    "tokio-util",
    "futures-util",
    "async-stream",
    "reqwest",
    "axum",
    "hyper",
    "http",
    "rusqlite",
    "rustix",
    "nix",
    "libc",
    "getrandom",
    "rand",
    "jiff",
    "tempfile",
];
const NO_HTTP_NO_SQL: &[&str] = &["axum", "http", "hyper", "hyper-util", "reqwest", "tower", "rusqlite"];

const ROOMS: &[Room] = &[
    Room { name: "belljar-ids", ours: &[], never: PURE },
    Room { name: "belljar-wire", ours: &["belljar-ids"], never: PURE },
    Room { name: "belljar-turn", ours: &["belljar-ids", "belljar-wire"], never: PURE },
    Room { name: "belljar-guard", ours: &["belljar-ids", "belljar-wire"], never: PURE },
    Room { name: "belljar-model", ours: &["belljar-ids", "belljar-wire"], never: &["axum", "hyper", "rusqlite"] },
    Room {
        name: "belljar-jail",
        ours: &[],
        never: &["tokio", "tokio-util", "futures-util", "axum", "reqwest", "rusqlite"],
    },
    Room { name: "belljar-sandbox", ours: &["belljar-ids", "belljar-jail"], never: NO_HTTP_NO_SQL },
    Room { name: "belljar-image", ours: &["belljar-ids"], never: NO_HTTP_NO_SQL },
    Room {
        name: "belljar-store",
        ours: &["belljar-ids"],
        // reqwest is a row of its table only, for a feature that object_store needs; its code may not use it (`effects`).
        never: &["axum", "http", "hyper", "hyper-util", "tower"],
    },
    Room {
        name: "belljar-server",
        ours: &[
            "belljar-ids",
            "belljar-wire",
            "belljar-turn",
            "belljar-model",
            "belljar-guard",
            "belljar-sandbox",
            "belljar-image",
            "belljar-store",
        ],
        never: &["rusqlite"],
    },
    Room { name: "belljar-join", ours: &["belljar-jail"], never: &["tokio", "axum", "reqwest", "rusqlite", "nix"] },
    Room { name: "belljar-guest", ours: &["belljar-jail"], never: &["tokio", "axum", "reqwest", "rusqlite"] },
];

/// Every arrow points downwards, and every crate has a row.
pub fn dependencies(tree: &Tree) -> Vec<Finding> {
    let packages = tree.metadata["packages"].as_array().map_or(&[][..], Vec::as_slice);
    packages.iter().filter(|package| package["name"] != "xtask").flat_map(package_findings).collect()
}

fn package_findings(package: &Value) -> Vec<Finding> {
    let name = package["name"].as_str().unwrap_or_default();
    let Some(room) = ROOMS.iter().find(|room| room.name == name) else {
        let what = "a new crate needs an ADR in docs/adr and a row in xtask/src/tidy/crates.rs";
        return vec![Finding::file(name, what)];
    };
    package["dependencies"]
        .as_array()
        .map_or(&[][..], Vec::as_slice)
        .iter()
        // Tests may use what they like; the product may not.
        .filter(|dependency| dependency["kind"] != "dev")
        .filter_map(|dependency| dependency["name"].as_str())
        .filter_map(|used| refused(room, used))
        .collect()
}

fn refused(room: &Room, used: &str) -> Option<Finding> {
    let ours = used.starts_with("belljar-");
    if ours && !room.ours.contains(&used) {
        return Some(Finding::file(
            room.name,
            format!("must not depend on {used}: only `server` introduces the organs to each other"),
        ));
    }
    if room.never.contains(&used) {
        return Some(Finding::file(room.name, format!("must not depend on {used}")));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, dependency: &str, kind: Value) -> Vec<String> {
        let mut tree = Tree::sample(&[]);
        tree.metadata = serde_json::json!({ "packages": [
            { "name": name, "dependencies": [ { "name": dependency, "kind": kind } ] }
        ] });
        dependencies(&tree).into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn organs_must_not_know_each_other() {
        let what = "must not depend on belljar-store: only `server` introduces the organs to each other";
        assert_eq!(found("belljar-sandbox", "belljar-store", Value::Null), [what]);
    }

    #[test]
    fn pure_crates_must_not_have_a_runtime() {
        assert_eq!(found("belljar-turn", "tokio", Value::Null), ["must not depend on tokio"]);
    }

    #[test]
    fn only_the_store_has_sql() {
        assert_eq!(found("belljar-server", "rusqlite", Value::Null), ["must not depend on rusqlite"]);
        assert_eq!(found("belljar-store", "rusqlite", Value::Null), Vec::<String>::new());
    }

    #[test]
    fn tests_may_use_more() {
        assert_eq!(found("belljar-turn", "tokio", "dev".into()), Vec::<String>::new());
    }

    #[test]
    fn an_unknown_crate_needs_a_row() {
        assert_eq!(found("belljar-extra", "serde", Value::Null).len(), 1);
    }
}
