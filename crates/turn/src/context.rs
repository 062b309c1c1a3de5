//! What planning needs to know besides the request: headers, limits, and what the model can do.

use belljar_wire::beta::{ApiVersion, Betas};

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
    /// What the model can do.
    pub model: ModelTraits,
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
        PERMISSIVE
    }
}

const PERMISSIVE: ModelTraits = ModelTraits {
    prefill: true,
    sampling_parameters: true,
    forced_tool_choice: true,
    programmatic_tool_calling: true,
    tool_types_refused: &[],
};

/// Sonnet and Opus 4.6: no prefill.
const FROM_4_6: ModelTraits = ModelTraits { prefill: false, ..PERMISSIVE };

/// From 4.7 on: no sampling parameters either.
const FROM_4_7: ModelTraits = ModelTraits { sampling_parameters: false, ..FROM_4_6 };

/// The fifth generation: no forced tool choice either (wire.md §13.3).
const FROM_5: ModelTraits = ModelTraits { forced_tool_choice: false, ..FROM_4_7 };

/// Hosted models that are not permissive, by the start of their names; the first match counts.
const HOSTED: [(&str, ModelTraits); 11] = [
    ("claude-haiku-4-5", ModelTraits { programmatic_tool_calling: false, ..PERMISSIVE }),
    ("claude-opus-4-6", FROM_4_6),
    ("claude-sonnet-4-6", FROM_4_6),
    ("claude-opus-4-7", FROM_4_7),
    ("claude-opus-4-8", FROM_4_7),
    ("claude-opus-5-5", ModelTraits { tool_types_refused: &["computer_20251124"], ..FROM_5 }),
    ("claude-opus-5", FROM_5),
    ("claude-sonnet-5", FROM_5),
    ("claude-haiku-5", FROM_5),
    ("claude-fable-5", FROM_5),
    ("claude-mythos-5", FROM_5),
];

impl ModelTraits {
    /// What wire.md says of the hosted model of that name; permissive for every other.
    pub fn of(model_name: &str) -> Self {
        let names =
            |prefix: &str| model_name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
        HOSTED.iter().find(|(prefix, _)| names(prefix)).map_or(PERMISSIVE, |(_, traits)| *traits)
    }
}
