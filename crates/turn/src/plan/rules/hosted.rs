//! Rules about tools that the model's vendor runs: what of them is passed on is the operator's to say.

use belljar_wire::error::ApiError;
use belljar_wire::hosted_tool::{HostedFamily, HostedTool, HostedTools};
use belljar_wire::tool::{AllowedCaller, Tool};
use serde_json::Value;

use super::Draft;
use super::tools::path;

/// Declared tools that the model's upstream passes on. One left out in silence would change what the model can do without a word.
pub(super) fn tools_are_passed_on(draft: &Draft<'_>) -> Result<(), ApiError> {
    for (index, tool) in draft.request.tools.iter().enumerate() {
        let Tool::Hosted(hosted) = tool else {
            continue;
        };
        if !draft.context.hosted.is_some_and(|passed| passed.has(hosted.kind)) {
            let at = path(index, tool);
            return Err(not_passed_on(&at, hosted.kind.tag, hosted.kind.family, draft.context.hosted));
        }
    }
    Ok(())
}

/// MCP servers, with or without a set of tools: older clients name none.
pub(super) fn servers_are_passed_on(draft: &Draft<'_>) -> Result<(), ApiError> {
    let asked = match draft.request.rest.get("mcp_servers") {
        None | Some(Value::Null) => false,
        Some(servers) => servers.as_array().is_none_or(|servers| !servers.is_empty()),
    };
    let passed = draft.context.hosted;
    if asked && !passed.is_some_and(|passed| passed.has_of(HostedFamily::Mcp)) {
        return Err(not_passed_on("mcp_servers", "the MCP connector", HostedFamily::Mcp, passed));
    }
    Ok(())
}

fn not_passed_on(at: &str, what: &str, family: HostedFamily, passed: Option<&HostedTools>) -> ApiError {
    let what = if what.contains(' ') { what.to_owned() } else { format!("`{what}`") };
    ApiError::invalid(match passed {
        Some(_) => format!(
            "{at}: {what} is run by the model's vendor, and this server does not pass it on; its operator can allow that with \
             `server_tools = [\"{}\"]` for the model's upstream",
            family.name()
        ),
        None => format!(
            "{at}: {what} is run by the vendor of the Messages API, and this model is not asked there; choose a model of an upstream of \
             kind `anthropic`"
        ),
    })
}

/// Code runs here, where it cannot call them; a client that wants it to is told so.
pub(super) fn the_model_calls_them(draft: &Draft<'_>) -> Result<(), ApiError> {
    for (index, tool) in draft.request.tools.iter().enumerate() {
        let Tool::Hosted(HostedTool { allowed_callers: Some(callers), .. }) = tool else {
            continue;
        };
        let at = path(index, tool);
        if callers.is_empty() {
            return Err(ApiError::invalid(format!("{at}.allowed_callers: List should have at least 1 item")));
        }
        if callers.iter().any(|caller| matches!(caller, AllowedCaller::Code(_))) {
            return Err(ApiError::invalid(format!(
                "{at}.allowed_callers: code that runs in this server's containers cannot call a tool that the model's vendor runs; set \
                 it to [\"direct\"]"
            )));
        }
    }
    Ok(())
}
