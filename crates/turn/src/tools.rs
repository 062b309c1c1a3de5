//! The sub-tools as a model is told of them, in the words of a set of texts.

use std::fmt::Write as _;
use std::sync::LazyLock;

use belljar_wire::hosted_tool::HostedTool;
use belljar_wire::sampling::ModelTool;
use belljar_wire::tool::{CustomTool, SubTool, Tool, ToolVersion, VendorTool};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::call::{CodeTool, Interpreter};
use crate::context::ToolLimits;
use crate::runtime::{Runtime, callers};
use crate::texts::{TextPlace, ToolTexts};

/// Whether the tool text says how long a cell may run (wire.md §4).
const fn tells_the_time_limit(version: ToolVersion) -> bool {
    match version {
        ToolVersion::V20250522 | ToolVersion::V20250825 | ToolVersion::V20260120 => false,
        ToolVersion::V20260521 => true,
    }
}

static BASH_SCHEMA: LazyLock<Value> = LazyLock::new(|| parsed(include_str!("../data/bash.schema.json")));
static EDITOR_SCHEMA: LazyLock<Value> = LazyLock::new(|| parsed(include_str!("../data/editor.schema.json")));
static PYTHON_SCHEMA: LazyLock<Value> = LazyLock::new(|| parsed(include_str!("../data/python.schema.json")));

/// What the image has for Python code, as the model is told of it.
#[derive(Deserialize)]
struct Image {
    python: String,
    packages: Vec<String>,
}

static IMAGE: LazyLock<Image> =
    LazyLock::new(|| serde_json::from_str(include_str!("../data/image.json")).expect("a test reads it"));

/// One of our own data files.
fn parsed(text: &str) -> Value {
    serde_json::from_str(text).expect("the schemas in data/ are JSON; a test reads them all")
}

/// The tools of a request as the model is to see them, in the request's order; sub-tools that nobody declared stand last. Tools that
/// only code may call are described to the model where it writes code, and nowhere else (wire.md §10.1).
pub(crate) fn lower(
    tools: Vec<Tool>,
    runtime: Option<&Runtime>,
    limits: &ToolLimits,
    texts: &ToolTexts,
) -> Vec<ModelTool> {
    let mut lowered = Vec::with_capacity(tools.len() + SubTool::ALL.len());
    let mut ours = None;
    let mut breakpoint = None;
    for tool in tools {
        let direct = callers(&tool).direct;
        match tool {
            Tool::CodeExecution(tool) => {
                ours = Some(lowered.len());
                breakpoint = tool.cache_control.or(breakpoint);
            }
            // The breakpoint behind what the model reads elsewhere moves there with it.
            Tool::Custom(mut tool) if !direct => breakpoint = tool.rest.shift_remove("cache_control").or(breakpoint),
            Tool::Vendor(mut tool) if !direct => breakpoint = tool.rest.shift_remove("cache_control").or(breakpoint),
            // The model calls none of ours; a rule has refused `direct`.
            Tool::Host(tool) => breakpoint = tool.cache_control.or(breakpoint),
            // An upstream that knows the field would start a sandbox of its own for it (wire.md §23).
            Tool::Custom(tool) => lowered.push(ModelTool::Custom(CustomTool { allowed_callers: None, ..tool })),
            Tool::Vendor(tool) => lowered.push(ModelTool::Vendor(VendorTool { allowed_callers: None, ..tool })),
            Tool::Hosted(tool) => lowered.push(ModelTool::Hosted(called_by_the_model(tool))),
        }
    }
    if let Some(runtime) = runtime {
        let at = ours.unwrap_or(lowered.len());
        lowered.splice(at..at, sub_tools(runtime, breakpoint, limits, texts));
    }
    lowered
}

/// Of versions that are for code unless they say otherwise, the vendor would start a sandbox of its own (wire.md §14): code runs here,
/// so they say otherwise (divergence/hosted-tools.md).
fn called_by_the_model(mut tool: HostedTool) -> HostedTool {
    if tool.kind.for_code && tool.allowed_callers.is_none() {
        tool.members.insert("allowed_callers".to_owned(), json!(["direct"]));
    }
    tool
}

fn sub_tools(runtime: &Runtime, breakpoint: Option<Value>, limits: &ToolLimits, texts: &ToolTexts) -> Vec<ModelTool> {
    let told = |sub_tool: &SubTool| ModelTool::Server {
        sub_tool: *sub_tool,
        description: description(*sub_tool, runtime, limits, texts),
        input_schema: schema(*sub_tool).clone(),
        cache_control: None,
    };
    let mut lowered: Vec<ModelTool> = runtime.offered.iter().map(told).collect();
    // The breakpoint stands behind the whole tool.
    if let Some(ModelTool::Server { cache_control, .. }) = lowered.last_mut() {
        *cache_control = breakpoint;
    }
    lowered
}

fn schema(sub_tool: SubTool) -> &'static Value {
    match sub_tool {
        SubTool::CodeExecution => &PYTHON_SCHEMA,
        SubTool::BashCodeExecution => &BASH_SCHEMA,
        SubTool::TextEditorCodeExecution => &EDITOR_SCHEMA,
    }
}

/// What the model is told of a sub-tool: a text of ours, with what the client says of its tools at the end, untouched.
fn description(sub_tool: SubTool, runtime: &Runtime, limits: &ToolLimits, texts: &ToolTexts) -> String {
    let mut text = own_text(sub_tool, runtime, limits, texts);
    if runtime.tools.is_empty() {
        return text;
    }
    match sub_tool {
        SubTool::CodeExecution => {
            text.push_str("\n\n");
            text.push_str(texts.text(TextPlace::PythonTools));
            runtime.tools.iter().for_each(|tool| append_tool(&mut text, tool));
        }
        SubTool::BashCodeExecution => {
            text.push_str("\n\n");
            text.push_str(texts.text(TextPlace::BashTools));
        }
        SubTool::TextEditorCodeExecution => {}
    }
    text
}

fn own_text(sub_tool: SubTool, runtime: &Runtime, limits: &ToolLimits, texts: &ToolTexts) -> String {
    let mut text = texts.text(TextPlace::of(sub_tool, runtime.interpreter)).to_owned();
    if let Some(seconds) = wall_s_max(sub_tool, runtime.interpreter, limits)
        && tells_the_time_limit(runtime.version)
    {
        let limit = texts.text(TextPlace::TimeLimit);
        text.push_str("\n\n");
        text.push_str(&limit.replace("{wall_s_max}", &seconds.to_string()));
    }
    text.replace("{python}", &IMAGE.python)
        .replace("{packages}", &IMAGE.packages.join(", "))
        .replace("{output_bytes_max}", &bytes(limits.output_bytes_max))
        .replace("{memory_bytes_max}", &bytes(limits.memory_bytes_max))
        .replace("{disk_bytes_max}", &bytes(limits.disk_bytes_max))
}

/// How long a call of a sub-tool may run; none where nothing of the caller's runs.
const fn wall_s_max(sub_tool: SubTool, interpreter: Interpreter, limits: &ToolLimits) -> Option<u64> {
    match (sub_tool, interpreter) {
        (SubTool::CodeExecution, Interpreter::Live) => Some(limits.cell_wall_s_max),
        (SubTool::CodeExecution, Interpreter::Fresh) | (SubTool::BashCodeExecution, _) => {
            Some(limits.invocation_wall_s_max)
        }
        (SubTool::TextEditorCodeExecution, _) => None,
    }
}

/// One function: how it is called, the schema of its dict, and what the client says of it.
fn append_tool(text: &mut String, tool: &CodeTool) {
    let CodeTool { name, function, description, input_schema, answered_by: _ } = tool;
    let _infallible = write!(text, "\n\n`await {function}(input: dict) -> str`");
    if name != function {
        let _infallible = write!(text, " calls the tool `{name}`");
    }
    let _infallible = write!(text, "\nJSON Schema of `input`: {input_schema}");
    if let Some(description) = description.as_deref().filter(|description| !description.is_empty()) {
        let _infallible = write!(text, "\n{description}");
    }
}

/// A number of bytes in the largest unit that divides it.
fn bytes(count: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = units.into_iter().find(|(size, _)| count >= *size && count.is_multiple_of(*size));
    unit.map_or(format!("{count} bytes"), |(size, name)| format!("{} {name}", count / size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_in_the_largest_unit_that_divides_them() {
        let cases =
            [(5 << 30, "5 GiB"), (1 << 20, "1 MiB"), (1536 << 10, "1536 KiB"), (1000, "1000 bytes"), (0, "0 bytes")];
        for (count, text) in cases {
            assert_eq!(bytes(count), text);
        }
    }

    /// The image is made elsewhere; a package that it has no more must not be promised.
    #[test]
    fn the_image_has_what_is_told_of_it() {
        let listed = include_str!("../../image/lock/python.in").lines();
        let listed: Vec<&str> = listed
            .map(|line| line.split('#').next().unwrap_or_default().trim())
            .filter(|name| !name.is_empty())
            .collect();
        let promised = IMAGE.packages.iter().filter(|name| !listed.contains(&name.as_str()));
        assert_eq!(promised.collect::<Vec<_>>(), Vec::<&String>::new());
        // Parts of others, and the installer.
        let untold = listed.iter().filter(|name| !IMAGE.packages.iter().any(|told| told == *name));
        assert_eq!(untold.collect::<Vec<_>>(), [&"rlPyCairo", &"freetype-py", &"pip"]);
        let recipe = include_str!("../../image/recipe/setup.sh");
        assert!(recipe.lines().any(|line| line == format!("python=python{}", IMAGE.python)), "{}", IMAGE.python);
    }

    #[test]
    fn every_text_is_filled_in() {
        let limits = ToolLimits::default();
        let sets = ToolTexts::all().into_iter();
        for ((version, _), texts) in sets.flat_map(|texts| ToolVersion::ALL.map(|version| (version, texts))) {
            for interpreter in [Interpreter::Fresh, Interpreter::Live] {
                let runtime = Runtime { version, offered: &SubTool::ALL, interpreter, tools: [].into() };
                for sub_tool in SubTool::ALL {
                    let text = description(sub_tool, &runtime, &limits, texts);
                    for placeholder in ToolTexts::placeholders() {
                        assert!(!text.contains(&format!("{{{placeholder}}}")), "{text}");
                    }
                    assert!(schema(sub_tool).is_object());
                    let seconds = match (version, sub_tool, interpreter) {
                        (ToolVersion::V20260521, SubTool::CodeExecution, Interpreter::Live) => Some("90"),
                        (ToolVersion::V20260521, SubTool::TextEditorCodeExecution, _) => None,
                        (ToolVersion::V20260521, _, _) => Some("300"),
                        _ => None,
                    };
                    let told = text.split(" seconds").next().and_then(|before| before.rsplit(' ').next());
                    let told = told.filter(|_| text.contains("seconds"));
                    assert_eq!(told, seconds, "{sub_tool:?} {version:?} {interpreter:?}");
                }
            }
        }
    }
}
