//! One recording, played: each request is read, planned and run; its events are written as the server writes them, and held
//! against the recorded ones.

use std::collections::HashMap;

use belljar_ids::{RequestId, SeededIds};
use belljar_turn::{ModelTraits, PlanContext, SAMPLINGS_MAX_DEFAULT, ToolLimits, ToolTexts, Turn, TurnPlan, plan};
use belljar_wire::beta::{ApiVersion, Betas};
use belljar_wire::difference::{Difference, KeyOrder, Side, differences, is_sorted};
use belljar_wire::error::ApiError;
use belljar_wire::event::StreamEvent;
use belljar_wire::fold::fold;
use belljar_wire::normal::{Normal, Said};
use belljar_wire::request::MessagesRequest;
use belljar_wire::sse;
use bytes::BytesMut;
use serde_json::{Value, json};

use crate::pieces::Reply;
use crate::recording::{Exchange, Request, Response};
use crate::stub::{Asked, Stub};

/// What one exchange came to.
pub enum Outcome {
    /// It is no request for a message, or holds what cannot be played; the text says what.
    NotPlayed(String),
    /// This server refuses what was accepted.
    Refused(String),
    /// Played to its end; equal when there are no differences.
    Played(Vec<Difference>),
    /// The turn went another way than the recording.
    Astray(String),
}

/// Betas for requests whose recorder hid them: the ones that tools need.
const HIDDEN_BETAS: &str = "code-execution-2025-05-22";

/// A recording under way: the ids of both sides carry over from one exchange to the next.
pub struct Conversation {
    recorded: Normal,
    ours: Normal,
    known: HashMap<String, String>,
    ids: SeededIds,
    turns: u64,
}

impl Conversation {
    pub fn new() -> Self {
        Self {
            recorded: Normal::new(Said::Kept),
            ours: Normal::new(Said::Kept),
            known: HashMap::new(),
            ids: SeededIds::new(1),
            turns: 0,
        }
    }

    pub fn play(&mut self, exchange: &Exchange) -> Outcome {
        let Exchange { request, response } = exchange;
        if !request.is_for_a_message() {
            return Outcome::NotPlayed(format!("no request for a message: {}", request.what()));
        }
        let body = with_ids(request.body.clone(), &self.known);
        self.recorded.request(&request.body);
        self.ours.request(&body);
        let planned = planned(request, &body);
        match (planned, response.status) {
            (Ok(plan), 200) => self.run(plan, &body, response),
            (Ok(_), status) => Outcome::NotPlayed(format!("the recorded side failed with {status}")),
            (Err(error), 200) => Outcome::Refused(error.message),
            (Err(error), status) => self.compare_refusal(&error, status, &response.body),
        }
    }

    fn run(&mut self, plan: TurnPlan, body: &Value, response: &Response) -> Outcome {
        let reply = match Reply::of(response, &mut self.ids) {
            Ok(reply) => reply,
            Err(what) => return Outcome::NotPlayed(format!("it has {what}")),
        };
        self.turns += 1;
        let asked = Asked { body, container: plan.container.clone(), version: plan.has_code_execution };
        let request_id: RequestId = format!("req_{}", self.turns).parse().expect("a request id");
        let (mut turn, effects) = Turn::start(plan, request_id, Box::new(SeededIds::new(1000 + self.turns)));
        let mut stub = Stub::new(reply, &asked, &mut self.known, &mut self.ids);
        if let Err(what) = stub.play(&mut turn, effects) {
            return Outcome::Astray(what);
        }
        let Stub { events, failed, .. } = stub;
        if let Some(error) = failed {
            return Outcome::Astray(format!("the turn failed: {error}"));
        }
        let found = self.compare(body["stream"] == true, events, response);
        self.learn_ids();
        found
    }

    fn compare(&mut self, stream: bool, events: Vec<StreamEvent>, response: &Response) -> Outcome {
        let whole =
            |event: &sse::RawEvent| event.data["message"]["content"].as_array().is_some_and(|it| !it.is_empty());
        match (stream, response.events()) {
            (true, Some(recorded)) => match recorded.first().filter(|event| whole(event)) {
                // A message that came whole in its head is held against the message that our events come to.
                Some(head) => {
                    let form = Difference {
                        at: "(stream)".to_owned(),
                        left: Side::Is(json!("whole in message_start")),
                        right: Side::Is(json!("block by block")),
                    };
                    let message = head.data["message"].clone();
                    let mut found = vec![form];
                    let place = |found: Difference| Difference { at: format!("(in one event).{}", found.at), ..found };
                    found.extend(self.messages(message, events).into_iter().map(place));
                    Outcome::Played(found)
                }
                None => {
                    let ours = sse::read(&written(&events)).expect("what we write reads");
                    let (recorded, ours) = (self.recorded.events(recorded), self.ours.events(ours));
                    Outcome::Played(differences(&json!(recorded), &json!(ours), KeyOrder::Counts))
                }
            },
            (false, None) => Outcome::Played(self.messages(response.body.clone(), events)),
            (true, None) => Outcome::NotPlayed("a stream was asked for, and none was recorded".to_owned()),
            (false, Some(_)) => Outcome::NotPlayed("no stream was asked for, and one was recorded".to_owned()),
        }
    }

    fn messages(&mut self, recorded: Value, events: Vec<StreamEvent>) -> Vec<Difference> {
        let order = if is_sorted(&recorded) { KeyOrder::Lost } else { KeyOrder::Counts };
        let message = fold(events).expect("a turn's events fold");
        let ours = serde_json::to_value(&message).expect("a message serializes");
        differences(&self.recorded.message(recorded), &self.ours.message(ours), order)
    }

    fn compare_refusal(&mut self, error: &ApiError, status: u16, recorded: &Value) -> Outcome {
        let ours = json!({ "status": error.kind.status(), "error": error });
        let recorded = json!({ "status": status, "error": recorded["error"] });
        let (recorded, ours) = (self.recorded.message(recorded), self.ours.message(ours));
        Outcome::Played(differences(&recorded, &ours, KeyOrder::Counts))
    }

    /// Ids that stand at the same places are the same: the next request, which has the recording's, is sent with ours.
    fn learn_ids(&mut self) {
        let ours: HashMap<&String, &String> = self.ours.ids().iter().map(|(id, name)| (name, id)).collect();
        for (recorded, name) in self.recorded.ids() {
            if let Some(id) = ours.get(name) {
                self.known.insert(recorded.clone(), (*id).clone());
            }
        }
    }
}

fn written(events: &[StreamEvent]) -> String {
    let mut out = BytesMut::new();
    events.iter().for_each(|event| sse::encode(event, &mut out));
    String::from_utf8(out.to_vec()).expect("a stream is UTF-8")
}

/// The same with our ids, wherever a whole text is one of the recording's.
fn with_ids(value: Value, known: &HashMap<String, String>) -> Value {
    match value {
        Value::String(text) => known.get(&text).cloned().unwrap_or(text).into(),
        Value::Array(items) => items.into_iter().map(|item| with_ids(item, known)).collect(),
        Value::Object(members) => members.into_iter().map(|(key, value)| (key, with_ids(value, known))).collect(),
        value @ (Value::Null | Value::Bool(_) | Value::Number(_)) => value,
    }
}

fn planned(request: &Request, body: &Value) -> Result<TurnPlan, ApiError> {
    let read = MessagesRequest::read(body.to_string().as_bytes())?;
    let betas = Betas::read([request.header("anthropic-beta").unwrap_or(HIDDEN_BETAS)])?;
    let context = PlanContext {
        api_version: ApiVersion::read(request.header("anthropic-version").or(Some("2023-06-01")))?,
        betas: &betas,
        samplings_max: SAMPLINGS_MAX_DEFAULT,
        limits: ToolLimits::default(),
        texts: ToolTexts::hosted(),
        model: ModelTraits::of(&read.model),
        hosted: None,
        lost_cells: &[],
    };
    plan(read, &context)
}
