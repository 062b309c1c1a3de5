//! Which beta values of a request go on to the upstream.

use belljar_wire::hosted_tool::{HostedFamily, HostedTools};
use globset::{Glob, GlobSet, GlobSetBuilder};

use crate::config::ConfigError;

/// Betas that concern the model, by the name before the date. What is not known might change the shape of the reply, as `compact`
/// does.
const PASSED: [&str; 13] = [
    "computer-use",
    "context-1m",
    "context-management",
    "dev-full-thinking",
    "effort",
    "extended-cache-ttl",
    "fast-mode",
    "fine-grained-tool-streaming",
    "interleaved-thinking",
    "output-128k",
    "prompt-caching",
    "structured-outputs",
    "token-efficient-tools",
];

/// What these switch is done by this server (wire.md §2.4), and the upstream must not do it too: they are never passed on, whatever
/// the operator's globs say. The connector's is, where the connector itself is.
const OURS: [&str; 8] = [
    "advanced-tool-use",
    "code-execution",
    "files-api",
    "mcp-client",
    "message-batches",
    "message-threads",
    "skills",
    "token-counting",
];

/// Length of `-2026-01-01`.
const DATE_BYTES: usize = 11;

/// The rule for one upstream.
pub(crate) struct Betas {
    which: Which,
    /// Names of those that switch the vendor's own tools, as far as they are passed on: they go where the tools go.
    of_tools: Vec<&'static str>,
}

enum Which {
    /// Those that concern the model.
    OfTheModel,
    /// Those that the operator names.
    Named(GlobSet),
}

impl Betas {
    /// Reads the operator's globs; none leaves those that concern the model.
    pub(crate) fn new(upstream: &str, globs: Option<&[String]>, tools: &HostedTools) -> Result<Self, ConfigError> {
        let passed = HostedFamily::ALL.into_iter().filter(|family| tools.has_of(*family));
        let of_tools = passed.map(HostedFamily::beta).collect();
        let Some(globs) = globs else {
            return Ok(Self { which: Which::OfTheModel, of_tools });
        };
        let wrong = |error: globset::Error| ConfigError::Glob {
            upstream: upstream.to_owned(),
            key: "betas",
            problem: error.to_string(),
        };
        let mut set = GlobSetBuilder::new();
        for glob in globs {
            set.add(Glob::new(glob).map_err(wrong)?);
        }
        set.build().map(|set| Self { which: Which::Named(set), of_tools }).map_err(wrong)
    }

    /// The values that are passed on, in the request's order.
    pub(super) fn passed<'a>(&self, sent: &'a [String]) -> Vec<&'a str> {
        sent.iter().map(String::as_str).filter(|beta| self.passes(beta)).collect()
    }

    fn passes(&self, beta: &str) -> bool {
        let name = beta.len().checked_sub(DATE_BYTES).and_then(|end| beta.get(..end));
        if name.is_some_and(|name| self.of_tools.contains(&name)) {
            return true;
        }
        if name.is_some_and(|name| OURS.contains(&name)) {
            return false;
        }
        match &self.which {
            Which::OfTheModel => name.is_some_and(|name| PASSED.contains(&name)),
            Which::Named(globs) => globs.is_match(beta),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(globs: Option<&[&str]>, sent: &[&str]) -> Vec<String> {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let betas = Betas::new("up", globs.map(owned).as_deref(), &HostedTools::default()).expect("good globs");
        owned(&betas.passed(&owned(sent)))
    }

    #[test]
    fn unasked_only_betas_of_the_model_are_passed_on() {
        let cases: [(&[&str], &[&str]); 6] = [
            (&[], &[]),
            (&["code-execution-2025-05-22", "files-api-2025-04-14"], &[]),
            (
                &["interleaved-thinking-2025-05-14", "skills-2025-10-02", "context-management-2025-06-27"],
                &["interleaved-thinking-2025-05-14", "context-management-2025-06-27"],
            ),
            (&["effort", "é"], &[]),
            (&["compact-2026-01-12", "compact-2026-09-04"], &[]),
            (&["effort-2027-01-01"], &["effort-2027-01-01"]),
        ];
        for (sent, expected) in cases {
            assert_eq!(passed(None, sent), expected, "{sent:?}");
        }
    }

    #[test]
    fn the_operators_globs_take_the_place_of_that_but_ours_stay_here() {
        let sent = ["effort-2027-01-01", "compact-2026-01-12", "code-execution-2025-08-25", "skills-2025-10-02"];
        let cases: [(&[&str], &[&str]); 4] =
            [(&[], &[]), (&["*"], &sent[..2]), (&["compact-*"], &sent[1..2]), (&["code-execution-2025-08-25"], &[])];
        for (globs, expected) in cases {
            assert_eq!(passed(Some(globs), &sent), expected, "{globs:?}");
        }
        let wrong =
            Betas::new("up", Some(&["[".to_owned()]), &HostedTools::default()).map(|_| ()).expect_err("no glob");
        assert!(wrong.to_string().starts_with("upstream `up`: `betas`: "), "{wrong}");
    }

    #[test]
    fn the_betas_of_tools_go_where_the_tools_go() {
        let sent = ["mcp-client-2025-11-20", "web-fetch-2025-09-10", "web-search-2025-03-05", "files-api-2025-04-14"];
        let sent = sent.map(str::to_owned);
        let cases: [(&[&str], &[&str]); 4] = [
            (&[], &[]),
            (&["web_fetch"], &["web-fetch-2025-09-10"]),
            (&["mcp"], &["mcp-client-2025-11-20"]),
            (&["web_*"], &["web-fetch-2025-09-10", "web-search-2025-03-05"]),
        ];
        for (tools, expected) in cases {
            let tools: Vec<String> = tools.iter().map(|tool| (*tool).to_owned()).collect();
            let tools = HostedTools::read(&tools).expect("known tools");
            for globs in [None, Some(&[][..])] {
                let betas = Betas::new("up", globs, &tools).expect("no globs");
                assert_eq!(betas.passed(&sent), expected, "{tools:?}");
            }
        }
    }
}
