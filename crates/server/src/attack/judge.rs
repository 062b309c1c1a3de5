//! What was seen of a step, compared with what must come of it.

use regex::RegexBuilder;

use crate::attack::case::{Expect, OneOf, Text};
use crate::cell::{Outcome, Reason};

/// Characters of a text that are shown when it is not as it should be.
const SHOWN_CHARS: usize = 400;
/// Characters of the summary that the table has room for.
const SUMMARY_CHARS: usize = 60;
/// Exit status of what was killed.
const KILLED: i32 = 128 + 9;

/// What was seen of one step.
#[derive(Clone, Debug)]
pub struct Seen {
    /// How it ended.
    pub outcome: Outcome,
    /// The limit that ended it or that it met.
    pub reason: Option<Reason>,
    /// Exit status.
    pub return_code: i32,
    /// Kept standard output.
    pub stdout: String,
    /// Kept standard error, with the sandbox's notices.
    pub stderr: String,
    /// Names of captured files.
    pub files: Vec<String>,
    /// The beginnings of their contents.
    pub contents: Vec<Vec<u8>>,
    /// Bytes kept of standard output.
    pub stdout_bytes_kept: u64,
    /// From its start to its end.
    pub wall_ms: u64,
}

impl Seen {
    /// Something that is no cell: a text, or a refusal.
    pub fn ended(stdout: String, refusal: String) -> Self {
        Self {
            outcome: Outcome::Ended,
            reason: None,
            return_code: i32::from(!refusal.is_empty()),
            stdout_bytes_kept: stdout.len() as u64,
            stdout,
            stderr: refusal,
            files: Vec::new(),
            contents: Vec::new(),
            wall_ms: 0,
        }
    }

    /// A container that was not there any more.
    pub fn dead(why: &str) -> Self {
        Self { outcome: Outcome::Crashed, return_code: KILLED, ..Self::ended(String::new(), why.to_owned()) }
    }

    /// Whether a word came out, by whatever way.
    pub fn contains(&self, word: &str) -> bool {
        let within = |bytes: &[u8]| bytes.windows(word.len()).any(|window| window == word.as_bytes());
        within(self.stdout.as_bytes())
            || within(self.stderr.as_bytes())
            || self.files.iter().any(|name| name.contains(word))
            || self.contents.iter().any(|content| within(content))
    }

    /// How it was refused, in few words.
    pub fn summary(&self) -> String {
        let streams = [self.stdout.as_str(), self.stderr.as_str()];
        let said = streams.iter().flat_map(|stream| stream.lines()).map(str::trim).filter(|line| !line.is_empty());
        let said = said.take(24).collect::<Vec<_>>().join("; ");
        let said = match (self.outcome, self.reason) {
            (Outcome::Ended, None) if said.is_empty() => format!("return code {}", self.return_code),
            (Outcome::Ended, None) => said,
            (Outcome::Ended, Some(reason)) => format!("{} limit; {said}", named(reason)),
            (Outcome::TimedOut, _) => format!("killed by the time limit after {} ms", self.wall_ms),
            (Outcome::Killed, reason) => format!("killed by the limit of {}", reason.map_or("?", named)),
            (Outcome::Crashed, _) => format!("container died: {said}"),
        };
        shortened(&said, SUMMARY_CHARS)
    }
}

fn named(reason: Reason) -> &'static str {
    match reason {
        Reason::Memory => "memory",
        Reason::Processes => "processes",
        Reason::Time => "time",
        Reason::Disk => "disk",
        Reason::Requested => "request",
    }
}

/// At most so many characters of one line.
pub fn shortened(text: &str, chars_max: usize) -> String {
    let text = text.replace(char::is_control, " ");
    match text.char_indices().nth(chars_max) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// Everything that is not as it must be; empty when the attack was held. Of several, the first is told.
pub fn differences(seen: &Seen, expected: &OneOf, fill: &dyn Fn(&str) -> String) -> Vec<String> {
    let mut all = expected.alternatives().iter().map(|expect| from_one(seen, expect, fill));
    let first = all.next().unwrap_or_else(|| vec!["nothing is expected".to_owned()]);
    if all.any(|wrong| wrong.is_empty()) { Vec::new() } else { first }
}

fn from_one(seen: &Seen, expect: &Expect, fill: &dyn Fn(&str) -> String) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut same = |what: &str, actual: &dyn std::fmt::Debug, expected: &dyn std::fmt::Debug| {
        let (actual, expected) = (format!("{actual:?}"), format!("{expected:?}"));
        if actual != expected {
            wrong.push(format!("{what} is {}, not {expected}", shortened(&actual, SHOWN_CHARS)));
        }
    };
    let outcome = expect.outcome.unwrap_or(Outcome::Ended);
    same("outcome", &seen.outcome, &outcome);
    same("reason", &seen.reason, &expect.reason);
    let code = expect.return_code.unwrap_or(if outcome == Outcome::Ended { 0 } else { KILLED });
    same("return code", &seen.return_code, &code);
    if let Some(files) = &expect.files {
        same("files", &seen.files, files);
    }
    if let Some(bytes) = expect.stdout_bytes_kept {
        same("bytes kept of stdout", &seen.stdout_bytes_kept, &bytes);
    }
    for (what, actual, expected) in [("stdout", &seen.stdout, &expect.stdout), ("stderr", &seen.stderr, &expect.stderr)]
    {
        let found = expected.as_ref().and_then(|expected| unlike(actual, expected, fill));
        wrong.extend(found.map(|how| format!("{what} {how}")));
    }
    if let Some(wall_ms_max) = expect.wall_ms_max.filter(|max| seen.wall_ms > *max) {
        wrong.push(format!("it took {} ms, at most {wall_ms_max} were expected", seen.wall_ms));
    }
    if !wrong.is_empty() {
        let said = format!("stdout {:?} stderr {:?}", seen.stdout, seen.stderr);
        wrong.push(format!("all of it: {}", shortened(&said, 4 * SHOWN_CHARS)));
    }
    wrong
}

/// How a text differs from what it must be.
pub fn unlike(actual: &str, expected: &Text, fill: &dyn Fn(&str) -> String) -> Option<String> {
    let expected = match expected {
        Text::Exact(text) => fill(text),
        Text::Lines(lines) => lines.iter().map(|line| fill(line) + "\n").collect(),
        Text::Pattern { pattern } => {
            let whole = format!("^(?:{})$", fill(pattern));
            return match RegexBuilder::new(&whole).dot_matches_new_line(true).build() {
                Ok(regex) if regex.is_match(actual) => None,
                Ok(_) => Some(format!("is {:?}, which does not match {pattern:?}", shortened(actual, SHOWN_CHARS))),
                Err(error) => Some(format!("cannot be compared: {error}")),
            };
        }
    };
    (actual != expected).then(|| format!("is {:?}, not {expected:?}", shortened(actual, SHOWN_CHARS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(seen: &Seen, expect: &str) -> Vec<String> {
        let expect: OneOf = serde_json::from_str(expect).expect("an expectation");
        let mut found = differences(seen, &expect, &|text| text.replace("@A@", "x"));
        found.retain(|wrong| !wrong.starts_with("all of it"));
        found
    }

    #[test]
    fn what_is_as_expected_is_held_and_everything_else_is_not() {
        let seen = Seen::ended("x\n".to_owned(), String::new());
        let held = [
            r#"{}"#,
            r#"{"stdout": "@A@\n", "stderr": ""}"#,
            r#"{"stdout": ["x"]}"#,
            r#"{"stdout": {"pattern": "@A@."}}"#,
            r#"{"files": [], "stdout_bytes_kept": 2}"#,
            r#"[{"return_code": 1}, {"stdout": "x\n"}]"#,
        ];
        for expect in held {
            assert_eq!(wrong(&seen, expect), Vec::<String>::new(), "{expect}");
        }
        let escaped = [
            (r#"{"stdout": "y"}"#, "stdout is \"x \", not \"y\""),
            (r#"{"stdout": []}"#, "stdout is \"x \", not \"\""),
            (r#"{"stdout": {"pattern": "x"}}"#, "stdout is \"x \", which does not match \"x\""),
            (r#"{"stdout": {"pattern": "("}}"#, "stdout cannot be compared: "),
            (r#"{"return_code": 1}"#, "return code is 0, not 1"),
            (r#"{"reason": "memory"}"#, "reason is None, not Some(Memory)"),
            (r#"{"files": ["a"]}"#, "files is [], not [\"a\"]"),
            (r#"[{"return_code": 1}, {"stdout": "y"}]"#, "return code is 0, not 1"),
            ("[]", "nothing is expected"),
        ];
        for (expect, said) in escaped {
            let found = wrong(&seen, expect);
            assert!(found.len() == 1 && found[0].starts_with(said), "{expect}: {found:?}");
        }
        assert_eq!(wrong(&seen, r#"{"outcome": "killed"}"#).len(), 2, "and its return code");
        assert!(serde_json::from_str::<OneOf>(r#"{"stdot": ""}"#).is_err());
    }

    #[test]
    fn a_secret_is_found_wherever_it_comes_out() {
        let token = "secret-1";
        let nothing = Seen::ended("secret".to_owned(), "-1".to_owned());
        assert!(!nothing.contains(token));
        assert!(Seen::ended(format!("a{token}b"), String::new()).contains(token));
        assert!(Seen::ended(String::new(), token.to_owned()).contains(token));
        let in_file = Seen { contents: vec![b"\xff\0secret-1".to_vec()], ..nothing.clone() };
        assert!(in_file.contains(token));
        assert!(Seen { files: vec![token.to_owned()], ..nothing }.contains(token));
    }
}
