//! What planning needs to know besides the request: headers, limits, and what the model can do.

use belljar_wire::beta::{ApiVersion, Betas};
use belljar_wire::block::ServerToolUseBlock;
use belljar_wire::hosted_tool::HostedTools;

use crate::models::ModelTraits;
use crate::texts::ToolTexts;

/// Rounds of server tools that one request may take (wire.md §13.1).
pub const SAMPLINGS_MAX_DEFAULT: u32 = 10;

/// Server tool calls of one sampling that are run, and that a reply may leave waiting. Models make a handful at once.
pub const CALLS_AT_ONCE_MAX: usize = 128;

/// Everything outside the request's body that decides what a request means.
#[derive(Clone, Copy, Debug)]
pub struct PlanContext<'a> {
    /// `anthropic-version`.
    pub api_version: ApiVersion,
    /// `anthropic-beta`.
    pub betas: &'a Betas,
    /// Samplings whose server calls are run. A further sampling that still wants server tools pauses the turn with its calls
    /// unanswered: with 10, the eleventh call is the one without a result, as recorded (wire.md §13.1, §23).
    pub samplings_max: u32,
    /// What the tool text tells the model about its container.
    pub limits: ToolLimits,
    /// The words in which the model is told of the tool.
    pub texts: &'a ToolTexts,
    /// What the model can do.
    pub model: ModelTraits,
    /// What of the vendor's own server tools the model's upstream passes on; none where it has no such tools.
    pub hosted: Option<&'a HostedTools>,
    /// The calls that [`lost_cells`](crate::lost_cells) has asked for, as far as they are known.
    pub lost_cells: &'a [ServerToolUseBlock],
}

/// The limits that the tool text names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToolLimits {
    /// Seconds of wall clock for one cell of the live interpreter; told to the model by `code_execution_20260521` only (wire.md §4).
    pub cell_wall_s_max: u64,
    /// The same for what is a process of its own: a bash command, a cell of a fresh interpreter.
    pub invocation_wall_s_max: u64,
    /// Bytes of each of stdout and stderr that one cell may hand back.
    pub output_bytes_max: u64,
    /// Bytes of memory of a container.
    pub memory_bytes_max: u64,
    /// Bytes of disk of a container.
    pub disk_bytes_max: u64,
}

impl Default for ToolLimits {
    /// The defaults of the configuration.
    fn default() -> Self {
        Self {
            cell_wall_s_max: 90,
            invocation_wall_s_max: 300,
            output_bytes_max: 1 << 20,
            memory_bytes_max: 5 << 30,
            disk_bytes_max: 5 << 30,
        }
    }
}
