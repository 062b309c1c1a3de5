//! What hosted models take and refuse (wire.md §18.1): a table in `data/`, and nothing of it for every other name.

use std::sync::LazyLock;

use belljar_wire::tool::{ToolVersion, VENDOR_CLIENT_TOOLS};
use serde::Deserialize;

/// What a model accepts. The default is everything: nothing is known of a self-hosted model, and its own server will say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelTraits {
    /// The conversation may end with an assistant message that the model goes on from (wire.md §19 row 34).
    pub prefill: bool,
    /// `temperature`, `top_p` and `top_k` are accepted (wire.md §19 row 32).
    pub sampling_parameters: bool,
    /// `tool_choice` may be `any` or `tool` (wire.md §19 row 36a).
    pub forced_tool_choice: bool,
    /// Its code may call tools (wire.md §19 row 19).
    pub programmatic_tool_calling: bool,
    /// Tool types that it refuses (wire.md §19 row 36b).
    pub tool_types_refused: &'static [&'static str],
}

impl Default for ModelTraits {
    fn default() -> Self {
        Self {
            prefill: true,
            sampling_parameters: true,
            forced_tool_choice: true,
            programmatic_tool_calling: true,
            tool_types_refused: &[],
        }
    }
}

impl ModelTraits {
    /// What wire.md says of the hosted model of that name; permissive for every other.
    pub fn of(model_name: &str) -> Self {
        HostedModel::of(model_name).map_or_else(Self::default, HostedModel::traits)
    }

    /// Tool types that the model takes in place of a refused one. Of another family than the code execution tool's, all that is
    /// known is what is refused: nothing of it is suggested.
    pub(crate) fn instead_of(&self, refused: &str) -> Vec<&'static str> {
        let code = ToolVersion::ALL.map(|(_, tag)| tag);
        let others = VENDOR_CLIENT_TOOLS.into_iter().filter(|tag| family(tag) != family(refused));
        let candidates: Vec<&str> = match code.contains(&refused) {
            true => code.to_vec(),
            false => others.chain(code).collect(),
        };
        candidates.into_iter().filter(|tag| !self.tool_types_refused.contains(tag)).collect()
    }
}

/// A tool type without its date.
fn family(tag: &str) -> &str {
    tag.rsplit_once('_').map_or(tag, |(family, _)| family)
}

/// A row of the table. What is not known of a model is not in it: neither its limits nor its dates.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostedModel {
    /// Its name, without a date.
    pub name: &'static str,
    /// Its name for people.
    pub display_name: &'static str,
    /// `opus`, `sonnet`, …
    pub line: &'static str,
    prefill: bool,
    sampling_parameters: bool,
    forced_tool_choice: bool,
    programmatic_tool_calling: bool,
    tool_types_refused: Vec<&'static str>,
}

static HOSTED: LazyLock<Vec<HostedModel>> =
    LazyLock::new(|| serde_json::from_str(include_str!("../data/models.json")).expect("a test reads it"));

impl HostedModel {
    /// The hosted model of that name, with its date or without.
    pub fn of(model_name: &str) -> Option<&'static Self> {
        HOSTED.iter().find(|model| model_name.strip_prefix(model.name).is_some_and(is_release))
    }

    fn traits(&'static self) -> ModelTraits {
        ModelTraits {
            prefill: self.prefill,
            sampling_parameters: self.sampling_parameters,
            forced_tool_choice: self.forced_tool_choice,
            programmatic_tool_calling: self.programmatic_tool_calling,
            tool_types_refused: &self.tool_types_refused,
        }
    }
}

/// What may follow a model's name and leave it that model: nothing, `-latest`, or a date, with whatever a reseller puts behind it. A
/// further number is another model.
fn is_release(rest: &str) -> bool {
    let date = rest.strip_prefix(['-', '@']).and_then(|date| date.as_bytes().split_at_checked(8));
    rest.is_empty()
        || rest == "-latest"
        || date.is_some_and(|(date, more)| {
            date.iter().all(u8::is_ascii_digit) && !more.first().is_some_and(u8::is_ascii_digit)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_readable_and_names_nothing_twice() {
        for model in HOSTED.iter() {
            let found = HOSTED.iter().filter(|other| other.name.strip_prefix(model.name).is_some_and(is_release));
            assert_eq!(found.map(|other| other.name).collect::<Vec<_>>(), [model.name]);
            let taken = ToolVersion::ALL.iter().filter(|(_, tag)| !model.tool_types_refused.contains(tag));
            assert!(taken.count() >= 2, "{}", model.name);
        }
    }

    /// wire.md §18.1, by name.
    #[test]
    fn each_model_takes_its_versions() {
        let oldest_for =
            ["claude-3-5-haiku", "claude-3-7-sonnet", "claude-sonnet-4", "claude-opus-4", "claude-opus-4-1"];
        for model in HOSTED.iter() {
            let refuses = |tag| model.tool_types_refused.contains(&tag);
            let old = oldest_for.contains(&model.name);
            // Recorded with Haiku 4.5; nothing says that any refuses it.
            assert!(!refuses("code_execution_20250522"), "{}", model.name);
            assert_eq!(!refuses("code_execution_20260521"), !old, "{}", model.name);
            assert!(!refuses("code_execution_20250825"), "{}", model.name);
            assert_eq!(model.programmatic_tool_calling, !old && model.name != "claude-haiku-4-5", "{}", model.name);
        }
    }
}
