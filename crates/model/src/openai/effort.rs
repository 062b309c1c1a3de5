//! How hard the model is to think: `output_config.effort`, or a thinking budget, as `reasoning_effort`.

use belljar_wire::sampling::SamplingRequest;
use serde_json::Value;

/// Budgets up to so many tokens are `low`.
const LOW_TOKENS_MAX: u64 = 4_096;
/// Budgets up to so many tokens are `medium`.
const MEDIUM_TOKENS_MAX: u64 = 16_384;

/// The dialect's three words; none when the request leaves it to the model.
pub(super) fn of(request: &SamplingRequest) -> Option<&'static str> {
    let asked = request.rest.get("output_config").and_then(|config| config.get("effort")).and_then(Value::as_str);
    match asked {
        Some("low") => return Some("low"),
        Some("medium") => return Some("medium"),
        // Not every server has a word for more.
        Some("high" | "xhigh" | "max") => return Some("high"),
        Some(_) | None => {}
    }
    let thinking = request.thinking.as_ref().filter(|thinking| thinking["type"] == "enabled")?;
    let budget = thinking["budget_tokens"].as_u64()?;
    let words = [(LOW_TOKENS_MAX, "low"), (MEDIUM_TOKENS_MAX, "medium")];
    Some(words.into_iter().find(|(most, _)| budget <= *most).map_or("high", |(_, word)| word))
}
