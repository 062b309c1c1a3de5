//! The Responses API, for endpoints that offer nothing else: the same request in other words, the same reply in other events.
//!
//! Nothing is kept upstream (`store` is false): the conversation is sent whole, as the Messages API has it.

mod events;
mod request;

pub(super) use events::Reader;
pub(super) use request::of_chat;
