//! Which differences are meant: `kinds.json` says which there are, each with its page in `divergence/`; `recordings.json` and
//! `fixtures.json` say which of them an exchange shows, no more and no less.

use std::collections::BTreeSet;

use belljar_wire::difference::{Difference, Side};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::play::Outcome;

/// A deliberate difference, wherever it is met.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kind {
    pub kind: String,
    /// A file in `divergence/`.
    pub page: String,
    /// Ends of places, without indices: `content[].caller`.
    #[serde(default)]
    at: Vec<String>,
    #[serde(default, deserialize_with = "with_null")]
    recorded: Option<Value>,
    #[serde(default, deserialize_with = "with_null")]
    ours: Option<Value>,
    /// Texts of which one stands in the message with which this server refuses what was accepted.
    #[serde(default)]
    refused: Vec<String>,
}

/// What an exchange of a known recording shows.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listed {
    pub recording: String,
    pub exchange: usize,
    /// Kinds of differences.
    #[serde(default)]
    pub shows: BTreeSet<String>,
    /// Why it is not played.
    #[serde(default)]
    pub not_played: Option<String>,
}

/// What became of an exchange, judged.
pub struct Verdict {
    pub played: bool,
    pub equal: bool,
    /// Kinds that were met.
    pub kinds: BTreeSet<String>,
    /// Why it was not played.
    pub not_played: Option<String>,
    /// What nobody has listed.
    pub faults: Vec<String>,
}

/// A `null` that stands in the file is one that stands on the wire.
fn with_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Stands for nothing at all, for anything, and for a text that begins with ours.
const ABSENT: &str = "(absent)";
const ANY: &str = "(any)";
const OURS_AND_MORE: &str = "(ours)-…";

impl Kind {
    fn explains(&self, difference: &Difference) -> bool {
        let place = without_indices(&difference.at);
        let here = |end: &String| {
            let rest = place.strip_suffix(end.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.') || rest.ends_with("[]"))
        };
        self.at.iter().any(here)
            && self.recorded.as_ref().is_some_and(|wanted| stands(wanted, &difference.left, &difference.right))
            && self.ours.as_ref().is_some_and(|wanted| stands(wanted, &difference.right, &difference.left))
    }
}

fn stands(wanted: &Value, side: &Side, other: &Side) -> bool {
    match (wanted.as_str(), side) {
        (Some(ABSENT), side) => *side == Side::Absent,
        (Some(ANY), side) => *side != Side::Absent,
        (Some(OURS_AND_MORE), Side::Is(Value::String(text))) => {
            let ours = match other {
                Side::Is(Value::String(ours)) => ours.as_str(),
                Side::Is(_) | Side::Absent | Side::Keys(_) => return false,
            };
            text.strip_prefix(ours).is_some_and(|rest| rest.starts_with('-'))
        }
        (_, Side::Is(value)) => value == wanted,
        (_, Side::Absent | Side::Keys(_)) => false,
    }
}

/// `content[12].caller` is `content[].caller`.
fn without_indices(at: &str) -> String {
    let mut digits = false;
    let kept = at.chars().filter(|c| {
        digits = *c == '[' || (digits && c.is_ascii_digit());
        !(digits && c.is_ascii_digit())
    });
    kept.collect()
}

/// Judges one exchange. `listed` is absent for recordings that nobody has listed: those may show any kind.
pub fn judge(outcome: Outcome, kinds: &[Kind], listed: Option<&Listed>) -> Verdict {
    let mut verdict =
        Verdict { played: false, equal: false, kinds: BTreeSet::new(), not_played: None, faults: Vec::new() };
    match outcome {
        Outcome::NotPlayed(why) => verdict.not_played = Some(why),
        Outcome::Refused(message) => {
            let of_kind = |kind: &&Kind| kind.refused.iter().any(|text| message.contains(text.as_str()));
            match kinds.iter().find(of_kind) {
                Some(kind) => _ = verdict.kinds.insert(kind.kind.clone()),
                None => verdict.faults.push(format!("refused, though it was accepted: {message}")),
            }
            verdict.not_played = Some(format!("refused: {message}"));
        }
        Outcome::Astray(what) => verdict.faults.push(what),
        Outcome::Played(differences) => {
            verdict.played = true;
            verdict.equal = differences.is_empty();
            for difference in &differences {
                match kinds.iter().find(|kind| kind.explains(difference)) {
                    Some(kind) => _ = verdict.kinds.insert(kind.kind.clone()),
                    None => verdict.faults.push(difference.to_string()),
                }
            }
        }
    }
    if let Some(listed) = listed {
        against_the_list(&mut verdict, listed);
    }
    verdict
}

fn against_the_list(verdict: &mut Verdict, listed: &Listed) {
    let unlisted = verdict.kinds.difference(&listed.shows);
    verdict.faults.extend(unlisted.map(|kind| format!("shows `{kind}`, which is not listed")));
    let unused = listed.shows.difference(&verdict.kinds);
    verdict.faults.extend(unused.map(|kind| format!("does not show `{kind}`, which is listed")));
    // Why something is refused is said by its kind.
    let why = verdict.not_played.as_ref().filter(|_| verdict.kinds.is_empty());
    if why != listed.not_played.as_ref() {
        verdict.faults.push(format!("not played for {why:?}; listed is {:?}", listed.not_played));
    }
}

/// Each kind is used by some list, and each page is there.
pub fn check_kinds(kinds: &[Kind], lists: &[&[Listed]]) -> Vec<String> {
    let shown: BTreeSet<&String> = lists.iter().flat_map(|list| list.iter()).flat_map(|listed| &listed.shows).collect();
    let mut faults = Vec::new();
    for kind in kinds {
        if !shown.contains(&kind.kind) {
            faults.push(format!("kind `{}` is shown by nothing that is listed", kind.kind));
        }
        let page = format!("{}/../../divergence/{}", env!("CARGO_MANIFEST_DIR"), kind.page);
        if !std::path::Path::new(&page).is_file() {
            faults.push(format!("kind `{}`: there is no page {}", kind.kind, kind.page));
        }
    }
    faults
}
