//! The hosted Messages API.

use belljar_wire::sampling::SamplingRequest;

use crate::config::{ConfigError, Secret, Timeouts};
use crate::error::{UpstreamError, UpstreamErrorKind};
use crate::upstream::{SamplingHints, SamplingStream, Upstream};

pub(crate) struct Address<'a> {
    pub(crate) base_url: &'a str,
    pub(crate) proxy: Option<&'a str>,
}

pub(crate) struct Anthropic {
    name: String,
    models: Vec<String>,
}

impl Anthropic {
    pub(crate) fn new(
        name: String,
        _address: &Address<'_>,
        _key: &Secret,
        _model: Option<String>,
        _timeouts: Timeouts,
        models: Vec<String>,
    ) -> Result<Self, ConfigError> {
        Ok(Self { name, models })
    }
}

impl Upstream for Anthropic {
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
