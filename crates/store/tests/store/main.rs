//! The store through its public face, on a real disk.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod backups;
mod batches;
mod checkpoints;
mod clock;
mod collection;
mod contents;
mod crash;
mod disk_full;
mod files;
mod fixture;
mod listing;
mod named_checkpoints;
mod opening;
mod place;
mod records;
mod registry;
mod services;
mod tenants;
mod values;
