//! Somebody's stream, read and brought into its normal form, which is its own.
#![no_main]

use belljar_wire::difference::{KeyOrder, differences};
use belljar_wire::normal::{Normal, Said};
use belljar_wire::sse::{RawEvent, read};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|stream: &str| {
    let Ok(events) = read(stream) else { return };
    for said in [Said::Kept, Said::LeftOut] {
        let normal = Value::from(Normal::new(said).events(events.clone()));
        let again = Value::from(Normal::new(said).events(events.clone()));
        assert!(differences(&normal, &again, KeyOrder::Counts).is_empty());
    }
    let joined = Normal::new(Said::Kept).events(events);
    let named = joined.iter().map(|data| {
        let name = data["type"].as_str()?.to_owned();
        Some(RawEvent { name, data: data.clone() })
    });
    // An event by another name is kept as it is, and is none of its own.
    let Some(joined) = named.collect::<Option<Vec<RawEvent>>>() else { return };
    // Joined pieces have no neighbours that they could be joined with.
    assert_eq!(Normal::new(Said::Kept).events(joined.clone()).len(), joined.len());
});
