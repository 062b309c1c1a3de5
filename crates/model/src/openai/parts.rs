//! Parts of a message: text, and media as far as the dialect has them.

use belljar_wire::block::PassiveBlock;
use serde_json::{Value, json};

use super::body::Unfit;
use crate::lower::PlainBlock;

/// One part.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Part {
    Text(String),
    /// As it is written.
    Media(Value),
}

impl Part {
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Media(_) => None,
        }
    }

    pub(super) fn into_value(self) -> Value {
        match self {
            Self::Text(text) => json!({"type": "text", "text": text}),
            Self::Media(value) => value,
        }
    }
}

/// The parts of a block that somebody else than the model said. Empty texts are left out.
pub(super) fn of(block: PlainBlock) -> Result<Vec<Part>, Unfit> {
    match block {
        PlainBlock::Text(text) => {
            Ok(Some(text.text).filter(|text| !text.is_empty()).map(Part::Text).into_iter().collect())
        }
        PlainBlock::Passive(block) => passive(&block),
        // Stand in other messages only; the wire refuses them here.
        PlainBlock::Thinking(_)
        | PlainBlock::RedactedThinking(_)
        | PlainBlock::ToolUse(_)
        | PlainBlock::ToolResult(_) => Ok(Vec::new()),
    }
}

fn passive(block: &PassiveBlock) -> Result<Vec<Part>, Unfit> {
    let member = |key: &str| block.members.get(key).unwrap_or(&Value::Null);
    match block.tag() {
        "image" => Ok(vec![image(member("source"))?]),
        "document" => document(member("source"), member("title").as_str(), member("context").as_str()),
        "search_result" => Ok(vec![search_result(member("title"), member("source"), member("content"))]),
        other => Err(unfit(other)),
    }
}

fn unfit(tag: &str) -> Unfit {
    Unfit(format!("messages: the model's upstream has no form for `{tag}` blocks"))
}

fn image(source: &Value) -> Result<Part, Unfit> {
    let url = match source["type"].as_str() {
        Some("base64") => data_url(source),
        Some("url") => source["url"].as_str().unwrap_or_default().to_owned(),
        other => return Err(unfit(&format!("image` of source `{}", other.unwrap_or_default()))),
    };
    Ok(Part::Media(json!({"type": "image_url", "image_url": {"url": url}})))
}

fn data_url(source: &Value) -> String {
    let text = |key: &str| source[key].as_str().unwrap_or_default();
    format!("data:{};base64,{}", text("media_type"), text("data"))
}

/// Text goes as text; a file goes as the dialect's `file`, which few servers have. Behind an address, it would have to be fetched.
fn document(source: &Value, title: Option<&str>, context: Option<&str>) -> Result<Vec<Part>, Unfit> {
    let head = |text: &str| {
        let title = title.map(|title| format!(" {}", Value::from(title))).unwrap_or_default();
        let context = context.map(|context| format!("\n[context: {context}]")).unwrap_or_default();
        Part::Text(format!("[document{title}]{context}\n{text}\n[end of the document]"))
    };
    match source["type"].as_str() {
        Some("text") => Ok(vec![head(source["data"].as_str().unwrap_or_default())]),
        Some("content") => match &source["content"] {
            Value::String(text) => Ok(vec![head(text)]),
            Value::Array(blocks) => content(blocks, &head),
            _ => Ok(Vec::new()),
        },
        Some("base64") => {
            let filename = title.unwrap_or("document.pdf");
            Ok(vec![Part::Media(
                json!({"type": "file", "file": {"filename": filename, "file_data": data_url(source)}}),
            )])
        }
        other => Err(unfit(&format!("document` of source `{}", other.unwrap_or_default()))),
    }
}

fn content(blocks: &[Value], head: &dyn Fn(&str) -> Part) -> Result<Vec<Part>, Unfit> {
    let mut text = String::new();
    let mut media = Vec::new();
    for block in blocks {
        match block["type"].as_str() {
            Some("text") => text.push_str(block["text"].as_str().unwrap_or_default()),
            Some("image") => media.push(image(&block["source"])?),
            other => return Err(unfit(other.unwrap_or_default())),
        }
    }
    let mut parts = vec![head(&text)];
    parts.extend(media);
    Ok(parts)
}

fn search_result(title: &Value, source: &Value, content: &Value) -> Part {
    let texts: Vec<&str> =
        content.as_array().into_iter().flatten().filter_map(|block| block["text"].as_str()).collect();
    Part::Text(format!("[search result {title} from {source}]\n{}\n[end of the search result]", texts.join("\n")))
}
