//! How many tokens a request's input has, about: for upstreams that cannot tell.

use belljar_wire::sampling::SamplingRequest;
use serde_json::{Value, json};

use crate::lower::lower;
use crate::upstream::KnownFiles;

/// Bytes of text that make a token: four in English, which is what most tokenizers are made for.
const TOKEN_BYTES: u64 = 4;
/// Tokens that stand around a message.
const MESSAGE_TOKENS: u64 = 4;
/// Tokens of an image, whatever its bytes: the most that the hosted API says one has.
const IMAGE_TOKENS: u64 = 1_600;
/// Bytes of an encoded document that make a token. A page of a PDF is some 50 kB and 2,000 tokens.
const DOCUMENT_TOKEN_BYTES: u64 = 32;

/// About how many tokens the model would read.
pub(crate) fn estimate(request: &SamplingRequest, files: &KnownFiles) -> u64 {
    let plain = lower(request, files);
    let messages = plain.messages.len() as u64 * MESSAGE_TOKENS;
    // Writing what came over the wire does not fail.
    let written = [json!(plain.messages), json!(plain.tools), json!(request.system)];
    messages + written.iter().map(Tally::of).map(Tally::tokens).sum::<u64>()
}

/// About how many tokens the model would read of a body of chat completions, or of the Responses API.
pub(crate) fn of_body(body: &Value) -> u64 {
    let said = [&body["messages"], &body["input"]];
    let messages =
        said.map(|messages| messages.as_array().map_or(0, Vec::len) as u64).iter().sum::<u64>() * MESSAGE_TOKENS;
    let read = [said[0], said[1], &body["instructions"], &body["tools"]];
    messages + read.map(Tally::of).map(Tally::tokens).iter().sum::<u64>()
}

/// About how many tokens the model would read of the body of a Messages request, before anything is known of it.
pub fn estimate_of_body(body: &[u8]) -> u64 {
    let Ok(body) = serde_json::from_slice::<Value>(body) else {
        return of_bytes(body.len() as u64);
    };
    let messages = body["messages"].as_array().map_or(0, Vec::len) as u64 * MESSAGE_TOKENS;
    let read = [&body["messages"], &body["tools"], &body["system"]];
    messages + read.map(Tally::of).map(Tally::tokens).iter().sum::<u64>()
}

/// About how many tokens so many bytes of text are.
pub(crate) const fn of_bytes(bytes: u64) -> u64 {
    bytes.div_ceil(TOKEN_BYTES)
}

/// What a value consists of.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    text_bytes: u64,
    document_bytes: u64,
    images: u64,
}

impl Tally {
    fn of(value: &Value) -> Self {
        let mut tally = Self::default();
        tally.add(value, Kind::Text);
        tally
    }

    fn add(&mut self, value: &Value, kind: Kind) {
        match value {
            Value::String(text) => self.text_bytes += text.len() as u64,
            Value::Number(_) | Value::Bool(_) => self.text_bytes += TOKEN_BYTES,
            Value::Null => {}
            Value::Array(items) => items.iter().for_each(|item| self.add(item, Kind::Text)),
            Value::Object(members) => {
                let within = members.get("type").and_then(Value::as_str).map_or(Kind::Text, |tag| kind.within(tag));
                for (key, member) in members {
                    match (key.as_str(), within) {
                        ("type" | "cache_control" | "signature", _) => {}
                        ("image_url", _) => self.images += 1,
                        ("file_data", _) => self.document_bytes += member.as_str().map_or(0, str::len) as u64,
                        ("data", Kind::Image) => self.images += 1,
                        ("data", Kind::Document) => self.document_bytes += member.as_str().map_or(0, str::len) as u64,
                        (_, Kind::Image | Kind::Document | Kind::Text) => {
                            self.text_bytes += key.len() as u64;
                            self.add(member, within);
                        }
                    }
                }
            }
        }
    }

    fn tokens(self) -> u64 {
        let Self { text_bytes, document_bytes, images } = self;
        text_bytes.div_ceil(TOKEN_BYTES) + document_bytes.div_ceil(DOCUMENT_TOKEN_BYTES) + images * IMAGE_TOKENS
    }
}

/// What an encoded source belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Image,
    Document,
}

impl Kind {
    /// What the members of an object with this `type` belong to.
    fn within(self, tag: &str) -> Self {
        match tag {
            "image" => Self::Image,
            "document" => Self::Document,
            "base64" => self,
            _ => Self::Text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_counts_by_its_bytes_and_pictures_do_not() {
        let source = |bytes: usize| json!({"type": "base64", "media_type": "x/y", "data": "A".repeat(bytes)});
        let tokens = |value: Value| Tally::of(&value).tokens();
        assert_eq!(tokens(json!("abcdefgh")), 2);
        assert_eq!(tokens(json!([{"type": "text", "text": "abcd"}])), 2);
        let (small, large) =
            (json!({"type": "image", "source": source(9)}), json!({"type": "image", "source": source(4_000_000)}));
        assert_eq!(tokens(small), tokens(large.clone()));
        assert!((IMAGE_TOKENS..IMAGE_TOKENS + 20).contains(&tokens(large)));
        let other = json!({"type": "image_url", "image_url": {"url": "A".repeat(9_000)}});
        assert!((IMAGE_TOKENS..IMAGE_TOKENS + 20).contains(&tokens(other)));
        let document = json!({"type": "document", "source": source(50_000)});
        assert!((1_500..2_500).contains(&tokens(document)));
    }
}
