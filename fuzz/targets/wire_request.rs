//! Bodies of `POST /v1/messages`: read or refused in words, never more; and what is read can be planned or is refused.
#![no_main]

use belljar_turn::{ModelTraits, PlanContext, SAMPLINGS_MAX_DEFAULT, ToolLimits, ToolTexts, plan};
use belljar_wire::beta::{ApiVersion, Betas};
use belljar_wire::request::MessagesRequest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    match MessagesRequest::read(body) {
        Err(error) => assert!(!error.message.is_empty() && error.message.len() < 4096, "{}", error.message),
        Ok(request) => {
            assert!(serde_json::from_slice::<serde_json::Value>(body).is_ok(), "accepted what is no JSON");
            let model = ModelTraits::of(&request.model);
            let context = PlanContext {
                api_version: ApiVersion::V20261021,
                betas: &Betas::default(),
                samplings_max: SAMPLINGS_MAX_DEFAULT,
                limits: ToolLimits::default(),
                texts: ToolTexts::hosted(),
                model,
                hosted: None,
            lost_cells: &[],
            };
            let _planned_or_refused = plan(request, &context);
        }
    }
});
