//! The rejection table of the wire (wire.md §19): one function per rule, applied in one order.
//!
//! Rows that are not here are decided elsewhere: by the reader of requests (3, 4, 5, 20, 29, 30, 37; the toolsets of 20 are no tags
//! that it knows), by the routes (1, 2, 40, 42, 43), where containers and files live (8, 23 to 28), by the model's own server (35,
//! 39).

mod code;
mod container;
mod history;
mod hosted;
mod model;
mod schema;
mod tools;
mod unsupported;

use belljar_wire::error::ApiError;
use belljar_wire::request::MessagesRequest;

use crate::context::PlanContext;
use crate::plan::history::History;
use crate::runtime::Runtime;

/// What rules look at.
pub(crate) struct Draft<'a> {
    pub(crate) request: &'a MessagesRequest,
    pub(crate) context: &'a PlanContext<'a>,
    pub(crate) history: &'a History<'a>,
    /// What code would run with; none when the request has no use for code.
    pub(crate) runtime: Option<&'a Runtime>,
}

/// Passes, or says what the client is to be told.
type Rule = fn(&Draft<'_>) -> Result<(), ApiError>;

/// In order: headers and tools, the model, the conversation's form, its calls, the container; at the end what the hosted API has
/// and this server has not yet.
const RULES: [(&str, Rule); 41] = [
    ("41", tools::legacy_needs_its_header),
    ("declared twice", code::is_declared_once),
    ("server tools", hosted::tools_are_passed_on),
    ("mcp", hosted::servers_are_passed_on),
    ("server tools' callers", hosted::the_model_calls_them),
    ("14", code::runtime_has_room),
    ("13", tools::names_are_unique),
    ("31", tools::not_all_are_deferred),
    ("callers", tools::someone_may_call),
    ("host tools", tools::host_tools_are_for_code),
    ("36b", model::knows_the_tool_types),
    ("19", model::can_call_tools_from_code),
    ("choice", tools::chosen_tool_is_declared),
    ("15", tools::chosen_tool_is_direct),
    ("16", code::strict_is_direct),
    ("17", code::parallel_when_called_from_code),
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
    ("too many wait", history::few_calls_wait),
    ("code's calls", code::calls_have_their_cell),
    ("tool ids", history::calls_are_distinct),
    ("code goes on", code::goes_on_from_its_calls),
    ("tool results", history::results_are_distinct),
    ("21", code::results_are_text),
    ("34", model::goes_on_from_the_assistant),
    ("6", container::skills_need_the_tool),
    ("22", container::uploads_need_the_tool),
    ("no skills", unsupported::skills),
    ("no compaction", unsupported::compaction),
];

/// Applies every rule; the first that is broken speaks.
pub(crate) fn check(draft: &Draft<'_>) -> Result<(), ApiError> {
    RULES.iter().try_for_each(|(_, rule)| rule(draft))
}
