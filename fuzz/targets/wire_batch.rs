//! Bodies of `POST /v1/messages/batches`: read or refused in words; what is read lies within the body and can be asked for as it stands.
#![no_main]

use std::collections::HashSet;

use belljar_wire::batch;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| match batch::read(body) {
    Err(error) => assert!(!error.message.is_empty() && error.message.len() < 4096, "{}", error.message),
    Ok(items) => {
        assert!(serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok(), "accepted what is no JSON");
        let names: HashSet<&str> = items.iter().map(|item| item.custom_id.as_str()).collect();
        assert_eq!(names.len(), items.len(), "a name twice");
        for item in &items {
            assert!(body.as_ptr_range().contains(&item.params.as_ptr()), "params from elsewhere");
            assert!(item.params.starts_with('{') && item.params.ends_with('}'), "{}", item.params);
        }
    }
});
