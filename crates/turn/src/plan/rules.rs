//! The rejection table of the wire (wire.md §19): one function per rule, applied in one order.
//!
//! Rows that are not here are decided elsewhere: by the reader of requests (3, 4, 5, 14, 20, 29, 30, 37; the web tools and toolsets
//! of 14 and 20 are no tags that it knows), by the routes (1, 2, 40, 42, 43), where containers and files live (8, 23 to 28), by
//! the model's own server (35, 39).

mod container;
mod history;
mod model;
mod schema;
mod tools;
mod unsupported;

use belljar_wire::error::ApiError;
use belljar_wire::request::MessagesRequest;
use belljar_wire::tool::{CodeExecutionTool, Tool};

use crate::context::PlanContext;
use crate::plan::history::History;

/// What rules look at.
pub(crate) struct Draft<'a> {
    pub(crate) request: &'a MessagesRequest,
    pub(crate) context: &'a PlanContext<'a>,
    pub(crate) history: &'a History<'a>,
}

impl<'a> Draft<'a> {
    /// The code execution tool, if one is declared.
    pub(crate) fn code_execution(&self) -> Option<&'a CodeExecutionTool> {
        self.request.tools.iter().find_map(|tool| match tool {
            Tool::CodeExecution(tool) => Some(tool),
            Tool::Custom(_) | Tool::Vendor(_) => None,
        })
    }
}

/// Passes, or says what the client is to be told.
type Rule = fn(&Draft<'_>) -> Result<(), ApiError>;

/// In order: headers and tools, the model, the conversation's form, its calls, the container; at the end what the hosted API has
/// and this server has not yet.
const RULES: [(&str, Rule); 32] = [
    ("41", tools::legacy_needs_its_header),
    ("13", tools::names_are_unique),
    ("31", tools::not_all_are_deferred),
    ("callers", tools::someone_may_call),
    ("36b", model::knows_the_tool_types),
    ("19", model::can_call_tools_from_code),
    ("choice", tools::chosen_tool_is_declared),
    ("15", tools::chosen_tool_is_direct),
    ("16", tools::strict_is_direct),
    ("17", tools::parallel_when_called_from_code),
    ("18", schema::refs_are_not_circular),
    ("36", model::no_force_while_thinking),
    ("36a", model::choice_may_be_forced),
    ("32", model::sampling_parameters),
    ("38", history::content_is_not_empty),
    ("33a", history::assistant_sends_no_documents),
    ("33b", history::user_cites_nothing),
    ("12", history::results_answer_calls),
    ("9", history::calls_are_answered),
    ("server ids", history::server_calls_are_distinct),
    ("server results", history::server_results_answer_calls),
    ("10", history::server_calls_are_not_spoken_over),
    ("7", container::is_named_while_code_waits),
    ("11", history::waiting_calls_have_their_tool),
    ("21", history::replies_to_code_are_text),
    ("34", model::goes_on_from_the_assistant),
    ("6", container::skills_need_the_tool),
    ("22", container::uploads_need_the_tool),
    ("no python tool", unsupported::python_tool),
    ("no skills or connectors", unsupported::skills_and_connectors),
    ("no file sources", unsupported::file_sources),
    ("no programmatic calls", unsupported::programmatic_calls),
];

/// Applies every rule; the first that is broken speaks.
pub(crate) fn check(draft: &Draft<'_>) -> Result<(), ApiError> {
    RULES.iter().try_for_each(|(_, rule)| rule(draft))
}
