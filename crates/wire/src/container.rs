//! The `container` of requests and replies (wire.md §7).

use belljar_ids::ContainerId;
use serde::Serialize;
use serde_json::Value;

use crate::error::ApiError;
use crate::read::{Object, Path};

/// The container a request asks for. The id is kept as sent: whether it names one of ours is found out where containers live.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerParam {
    /// The id of an earlier container; absent means a new one when first needed.
    pub id: Option<String>,
    /// Skills to mount; absent and empty are the same.
    pub skills: Vec<SkillParam>,
}

/// One entry of `container.skills`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkillParam {
    /// `anthropic` or `custom`.
    pub kind: String,
    /// `xlsx`, or `skill_…`.
    pub skill_id: String,
    /// A version, or `latest`; absent means the latest.
    pub version: Option<String>,
}

impl ContainerParam {
    /// Reads any of the five forms of wire.md §7.1 but `null`.
    pub fn read(value: Value, path: Path<'_>) -> Result<Self, ApiError> {
        match value {
            Value::String(id) => Ok(Self { id: Some(id), skills: Vec::new() }),
            Value::Object(_) => {
                let mut object = Object::new(value, path)?;
                let id = object.optional_string("id")?;
                let skills = object.optional_list("skills", SkillParam::read)?.unwrap_or_default();
                object.finish()?;
                Ok(Self { id, skills })
            }
            _ => Err(path.error("Input should be a valid string")),
        }
    }
}

impl SkillParam {
    fn read(value: Value, path: Path<'_>) -> Result<Self, ApiError> {
        let mut object = Object::new(value, path)?;
        let skill = Self {
            kind: object.string("type")?,
            skill_id: object.string("skill_id")?,
            version: object.optional_string("version")?,
        };
        object.finish()?;
        Ok(skill)
    }
}

/// The container as a reply names it (wire.md §7.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ContainerInfo {
    /// `container_…`.
    pub id: ContainerId,
    /// RFC 3339 with microseconds and `Z`: when the container goes unless it is used again.
    pub expires_at: String,
}
