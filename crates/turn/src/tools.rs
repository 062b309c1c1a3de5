//! The sub-tools as a model is told of them. The texts are data, in `data/`.

use std::sync::LazyLock;

use belljar_wire::sampling::ModelTool;
use belljar_wire::tool::{CodeExecutionTool, CustomTool, SubTool, Tool, ToolVersion, VendorTool};
use serde_json::Value;

use crate::context::ToolLimits;

/// The sub-tools of a version (wire.md §4).
pub(crate) const fn offered(version: ToolVersion) -> &'static [SubTool] {
    match version {
        ToolVersion::V20250522 => &[SubTool::CodeExecution],
        ToolVersion::V20250825 | ToolVersion::V20260120 | ToolVersion::V20260521 => {
            &[SubTool::BashCodeExecution, SubTool::TextEditorCodeExecution]
        }
    }
}

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

/// One of our own data files.
fn parsed(text: &str) -> Value {
    serde_json::from_str(text).expect("the schemas in data/ are JSON; a test reads them all")
}

/// The tools of a request as the model is to see them, in the request's order.
pub(crate) fn lower(tools: Vec<Tool>, limits: &ToolLimits) -> Vec<ModelTool> {
    let mut lowered = Vec::with_capacity(tools.len() + 1);
    for tool in tools {
        match tool {
            Tool::CodeExecution(tool) => lowered.extend(sub_tools(tool, limits)),
            Tool::Custom(tool) => lowered.push(ModelTool::Custom(CustomTool {
                // An upstream that knows the field would start a sandbox of its own for it (wire.md §23).
                allowed_callers: None,
                ..tool
            })),
            Tool::Vendor(VendorTool { tag, name, mut rest }) => {
                rest.shift_remove("allowed_callers");
                lowered.push(ModelTool::Vendor(VendorTool { tag, name, rest }));
            }
        }
    }
    lowered
}

fn sub_tools(tool: CodeExecutionTool, limits: &ToolLimits) -> Vec<ModelTool> {
    let mut lowered: Vec<ModelTool> = offered(tool.version)
        .iter()
        .map(|sub_tool| ModelTool::Server {
            sub_tool: *sub_tool,
            description: description(*sub_tool, tool.version, limits),
            input_schema: schema(*sub_tool).clone(),
            cache_control: None,
        })
        .collect();
    // The breakpoint stands behind the whole tool.
    if let Some(ModelTool::Server { cache_control, .. }) = lowered.last_mut() {
        *cache_control = tool.cache_control;
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

fn description(sub_tool: SubTool, version: ToolVersion, limits: &ToolLimits) -> String {
    let text = match sub_tool {
        SubTool::CodeExecution => include_str!("../data/python.txt"),
        SubTool::BashCodeExecution => include_str!("../data/bash.txt"),
        SubTool::TextEditorCodeExecution => include_str!("../data/editor.txt"),
    };
    let runs_code = match sub_tool {
        SubTool::CodeExecution | SubTool::BashCodeExecution => true,
        SubTool::TextEditorCodeExecution => false,
    };
    let mut text = text.trim_end().to_owned();
    if runs_code && tells_the_time_limit(version) {
        text.push_str("\n\n");
        text.push_str(include_str!("../data/time_limit.txt").trim_end());
    }
    text.replace("{cell_wall_s_max}", &limits.cell_wall_s_max.to_string())
        .replace("{output_bytes_max}", &bytes(limits.output_bytes_max))
        .replace("{memory_bytes_max}", &bytes(limits.memory_bytes_max))
        .replace("{disk_bytes_max}", &bytes(limits.disk_bytes_max))
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

    #[test]
    fn every_text_is_filled_in() {
        let limits = ToolLimits::default();
        for (version, _) in ToolVersion::ALL {
            for sub_tool in SubTool::ALL {
                let text = description(sub_tool, version, &limits);
                assert!(!text.contains(['{', '}']), "{text}");
                assert!(schema(sub_tool).is_object());
                let told = version == ToolVersion::V20260521 && sub_tool != SubTool::TextEditorCodeExecution;
                assert_eq!(text.contains("90 seconds"), told, "{sub_tool:?} {version:?}");
            }
        }
    }
}
