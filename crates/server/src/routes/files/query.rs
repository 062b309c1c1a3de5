//! The query of `GET /v1/files` (wire.md §9.3, §9.6, §19 row 27).

use belljar_store::FileQuery;
use belljar_wire::beta::Betas;
use belljar_wire::error::ApiError;
use http::HeaderMap;

use crate::routes::page::{self, Part, limit, pairs, unknown};

/// The beta header's value that selects the old dialect.
const OLD_DIALECT: &str = "files-api-2025-04-14";
/// The one that selects both at once (wire.md §9.6).
const BOTH_DIALECTS: &str = "managed-agents-2026-04-01";

const IDS_MAX: usize = 100;

/// Which of the two forms a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `page`, `next_page`, `expires_at`.
    Current,
    /// `before_id`, `after_id`, `has_more`.
    Old,
    /// The current one, whose list also says what the old one says and takes its cursors.
    Both,
}

impl Dialect {
    /// Reads the beta headers.
    ///
    /// # Errors
    /// A beta value that is none (wire.md §19 row 2).
    pub fn read(headers: &HeaderMap) -> Result<Self, ApiError> {
        // Lossy: a value that is no text is read as one that is unknown, and refused.
        let values = headers.get_all("anthropic-beta").iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        let values: Vec<_> = values.collect();
        let betas = Betas::read(values.iter().map(AsRef::as_ref))?;
        Ok(match (betas.has(OLD_DIALECT), betas.has(BOTH_DIALECTS)) {
            (true, _) => Self::Old,
            (false, true) => Self::Both,
            (false, false) => Self::Current,
        })
    }
}

/// A checked query.
#[derive(Debug, PartialEq, Eq)]
pub struct FileList {
    /// What to ask the store.
    pub query: FileQuery,
}

#[derive(Default)]
struct Raw {
    limit: Option<String>,
    page: Option<String>,
    ids: Vec<String>,
    after_id: Option<String>,
    before_id: Option<String>,
    scoped: bool,
}

impl FileList {
    /// Reads and checks a raw query.
    pub fn read(query: &str, dialect: Dialect) -> Result<Self, ApiError> {
        let raw = Raw::read(query)?;
        let (limit, scoped) = (limit(raw.limit.as_deref())?, raw.scoped);
        let query = match dialect {
            Dialect::Current => raw.current(limit)?,
            Dialect::Both if raw.after_id.is_none() && raw.before_id.is_none() => raw.current(limit)?,
            Dialect::Old | Dialect::Both => raw.old(limit)?,
        };
        // A scope is a session of another product of the hosted API (wire.md §9.1): no file of ours is in one.
        Ok(Self { query: if scoped { FileQuery::Ids(Vec::new()) } else { query } })
    }
}

impl Raw {
    fn read(query: &str) -> Result<Self, ApiError> {
        let mut raw = Self::default();
        let pairs: Vec<(String, String)> = pairs(query)?;
        for (name, value) in pairs {
            match name.as_str() {
                "limit" => raw.limit = Some(value),
                "page" => raw.page = Some(value),
                "ids[]" | "ids" => raw.ids.push(value),
                "after_id" => raw.after_id = Some(value),
                "before_id" => raw.before_id = Some(value),
                "scope_id" => raw.scoped = true,
                // Old SDKs add it to every beta call (wire.md §1.4).
                "beta" => {}
                other => return Err(unknown(other)),
            }
        }
        raw.ids.sort_unstable();
        raw.ids.dedup();
        Ok(raw)
    }

    fn current(self, limit: u16) -> Result<FileQuery, ApiError> {
        if self.after_id.is_some() || self.before_id.is_some() {
            let name = if self.after_id.is_some() { "after_id" } else { "before_id" };
            return Err(ApiError::invalid(format!("{name}: Extra inputs are not permitted; use `page`")));
        }
        if !self.ids.is_empty() {
            return self.by_ids();
        }
        let after = self.page.as_deref().map(page::cursor).transpose()?;
        Ok(FileQuery::Page { limit, after })
    }

    fn by_ids(self) -> Result<FileQuery, ApiError> {
        if self.page.is_some() || self.limit.is_some() {
            return Err(ApiError::invalid("ids[]: cannot be combined with `page` or `limit`"));
        }
        if self.ids.len() > IDS_MAX {
            return Err(ApiError::invalid(format!("ids[]: at most {IDS_MAX} ids are allowed")));
        }
        // Unknown ids are dropped silently, and what is no id is unknown.
        Ok(FileQuery::Ids(self.ids.iter().filter_map(|id| id.parse().ok()).collect()))
    }

    fn old(self, limit: u16) -> Result<FileQuery, ApiError> {
        // Read past, they would give a client that pages by them its first page for ever.
        if self.page.is_some() {
            return Err(ApiError::invalid("page: Extra inputs are not permitted; use `after_id`"));
        }
        if !self.ids.is_empty() {
            return Err(ApiError::invalid("ids[]: Extra inputs are not permitted beside `after_id` and `before_id`"));
        }
        Ok(match Part::of(self.after_id, self.before_id)?.parse("file id")? {
            Part::First => FileQuery::Page { limit, after: None },
            Part::After(id) => FileQuery::OlderThan { id, limit },
            Part::Before(id) => FileQuery::NewerThan { id, limit },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use belljar_ids::FileId;

    fn error(query: &str, dialect: Dialect) -> String {
        FileList::read(query, dialect).map_or_else(|error| error.message, |list| format!("accepted: {list:?}"))
    }

    #[test]
    fn bad_queries_name_their_field() {
        let cases = [
            ("limit=0", "limit: Input should be greater than or equal to 1"),
            ("limit=-5", "limit: Input should be greater than or equal to 1"),
            ("limit=1001", "limit: Input should be less than or equal to 1000"),
            ("limit=99999999", "limit: Input should be less than or equal to 1000"),
            ("limit=x", "limit: Input should be a valid integer"),
            ("after_id=file_01abc", "after_id: Extra inputs are not permitted; use `page`"),
            ("ids[]=file_01abc&limit=3", "ids[]: cannot be combined with `page` or `limit`"),
            ("page=nonsense", "page: Input should be a cursor of an earlier page"),
            ("colour=red", "colour: Extra inputs are not permitted"),
            ("scope_id=s&limit=0", "limit: Input should be greater than or equal to 1"),
        ];
        for (query, expected) in cases {
            assert_eq!(error(query, Dialect::Current), expected, "{query}");
        }
        let by_id = [
            ("after_id=file_01a&before_id=file_01b", "after_id: cannot be combined with `before_id`"),
            ("after_id=x", "after_id: Input should be a file id"),
            ("before_id=", "before_id: Input should be a file id"),
            ("after_id=file_01a&page=page_x", "page: Extra inputs are not permitted; use `after_id`"),
            (
                "before_id=file_01a&ids[]=file_01b",
                "ids[]: Extra inputs are not permitted beside `after_id` and `before_id`",
            ),
            ("after_id=file_01a&limit=1001", "limit: Input should be less than or equal to 1000"),
        ];
        for (query, expected) in by_id {
            assert_eq!(error(query, Dialect::Old), expected, "{query}");
            assert_eq!(error(query, Dialect::Both), expected, "{query}");
        }
        assert_eq!(error("page=page_x", Dialect::Old), "page: Extra inputs are not permitted; use `after_id`");
        let ids: Vec<String> = (0..101).map(|n| format!("ids[]=file_01a{n}")).collect();
        assert_eq!(error(&ids.join("&"), Dialect::Current), "ids[]: at most 100 ids are allowed");
    }

    #[test]
    fn ids_count_once_and_unknown_shapes_are_dropped() {
        let list = FileList::read("ids%5B%5D=file_01b&ids[]=file_01b&ids[]=../etc", Dialect::Current);
        let id: FileId = "file_01b".parse().expect("an id");
        assert_eq!(list, Ok(FileList { query: FileQuery::Ids(vec![id]) }));
    }

    #[test]
    fn of_a_session_there_are_no_files() {
        for dialect in [Dialect::Current, Dialect::Old, Dialect::Both] {
            let list = FileList::read("scope_id=session_01a&limit=2", dialect);
            assert_eq!(list, Ok(FileList { query: FileQuery::Ids(Vec::new()) }), "{dialect:?}");
        }
    }

    #[test]
    fn both_dialects_at_once_take_either_cursor() {
        let headers = |betas: &'static str| {
            HeaderMap::from_iter([(
                http::HeaderName::from_static("anthropic-beta"),
                http::HeaderValue::from_static(betas),
            )])
        };
        assert_eq!(Dialect::read(&headers("managed-agents-2026-04-01")), Ok(Dialect::Both));
        assert_eq!(Dialect::read(&headers("managed-agents-2026-04-01, files-api-2025-04-14")), Ok(Dialect::Old));
        assert_eq!(Dialect::read(&headers("skills-2025-10-02")), Ok(Dialect::Current));
        assert!(Dialect::read(&headers("files-api-2025-04-14,nonsense")).is_err());
        let id: FileId = "file_01b".parse().expect("an id");
        let old = FileList::read("after_id=file_01b&limit=2", Dialect::Both);
        assert_eq!(old, Ok(FileList { query: FileQuery::OlderThan { id: id.clone(), limit: 2 } }));
        let ids = FileList::read("ids[]=file_01b", Dialect::Both);
        assert_eq!(ids, Ok(FileList { query: FileQuery::Ids(vec![id]) }));
        assert_eq!(error("page=nonsense", Dialect::Both), "page: Input should be a cursor of an earlier page");
    }

    #[test]
    fn the_old_dialect_pages_by_id() {
        let id: FileId = "file_01b".parse().expect("an id");
        let list = FileList::read("after_id=file_01b&limit=2&beta=true", Dialect::Old);
        assert_eq!(list, Ok(FileList { query: FileQuery::OlderThan { id, limit: 2 } }));
    }
}
