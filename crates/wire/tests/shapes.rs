//! The exact JSON of what goes out: key order (wire.md §23), and which fields are absent and which null.

use belljar_ids::{ContainerId, FileId, MessageId, RequestId, SeededIds, ServerToolUseId, ToolUseId};
use belljar_wire::block::{ContentBlock, ResultBody, ServerResultBlock, ServerToolUseBlock, ToolUseBlock};
use belljar_wire::container::ContainerInfo;
use belljar_wire::error::{ApiError, ErrorBody, ErrorCode, ErrorKind};
use belljar_wire::event::{DeltaUsage, MessageDelta, StreamEvent};
use belljar_wire::file::{FileDeleted, FileDeletedTag, FileObject, FilePage, FileTag};
use belljar_wire::message::{
    AssistantRole, CacheCreation, Message, MessageTag, OutputTokensDetails, ServerToolUsage, StopReason, Usage,
};
use belljar_wire::models::{Capabilities, Lifecycle, ModelInfo, ModelPage, ModelTag, ServerTools, Supported};
use belljar_wire::result::{
    self, BashOutput, BashResult, CodeOutput, CodeResult, CreateResult, EditorError, ExecutionError, FileType, NoAbort,
    ResultContent, StrReplaceResult, ViewResult,
};
use belljar_wire::tool::{Caller, CodeCaller, DirectCaller};
use insta::assert_snapshot;
use serde::Serialize;
use serde_json::{Map, json};

fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("shapes serialize")
}

fn file_id() -> FileId {
    "file_01Example".parse().expect("the id is well-formed")
}

fn server_id() -> ServerToolUseId {
    "srvtoolu_01Code".parse().expect("the id is well-formed")
}

fn message() -> Message {
    Message {
        model: "any".to_owned(),
        id: MessageId::mint(&mut SeededIds::new(7)),
        tag: MessageTag::Message,
        role: AssistantRole::Assistant,
        content: Vec::new(),
        container: None,
        stop_reason: None,
        stop_sequence: None,
        stop_details: None,
        usage: Usage::default(),
    }
}

fn container() -> ContainerInfo {
    let id: ContainerId = "container_01Example".parse().expect("the id is well-formed");
    ContainerInfo { id, expires_at: "2026-11-20T18:54:08.960841Z".to_owned() }
}

#[test]
fn errors() {
    let id: RequestId = "req_01Example".parse().expect("the id is well-formed");
    let plain = ErrorBody::new(ApiError::invalid("container: Input should be a valid string"), id.clone());
    assert_snapshot!(text(&plain), @r#"{"type":"error","error":{"type":"invalid_request_error","message":"container: Input should be a valid string"},"request_id":"req_01Example"}"#);
    let coded = ApiError::invalid("no").with_code(ErrorCode::ThreadUnsupportedRequest);
    assert_snapshot!(text(&ErrorBody::new(coded.clone(), id.clone())), @r#"{"type":"error","error":{"type":"invalid_request_error","message":"no","details":{"error_code":"thread_unsupported_request"}},"request_id":"req_01Example"}"#);
    assert_snapshot!(text(&StreamEvent::Error { error: coded, request_id: id }), @r#"{"type":"error","error":{"type":"invalid_request_error","message":"no","details":{"error_code":"thread_unsupported_request"}},"request_id":"req_01Example"}"#);
}

#[test]
fn error_kinds_and_their_statuses() {
    let kinds = [
        ErrorKind::InvalidRequest,
        ErrorKind::Authentication,
        ErrorKind::Billing,
        ErrorKind::Permission,
        ErrorKind::NotFound,
        ErrorKind::Conflict,
        ErrorKind::RequestTooLarge,
        ErrorKind::RateLimit,
        ErrorKind::Api,
        ErrorKind::Timeout,
        ErrorKind::Overloaded,
    ];
    let table: Vec<String> = kinds.iter().map(|kind| format!("{} {}", kind.status(), text(kind))).collect();
    assert_snapshot!(table.join("\n"), @r#"
400 "invalid_request_error"
401 "authentication_error"
402 "billing_error"
403 "permission_error"
404 "not_found_error"
409 "conflict_error"
413 "request_too_large"
429 "rate_limit_error"
500 "api_error"
504 "timeout_error"
529 "overloaded_error"
"#);
    let codes = [
        ErrorCode::FileNotDownloadable,
        ErrorCode::FileExpired,
        ErrorCode::StorageQuotaExceeded,
        ErrorCode::RequestBodyTimeout,
        ErrorCode::RequestBodyEncodingUnsupported,
        ErrorCode::UnsupportedCharset,
        ErrorCode::ThreadUnsupportedRequest,
    ];
    assert_snapshot!(text(&codes), @r#"["file_not_downloadable","file_expired","storage_quota_exceeded","request_body_timeout","request_body_encoding_unsupported","unsupported_charset","thread_unsupported_request"]"#);
}

#[test]
fn messages() {
    assert_snapshot!(text(&message()), @r#"{"model":"any","id":"msg_01iEsYwtWiVm3i3K53j4DD7d","type":"message","role":"assistant","content":[],"stop_reason":null,"stop_sequence":null,"stop_details":null,"usage":{"input_tokens":0,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":0}}"#);
    let mut whole = message();
    whole.content.push(ContentBlock::text("Hi."));
    whole.container = Some(container());
    whole.stop_reason = Some(StopReason::StopSequence);
    whole.stop_sequence = Some("END".to_owned());
    whole.stop_details = Some(json!({"type": "refusal", "category": null, "explanation": null}));
    assert_snapshot!(text(&whole), @r#"{"model":"any","id":"msg_01iEsYwtWiVm3i3K53j4DD7d","type":"message","role":"assistant","content":[{"type":"text","text":"Hi."}],"container":{"id":"container_01Example","expires_at":"2026-11-20T18:54:08.960841Z"},"stop_reason":"stop_sequence","stop_sequence":"END","stop_details":{"type":"refusal","category":null,"explanation":null},"usage":{"input_tokens":0,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":0}}"#);
    let reasons = [
        StopReason::EndTurn,
        StopReason::MaxTokens,
        StopReason::StopSequence,
        StopReason::ToolUse,
        StopReason::PauseTurn,
        StopReason::Refusal,
        StopReason::ModelContextWindowExceeded,
    ];
    assert_snapshot!(text(&reasons), @r#"["end_turn","max_tokens","stop_sequence","tool_use","pause_turn","refusal","model_context_window_exceeded"]"#);
}

fn full_usage() -> Usage {
    Usage {
        input_tokens: 4727,
        cache_creation_input_tokens: 1,
        cache_read_input_tokens: 2,
        cache_creation: Some(CacheCreation { ephemeral_5m_input_tokens: 3, ephemeral_1h_input_tokens: 4 }),
        output_tokens: 278,
        output_tokens_details: Some(OutputTokensDetails { thinking_tokens: 5 }),
        service_tier: Some("standard".to_owned()),
        inference_geo: Some("global".to_owned()),
        speed: Some("standard".to_owned()),
        server_tool_use: Some(ServerToolUsage::default()),
    }
}

#[test]
fn usage() {
    assert_snapshot!(text(&full_usage()), @r#"{"input_tokens":4727,"cache_creation_input_tokens":1,"cache_read_input_tokens":2,"cache_creation":{"ephemeral_5m_input_tokens":3,"ephemeral_1h_input_tokens":4},"output_tokens":278,"output_tokens_details":{"thinking_tokens":5},"service_tier":"standard","inference_geo":"global","speed":"standard","server_tool_use":{"web_search_requests":0,"web_fetch_requests":0}}"#);
    let read: Usage = serde_json::from_str(&text(&full_usage())).expect("usage reads back");
    assert_eq!(read, full_usage());
    let sparse =
        r#"{"output_tokens":2,"input_tokens":1,"cache_creation_input_tokens":null,"cache_creation":null,"new":{}}"#;
    let sparse: Usage = serde_json::from_str(sparse).expect("an upstream's usage reads");
    assert_eq!(sparse, Usage { input_tokens: 1, output_tokens: 2, ..Usage::default() });
}

#[test]
fn usage_adds_up() {
    let mut sum = Usage { input_tokens: u64::MAX, ..Usage::default() };
    sum.add(&full_usage());
    let of_vendor = ServerToolUsage { web_search_requests: 3, web_fetch_requests: 4, code_execution_requests: 5 };
    sum.add(&Usage { service_tier: Some("batch".to_owned()), server_tool_use: Some(of_vendor), ..full_usage() });
    let expected = Usage {
        input_tokens: u64::MAX,
        cache_creation_input_tokens: 2,
        cache_read_input_tokens: 4,
        cache_creation: Some(CacheCreation { ephemeral_5m_input_tokens: 6, ephemeral_1h_input_tokens: 8 }),
        output_tokens: 556,
        output_tokens_details: Some(OutputTokensDetails { thinking_tokens: 10 }),
        service_tier: Some("batch".to_owned()),
        inference_geo: Some("global".to_owned()),
        speed: Some("standard".to_owned()),
        // Cells are counted where they run.
        server_tool_use: Some(ServerToolUsage { code_execution_requests: 0, ..of_vendor }),
    };
    assert_eq!(sum, expected);
}

#[test]
fn events() {
    let delta = Box::new(MessageDelta {
        stop_reason: StopReason::EndTurn,
        stop_sequence: None,
        stop_details: None,
        container: None,
    });
    let bare = StreamEvent::MessageDelta { delta: delta.clone(), usage: Box::default() };
    assert_snapshot!(text(&bare), @r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null,"stop_details":null},"usage":{"input_tokens":0,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":0}}"#);
    let usage = Box::new(DeltaUsage {
        output_tokens_details: Some(OutputTokensDetails::default()),
        server_tool_use: Some(ServerToolUsage::default()),
        ..DeltaUsage::default()
    });
    let delta = Box::new(MessageDelta { container: Some(container()), ..*delta });
    let full = StreamEvent::MessageDelta { delta, usage };
    assert_snapshot!(text(&full), @r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null,"stop_details":null,"container":{"id":"container_01Example","expires_at":"2026-11-20T18:54:08.960841Z"}},"usage":{"input_tokens":0,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":0,"output_tokens_details":{"thinking_tokens":0},"server_tool_use":{"web_search_requests":0,"web_fetch_requests":0}}}"#);
    assert_snapshot!(text(&StreamEvent::MessageStart { message: Box::new(message()) }), @r#"{"type":"message_start","message":{"model":"any","id":"msg_01iEsYwtWiVm3i3K53j4DD7d","type":"message","role":"assistant","content":[],"stop_reason":null,"stop_sequence":null,"stop_details":null,"usage":{"input_tokens":0,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":0}}}"#);
    let start = StreamEvent::ContentBlockStart { index: 0, content_block: Box::new(ContentBlock::text("")) };
    assert_snapshot!(text(&[start, StreamEvent::ContentBlockStop { index: 0 }, StreamEvent::MessageStop, StreamEvent::Ping]), @r#"[{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}},{"type":"content_block_stop","index":0},{"type":"message_stop"},{"type":"ping"}]"#);
}

#[test]
fn tool_calls() {
    let direct = ServerToolUseBlock {
        id: server_id(),
        name: "code_execution".to_owned(),
        input: json!({"code": "1"}),
        caller: Some(Caller::Direct(DirectCaller {})),
        rest: Map::new(),
    };
    assert_snapshot!(text(&ContentBlock::ServerToolUse(direct)), @r#"{"type":"server_tool_use","id":"srvtoolu_01Code","name":"code_execution","input":{"code":"1"},"caller":{"type":"direct"}}"#);
    let id: ToolUseId = "toolu_01A".parse().expect("the id is well-formed");
    let from_code = Caller::Code(CodeCaller { version: "code_execution_20260120".to_owned(), tool_id: server_id() });
    let block = ToolUseBlock { id, name: "a".to_owned(), input: json!({}), caller: Some(from_code), rest: Map::new() };
    assert_snapshot!(text(&ContentBlock::ToolUse(block.clone())), @r#"{"type":"tool_use","id":"toolu_01A","name":"a","input":{},"caller":{"type":"code_execution_20260120","tool_id":"srvtoolu_01Code"}}"#);
    assert_snapshot!(text(&ContentBlock::ToolUse(ToolUseBlock { caller: None, ..block })), @r#"{"type":"tool_use","id":"toolu_01A","name":"a","input":{}}"#);
}

/// Writes a result, and holds that it reads back.
fn made(content: ResultContent) -> String {
    let written = text(&content);
    let read: ResultContent = serde_json::from_str(&written).expect("a result reads back");
    assert_eq!(read, content);
    written
}

#[test]
fn results_of_code_and_bash() {
    let (stdout, stderr) = ("3.14\n".to_owned(), String::new());
    let bash = BashResult { stdout: stdout.clone(), stderr: stderr.clone(), return_code: 0, content: Vec::new() };
    assert_snapshot!(made(ResultContent::BashCodeExecutionResult(bash.clone())), @r#"{"type":"bash_code_execution_result","stdout":"3.14\n","stderr":"","return_code":0,"content":[]}"#);
    let with_file = BashResult { content: vec![BashOutput { file_id: file_id() }], return_code: 137, ..bash };
    let block = ContentBlock::BashCodeExecutionToolResult(ServerResultBlock {
        tool_use_id: server_id(),
        content: ResultBody::Made(ResultContent::BashCodeExecutionResult(with_file)),
        rest: Map::new(),
    });
    assert_snapshot!(text(&block), @r#"{"type":"bash_code_execution_tool_result","tool_use_id":"srvtoolu_01Code","content":{"type":"bash_code_execution_result","stdout":"3.14\n","stderr":"","return_code":137,"content":[{"type":"bash_code_execution_output","file_id":"file_01Example"}]}}"#);
    let content = vec![CodeOutput { file_id: file_id() }];
    let code = CodeResult { stdout, stderr, return_code: 1, content, abort_reason: Some(NoAbort) };
    let legacy = CodeResult { abort_reason: None, ..code.clone() };
    assert_snapshot!(made(ResultContent::CodeExecutionResult(code)), @r#"{"type":"code_execution_result","stdout":"3.14\n","stderr":"","return_code":1,"content":[{"type":"code_execution_output","file_id":"file_01Example"}],"abort_reason":null}"#);
    assert_snapshot!(made(ResultContent::CodeExecutionResult(legacy)), @r#"{"type":"code_execution_result","stdout":"3.14\n","stderr":"","return_code":1,"content":[{"type":"code_execution_output","file_id":"file_01Example"}]}"#);
    let codes = [
        result::ErrorCode::InvalidToolInput,
        result::ErrorCode::Unavailable,
        result::ErrorCode::TooManyRequests,
        result::ErrorCode::ExecutionTimeExceeded,
        result::ErrorCode::OutputFileTooLarge,
        result::ErrorCode::FileNotFound,
    ];
    assert_snapshot!(text(&codes), @r#"["invalid_tool_input","unavailable","too_many_requests","execution_time_exceeded","output_file_too_large","file_not_found"]"#);
    let error = ExecutionError { error_code: result::ErrorCode::Unavailable };
    assert_snapshot!(made(ResultContent::BashCodeExecutionToolResultError(error.clone())), @r#"{"type":"bash_code_execution_tool_result_error","error_code":"unavailable"}"#);
    assert_snapshot!(made(ResultContent::CodeExecutionToolResultError(error)), @r#"{"type":"code_execution_tool_result_error","error_code":"unavailable"}"#);
}

#[test]
fn results_of_the_text_editor() {
    let view = ViewResult {
        file_type: FileType::Text,
        content: "Hello, world!".to_owned(),
        num_lines: Some(1),
        start_line: Some(1),
        total_lines: None,
    };
    assert_snapshot!(made(ResultContent::TextEditorCodeExecutionViewResult(view)), @r#"{"type":"text_editor_code_execution_view_result","file_type":"text","content":"Hello, world!","num_lines":1,"start_line":1,"total_lines":null}"#);
    let create = CreateResult { is_file_update: false };
    assert_snapshot!(made(ResultContent::TextEditorCodeExecutionCreateResult(create)), @r#"{"type":"text_editor_code_execution_create_result","is_file_update":false}"#);
    let replace = StrReplaceResult {
        old_start: Some(4),
        old_lines: Some(2),
        new_start: Some(4),
        new_lines: None,
        lines: Some(vec![" a".to_owned(), "-b".to_owned()]),
    };
    assert_snapshot!(made(ResultContent::TextEditorCodeExecutionStrReplaceResult(replace)), @r#"{"type":"text_editor_code_execution_str_replace_result","old_start":4,"old_lines":2,"new_start":4,"new_lines":null,"lines":[" a","-b"]}"#);
    let error = EditorError { error_code: result::ErrorCode::FileNotFound, error_message: None };
    assert_snapshot!(made(ResultContent::TextEditorCodeExecutionToolResultError(error)), @r#"{"type":"text_editor_code_execution_tool_result_error","error_code":"file_not_found","error_message":null}"#);
}

#[test]
fn files() {
    let file = FileObject {
        id: file_id(),
        tag: FileTag::File,
        filename: "sales.csv".to_owned(),
        mime_type: "text/csv".to_owned(),
        size_bytes: 30,
        created_at: "2026-11-20T16:16:09.340000Z".to_owned(),
        downloadable: false,
        expires_at: None,
    };
    assert_snapshot!(text(&file), @r#"{"id":"file_01Example","type":"file","filename":"sales.csv","mime_type":"text/csv","size_bytes":30,"created_at":"2026-11-20T16:16:09.340000Z","downloadable":false,"expires_at":null}"#);
    assert_snapshot!(text(&FilePage { data: vec![], next_page: None }), @r#"{"data":[],"next_page":null}"#);
    assert_snapshot!(text(&FilePage { data: vec![file], next_page: Some("page_01".to_owned()) }), @r#"{"data":[{"id":"file_01Example","type":"file","filename":"sales.csv","mime_type":"text/csv","size_bytes":30,"created_at":"2026-11-20T16:16:09.340000Z","downloadable":false,"expires_at":null}],"next_page":"page_01"}"#);
    assert_snapshot!(text(&FileDeleted { id: file_id(), tag: FileDeletedTag::FileDeleted }), @r#"{"id":"file_01Example","type":"file_deleted"}"#);
}

#[test]
fn models() {
    let (yes, no) = (Supported { supported: true }, Supported { supported: false });
    let model = ModelInfo {
        tag: ModelTag::Model,
        id: "any".to_owned(),
        display_name: "Any".to_owned(),
        created_at: "2026-09-01T00:00:00Z".to_owned(),
        lifecycle: Lifecycle::Active,
        line: None,
        deprecated_at: None,
        retires_at: None,
        max_input_tokens: None,
        max_tokens: None,
        capabilities: Capabilities {
            batch: no,
            code_execution: no,
            server_tools: ServerTools { supported: true, code_execution: yes, web_search: no },
            image_input: None,
            pdf_input: None,
            thinking: None,
        },
    };
    assert_snapshot!(text(&model), @r#"{"type":"model","id":"any","display_name":"Any","created_at":"2026-09-01T00:00:00Z","lifecycle":"active","line":null,"deprecated_at":null,"retires_at":null,"max_input_tokens":null,"max_tokens":null,"capabilities":{"batch":{"supported":false},"code_execution":{"supported":false},"server_tools":{"supported":true,"code_execution":{"supported":true},"web_search":{"supported":false}}}}"#);
    assert_snapshot!(text(&ModelPage { data: vec![], has_more: false, first_id: None, last_id: None }), @r#"{"data":[],"has_more":false,"first_id":null,"last_id":null}"#);
}
