//! The files that a turn brings into its container (wire.md §8.1).

use std::collections::HashSet;

use belljar_turn::TurnPlan;
use belljar_wire::block::ContentBlock;
use belljar_wire::error::ErrorKind;
use belljar_wire::request::{InputMessage, Role};

use crate::app::Shared;
use crate::clock;
use crate::driver::Upload;
use crate::failure::Failure;
use crate::principal::Principal;
use crate::routes::files::{expired, find};

/// Uploads of turns that are over. A fresh container gets them as well, which the hosted API's does not (divergence/uploads-in-containers.md);
/// so a file that is gone by now must not keep the conversation from going on.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Earlier(HashSet<String>);

impl Earlier {
    /// Reads a conversation. Its last turn begins with the last message of the user that answers no tool.
    pub fn of(messages: &[InputMessage]) -> Self {
        let begins = messages.iter().rposition(|message| {
            let blocks = message.content.blocks();
            message.role == Role::User && !blocks.iter().any(|block| matches!(block, ContentBlock::ToolResult(_)))
        });
        let (earlier, current) = messages.split_at(begins.unwrap_or(0));
        let current: HashSet<&String> = current.iter().flat_map(file_ids).collect();
        Self(earlier.iter().flat_map(file_ids).filter(|id| !current.contains(id)).cloned().collect())
    }
}

fn file_ids(message: &InputMessage) -> impl Iterator<Item = &String> {
    message.content.blocks().iter().filter_map(|block| {
        let ContentBlock::ContainerUpload(upload) = block else { return None };
        Some(&upload.file_id)
    })
}

/// The files of a turn. A request that names a missing or expired file fails before the first sampling (wire.md §9.5).
pub async fn find_all(
    app: &Shared,
    principal: &Principal,
    plan: &TurnPlan,
    earlier: &Earlier,
) -> Result<Vec<Upload>, Failure> {
    let mut uploads = Vec::with_capacity(plan.uploads.len());
    for text in &plan.uploads {
        let found = find_one(app, principal, text).await;
        match found {
            Ok(upload) => uploads.push(upload),
            Err(failure) if earlier.0.contains(text) && is_of_the_file(&failure) => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(uploads)
}

/// Whether the file is gone, and not the way to it.
fn is_of_the_file(failure: &Failure) -> bool {
    matches!(failure.kind(), ErrorKind::NotFound | ErrorKind::InvalidRequest)
}

async fn find_one(app: &Shared, principal: &Principal, text: &str) -> Result<Upload, Failure> {
    let record = find(app, principal, text).await?;
    if record.expired(clock::now()) {
        return Err(expired(&record).into());
    }
    Ok(Upload { filename: record.filename.in_container(), id: record.id })
}

#[cfg(test)]
mod tests {
    use super::*;
    use belljar_wire::request::MessagesRequest;
    use serde_json::{Value, json};

    fn earlier(messages: Value) -> Vec<String> {
        let body = json!({ "model": "m", "max_tokens": 1, "messages": messages }).to_string();
        let request = MessagesRequest::read(body.as_bytes()).expect("a request");
        let mut ids: Vec<String> = Earlier::of(&request.messages).0.into_iter().collect();
        ids.sort();
        ids
    }

    #[test]
    fn a_turn_begins_with_what_the_user_says_by_itself() {
        let upload = |id: &str| json!({ "type": "container_upload", "file_id": id });
        let user = |blocks: Value| json!({ "role": "user", "content": blocks });
        let said = json!({ "role": "assistant", "content": "said" });
        let called = json!({ "role": "assistant", "content": [{ "type": "tool_use", "id": "toolu_01", "name": "t", "input": {} }] });
        let result = user(json!([{ "type": "tool_result", "tool_use_id": "toolu_01", "content": "1" }]));
        let one = user(json!([upload("file_01a")]));
        let two = user(json!([upload("file_01b")]));
        let none = user(json!("go on"));
        assert_eq!(earlier(json!([one])), [""; 0]);
        assert_eq!(earlier(json!([one, said, none])), ["file_01a"]);
        assert_eq!(earlier(json!([one, said, two])), ["file_01a"]);
        assert_eq!(earlier(json!([one, said, one])), [""; 0], "named again");
        assert_eq!(earlier(json!([one, said, two, called, result])), ["file_01a"], "a tool's result ends no turn");
        assert_eq!(earlier(json!([one, called, result])), [""; 0]);
    }
}
