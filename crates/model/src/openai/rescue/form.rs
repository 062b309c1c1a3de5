//! The forms in which models write calls into text, by what opens and closes them.

use crate::config::Rescue;

/// How what is inside is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Thinking, not a call.
    Thinking,
    /// JSON, or Qwen's elements.
    Element,
    /// `<function=NAME>` has been read as far as the equals sign.
    Function,
    /// JSON, or code for the tool that runs it.
    PythonTag,
    /// A list of calls, or names with arguments.
    Mistral,
    /// JSON and nothing else.
    Json,
    /// Calls between tokens of their own.
    Marked(&'static Marks),
}

/// The tokens of a format in which each call has a beginning and an end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) call: &'static str,
    /// Between the name and the arguments.
    pub(super) arguments: &'static str,
    pub(super) end: &'static str,
}

const DEEPSEEK_MARKS: Marks =
    Marks { call: "<｜tool▁call▁begin｜>", arguments: "<｜tool▁sep｜>", end: "<｜tool▁call▁end｜>" };
const KIMI_MARKS: Marks =
    Marks { call: "<|tool_call_begin|>", arguments: "<|tool_call_argument_begin|>", end: "<|tool_call_end|>" };

/// Where it ends. What the reply ends in is always an end.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Markers(&'static [&'static str]),
    /// With the object that it is.
    Object,
}

/// A text that opens a form.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening {
    pub(super) marker: &'static str,
    pub(super) end: End,
    pub(super) form: Form,
    /// Whether it opens at the start of a line only.
    pub(super) at_line_start: bool,
}

const fn opening(marker: &'static str, end: End, form: Form) -> Opening {
    Opening { marker, end, form, at_line_start: false }
}

const fn at_line_start(marker: &'static str, end: End, form: Form) -> Opening {
    Opening { marker, end, form, at_line_start: true }
}

/// The longest marker that closes thinking.
pub(super) const MARKER_BYTES_MAX: usize = "</thinking>".len();

const THINKING: &[Opening] = &[
    opening("<think>", End::Markers(&["</think>"]), Form::Thinking),
    opening("<thinking>", End::Markers(&["</thinking>"]), Form::Thinking),
];
/// Hermes, Qwen 2.5 and 3, Qwen3-Coder, Granite, Llama 3.1's own functions.
const HERMES: &[Opening] = &[
    opening("<tool_call>", End::Markers(&["</tool_call>"]), Form::Element),
    opening("<function_call>", End::Markers(&["</function_call>"]), Form::Element),
    opening("<|tool_call|>", End::Markers(&["<|/tool_call|>", "<|end_of_text|>"]), Form::Element),
    opening("<function=", End::Markers(&["</function>"]), Form::Function),
];
const LLAMA: &[Opening] = &[
    opening("<|python_tag|>", End::Markers(&["<|eom_id|>", "<|eot_id|>"]), Form::PythonTag),
    at_line_start("{", End::Object, Form::Json),
];
const MISTRAL: &[Opening] = &[opening("[TOOL_CALLS]", End::Markers(&["</s>"]), Form::Mistral)];
const FENCED: &[Opening] = &[
    at_line_start("```json\n", End::Markers(&["\n```"]), Form::Json),
    at_line_start("```tool_call\n", End::Markers(&["\n```"]), Form::Json),
    at_line_start("```\n{", End::Markers(&["\n```"]), Form::Json),
];
const JSON: &[Opening] = &[opening("{", End::Object, Form::Json)];

const DEEPSEEK: &[Opening] = &[opening(
    "<｜tool▁calls▁begin｜>",
    End::Markers(&["<｜tool▁calls▁end｜>", "<｜end▁of▁sentence｜>"]),
    Form::Marked(&DEEPSEEK_MARKS),
)];
const KIMI: &[Opening] = &[opening(
    "<|tool_calls_section_begin|>",
    End::Markers(&["<|tool_calls_section_end|>", "<|im_end|>"]),
    Form::Marked(&KIMI_MARKS),
)];

/// What to look for. Without tools there are no calls.
pub(super) fn openings(rescue: &[Rescue], tools: bool) -> Vec<Opening> {
    let of = |rescue: &Rescue| match rescue {
        Rescue::Thinking => THINKING,
        Rescue::Hermes => HERMES,
        Rescue::Llama => LLAMA,
        Rescue::Mistral => MISTRAL,
        Rescue::Fenced => FENCED,
        Rescue::Json => JSON,
        Rescue::DeepSeek => DEEPSEEK,
        Rescue::Kimi => KIMI,
    };
    let all = rescue.iter().flat_map(of).copied();
    all.filter(|opening| tools || opening.form == Form::Thinking).collect()
}
