//! The scripted model.

use belljar_wire::sampling::SamplingRequest;

use crate::config::ConfigError;
use crate::error::{UpstreamError, UpstreamErrorKind};
use crate::upstream::{SamplingHints, SamplingStream, Upstream};

pub(crate) struct Scripted {
    name: String,
    models: Vec<String>,
}

impl Scripted {
    pub(crate) fn new(
        name: String,
        _scripts_dir: Option<&std::path::Path>,
        models: Vec<String>,
    ) -> Result<Self, ConfigError> {
        Ok(Self { name, models })
    }
}

impl Upstream for Scripted {
    fn name(&self) -> &str {
        &self.name
    }
    fn sample(&self, _request: SamplingRequest, _hints: SamplingHints) -> SamplingStream {
        Box::pin(futures_util::stream::iter([Err(UpstreamError::new(
            UpstreamErrorKind::Unavailable,
            "not yet",
        ))]))
    }
    fn models(&self) -> Vec<String> {
        self.models.clone()
    }
}
