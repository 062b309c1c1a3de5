//! The public shapes of the wire: what clients send, what they get back, and nothing else.
//!
//! Pure data: no IO, no clock, no policy. What a request *means* is decided in `turn`; this crate only says whether it has
//! the right shape, keeps what it does not know, and is the only place that writes a reply:
//!
//! * [`request::MessagesRequest::read`] turns bytes into a faithful request, or into the error a client would see;
//! * [`event::StreamEvent`] is the one form in which a reply is produced; [`sse::encode`] writes it as a stream, [`fold::Fold`]
//!   folds it into the plain [`message::Message`]. There is no second encoder.
//!
//! What others wrote is read back only to be compared: [`sse::read`], [`normal`], [`difference`].
//!
//! The rules come from the specification of the wire; sections are cited as "wire.md §n".

pub mod batch;
pub mod beta;
pub mod block;
pub mod container;
pub mod difference;
pub mod error;
pub mod event;
pub mod file;
pub mod fold;
pub mod host_tool;
pub mod hosted_tool;
pub mod media;
pub mod message;
pub mod models;
pub mod normal;
mod partial;
pub mod read;
pub mod request;
pub mod result;
pub mod sampling;
pub mod sse;
pub mod tool;
