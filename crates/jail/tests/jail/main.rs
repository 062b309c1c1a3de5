//! Containers started for real: what they see, what they are refused, how they fail and how they end.

mod failures;
mod harness;
mod joining;
mod limits;
mod nurseries;
mod ordinary;
mod policy;
mod probing;
mod programs;
mod refusals;
mod view;
mod zygotes;
