//! The scripted model, through the door by which the server sees it.

mod asked;
mod bad_scripts;
mod played;
mod rule;
mod steps;
#[path = "../support/mod.rs"]
mod support;
