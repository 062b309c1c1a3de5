//! Calls and thinking that a model wrote into its text, because its server does not know the model's own format.
//!
//! Only what the operator asks for is looked for, and only a call of a tool that is on offer, with arguments that are an object, is
//! one. Everything else stays text, exactly as it was written.

mod call;
mod form;

use belljar_wire::sampling::{ModelTool, SamplingRequest};
use belljar_wire::tool::ToolChoiceMode;
use serde_json::Value;

use self::call::Written;
use self::form::{End, Form, Opening};
use super::arguments::ObjectScan;
use crate::config::Rescue;

/// Most bytes that a call may be long; what is longer is text.
const CALL_BYTES_MAX: usize = 4 << 20;

/// A tool on offer, as far as it matters here.
#[derive(Clone, Debug)]
pub(super) struct Offer {
    pub(super) name: String,
    input_schema: Value,
}

impl Offer {
    /// A tool in a body of this dialect.
    pub(super) fn of_tool(tool: &Value) -> Option<Self> {
        let function = &tool["function"];
        Some(Self { name: function["name"].as_str()?.to_owned(), input_schema: function["parameters"].clone() })
    }
}

/// What is found in a text.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Found {
    Text(String),
    Thinking(String),
    Call { name: String, arguments: String },
}

/// Reads text as it comes.
#[derive(Debug)]
pub(super) struct Rescuer {
    openings: Vec<Opening>,
    offers: Vec<Offer>,
    state: State,
    /// Not handed out yet.
    held: String,
    /// Whether nothing but white space has been handed out on this line.
    line_begins: bool,
    /// Bytes of `held` that have been looked at for an end in vain.
    seen: usize,
    object: ObjectScan,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Outside,
    Inside(Opening),
}

impl Rescuer {
    /// Looks for what `rescue` names; for calls only where the request lets the model make some.
    pub(super) fn new(rescue: &[Rescue], request: &SamplingRequest) -> Option<Self> {
        let may_call = request.tool_choice.as_ref().is_none_or(|choice| choice.mode != ToolChoiceMode::None);
        let offers = request.tools.iter().filter(|_| may_call).map(offer).collect();
        Self::of(rescue, offers)
    }

    /// The same for tools of which that much is known.
    pub(super) fn of(rescue: &[Rescue], offers: Vec<Offer>) -> Option<Self> {
        let openings = form::openings(rescue, !offers.is_empty());
        let looks = !openings.is_empty();
        looks.then(|| Self {
            openings,
            offers,
            state: State::Outside,
            held: String::new(),
            line_begins: true,
            seen: 0,
            object: ObjectScan::default(),
        })
    }

    /// The same for tools of which only the names are known.
    #[cfg(any(test, fuzzing))]
    pub(super) fn offering(rescue: &[Rescue], names: &[String]) -> Option<Self> {
        let offer = |name: &String| Offer { name: name.clone(), input_schema: Value::Null };
        Self::of(rescue, names.iter().map(offer).collect())
    }

    /// Takes a piece of text; finds what is certain by now.
    pub(super) fn push(&mut self, piece: &str, found: &mut Vec<Found>) {
        self.held.push_str(piece);
        while self.step(found) {}
    }

    /// The text is over: what is open is taken for closed.
    pub(super) fn finish(&mut self, found: &mut Vec<Found>) {
        self.push("", found);
        while let State::Inside(opening) = self.state {
            let inside = self.held[opening.marker.len()..].to_owned();
            if opening.form == Form::Thinking {
                found.push(Found::Thinking(inside));
            } else if !self.take_calls(opening.form, &inside, found) {
                // Behind what was no call there may be one.
                self.give_up(first_char(&self.held), found);
                while self.step(found) {}
                continue;
            }
            self.state = State::Outside;
            self.held.clear();
        }
        let rest = std::mem::take(&mut self.held);
        self.say(&rest, found);
    }

    /// One step; false when more text is needed.
    fn step(&mut self, found: &mut Vec<Found>) -> bool {
        match self.state {
            State::Outside => self.look(found),
            State::Inside(opening) => self.look_for_end(opening, found),
        }
    }

    /// Hands text out up to the first opening, or to what may become one.
    fn look(&mut self, found: &mut Vec<Found>) -> bool {
        let mut first: Option<(usize, Opening)> = None;
        for opening in &self.openings {
            let at = self.places(opening).find(|at| self.opens_at(*at, opening));
            if let Some(at) = at.filter(|at| first.is_none_or(|(best, _)| *at < best)) {
                first = Some((at, *opening));
            }
        }
        let end = first.map_or_else(|| self.held.len() - self.unfinished_marker(), |(at, _)| at);
        let text: String = self.held.drain(..end).collect();
        self.say(&text, found);
        match first {
            Some((_, opening)) => {
                self.state = State::Inside(opening);
                self.seen = 0;
                self.object = ObjectScan::default();
                true
            }
            None => false,
        }
    }

    fn places<'a>(&'a self, opening: &'a Opening) -> impl Iterator<Item = usize> + 'a {
        self.held.match_indices(opening.marker).map(|(at, _)| at)
    }

    fn opens_at(&self, at: usize, opening: &Opening) -> bool {
        if !opening.at_line_start {
            return true;
        }
        match self.held[..at].rsplit_once('\n') {
            Some((_, line)) => line.trim().is_empty(),
            None => self.line_begins && self.held[..at].trim().is_empty(),
        }
    }

    /// Bytes at the end that may be the beginning of a marker.
    fn unfinished_marker(&self) -> usize {
        let longest = |opening: &Opening| {
            let marker = opening.marker;
            let ends = (1..marker.len()).rev().filter(|end| marker.is_char_boundary(*end));
            ends.into_iter().find(|end| self.held.ends_with(&marker[..*end])).unwrap_or(0)
        };
        self.openings.iter().map(longest).max().unwrap_or(0)
    }

    /// Hands out what is inside, once it is closed.
    fn look_for_end(&mut self, opening: Opening, found: &mut Vec<Found>) -> bool {
        let Some((begin, end, behind)) = self.end_of(opening) else {
            if opening.form == Form::Thinking {
                self.think_on(opening, found);
            } else if self.held.len() > CALL_BYTES_MAX {
                self.give_up(first_char(&self.held), found);
                return true;
            }
            return false;
        };
        let inside = self.held[begin..end].to_owned();
        if opening.form == Form::Thinking {
            found.push(Found::Thinking(inside));
        } else if !self.take_calls(opening.form, &inside, found) {
            // Of an object, no part is a call either.
            let given_up = if matches!(opening.end, End::Object) { end } else { first_char(&self.held) };
            self.give_up(given_up, found);
            return true;
        }
        self.held.drain(..behind);
        self.state = State::Outside;
        self.line_begins = true;
        true
    }

    /// Where what is inside begins and ends, and where the text goes on; none while it is open.
    fn end_of(&mut self, opening: Opening) -> Option<(usize, usize, usize)> {
        let begin = opening.marker.len();
        match opening.end {
            End::Markers(markers) => {
                let longest = markers.iter().map(|marker| marker.len()).max().unwrap_or(0);
                let from = self.held.floor_char_boundary(self.seen.saturating_sub(longest).max(begin));
                let rest = &self.held[from..];
                let first = markers.iter().filter_map(|marker| Some((rest.find(marker)?, marker.len()))).min();
                self.seen = self.held.len();
                first.map(|(at, length)| (begin, from + at, from + at + length))
            }
            End::Object => {
                let rest = &self.held.as_bytes()[self.seen..];
                for (count, byte) in rest.iter().enumerate() {
                    self.object.step(*byte);
                    if self.object.is_whole() {
                        let end = self.seen + count + 1;
                        return Some((0, end, end));
                    }
                }
                self.seen = self.held.len();
                None
            }
        }
    }

    /// Thinking is handed out as it comes, all but what may become its end.
    fn think_on(&mut self, opening: Opening, found: &mut Vec<Found>) {
        let longest = form::MARKER_BYTES_MAX;
        let begin = opening.marker.len();
        let end = self.held.floor_char_boundary(self.held.len().saturating_sub(longest));
        if end > begin {
            found.push(Found::Thinking(self.held.drain(begin..end).collect()));
            self.seen = begin;
        }
    }

    /// What was open is no call: its first bytes are text, and what follows is looked at again.
    fn give_up(&mut self, bytes: usize, found: &mut Vec<Found>) {
        let text: String = self.held.drain(..bytes).collect();
        self.say(&text, found);
        self.state = State::Outside;
    }

    fn take_calls(&self, form: Form, inside: &str, found: &mut Vec<Found>) -> bool {
        let Some(calls) = call::read(form, inside, &self.offers) else {
            return false;
        };
        let found_call = |Written { name, arguments }| Found::Call { name, arguments: arguments.to_string() };
        found.extend(calls.into_iter().map(found_call));
        true
    }

    fn say(&mut self, text: &str, found: &mut Vec<Found>) {
        if text.is_empty() {
            return;
        }
        self.line_begins = match text.rsplit_once('\n') {
            Some((_, line)) => line.trim().is_empty(),
            None => self.line_begins && text.trim().is_empty(),
        };
        found.push(Found::Text(text.to_owned()));
    }
}

fn first_char(text: &str) -> usize {
    text.chars().next().map_or(0, char::len_utf8)
}

fn offer(tool: &ModelTool) -> Offer {
    let input_schema = match tool {
        ModelTool::Custom(tool) => tool.input_schema.clone(),
        ModelTool::Server { input_schema, .. } => input_schema.clone(),
        ModelTool::Vendor(_) | ModelTool::Hosted(_) => Value::Null,
    };
    Offer { name: tool.name().unwrap_or_default().to_owned(), input_schema }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAME: &str = "look_up";

    fn read(rescue: &[Rescue], pieces: &[&str]) -> Vec<Found> {
        let mut rescuer = Rescuer::offering(rescue, &[NAME.to_owned()]).expect("there is something to look for");
        let mut found = Vec::new();
        pieces.iter().for_each(|piece| rescuer.push(piece, &mut found));
        rescuer.finish(&mut found);
        let mut joined: Vec<Found> = Vec::new();
        for one in found {
            match (joined.last_mut(), one) {
                (Some(Found::Text(text)), Found::Text(more)) => text.push_str(&more),
                (Some(Found::Thinking(text)), Found::Thinking(more)) => text.push_str(&more),
                (_, one) => joined.push(one),
            }
        }
        joined
    }

    /// Texts made of what the forms are made of.
    fn texts() -> impl Strategy<Value = Vec<&'static str>> {
        let fragments = [
            "<think>",
            "</think>",
            "<tool_call>",
            "</tool_call>",
            "<function=look_up>",
            "</function>",
            "<parameter=q>",
            "</parameter>",
            "<|python_tag|>",
            "<|eom_id|>",
            "[TOOL_CALLS]",
            "[ARGS]",
            "```json\n",
            "\n```",
            "\n",
            "{",
            "}",
            "\"",
            "é",
            "<",
            "look_up",
            "<｜tool▁calls▁begin｜>",
            "<｜tool▁call▁begin｜>look_up<｜tool▁sep｜>{}<｜tool▁call▁end｜>",
            "<｜tool▁calls▁end｜>",
            "<|tool_calls_section_begin|>",
            "<|tool_call_begin|>look_up:0<|tool_call_argument_begin|>{}<|tool_call_end|>",
            "<|tool_calls_section_end|>",
            "a b",
            "{\"name\": \"look_up\", \"arguments\": {\"q\": 1}}",
            "{\"name\": \"other\"}",
        ];
        proptest::collection::vec(proptest::sample::select(fragments.to_vec()), 0..14)
    }

    proptest! {
        #[test]
        fn how_a_text_is_cut_does_not_matter(fragments in texts(), cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..9)) {
            let text = fragments.concat();
            let mut places: Vec<usize> = cuts.iter().map(|cut| text.floor_char_boundary(cut.index(text.len() + 1))).collect();
            places.extend([0, text.len()]);
            places.sort_unstable();
            let pieces: Vec<&str> = places.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            for (rescue, _) in Rescue::ALL {
                prop_assert_eq!(read(&[rescue], &[text.as_str()]), read(&[rescue], &pieces), "{:?}", rescue);
            }
            let all = Rescue::ALL.map(|(rescue, _)| rescue);
            prop_assert_eq!(read(&all, &[text.as_str()]), read(&all, &pieces));
        }

        #[test]
        fn what_is_no_call_stays_as_it_was(fragments in texts()) {
            let text = fragments.concat().replace("look_up", "lock_up");
            let calls: Vec<Rescue> =
                Rescue::ALL.into_iter().map(|(rescue, _)| rescue).filter(|rescue| *rescue != Rescue::Thinking).collect();
            let expected: Vec<Found> = Some(text.clone()).filter(|text| !text.is_empty()).map(Found::Text).into_iter().collect();
            prop_assert_eq!(read(&calls, &[text.as_str()]), expected);
        }
    }
}
