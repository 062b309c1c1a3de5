//! Looks at what is about to run, and answers with a verdict and the reason. Pure: no IO, no clock.
//!
//! The guard is a second pair of eyes, not a wall: the sandbox holds whatever gets past it.

/// One thing that may not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    text: String,
    reason: String,
}

impl Rule {
    /// Code that holds `text` is halted for `reason`. `None` when `text` is empty, which would halt everything.
    pub fn new(text: String, reason: String) -> Option<Self> {
        (!text.is_empty()).then_some(Self { text, reason })
    }
}

/// What the guard says of one piece of code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may run.
    Allow,
    /// It may not; the reason is for the model and the log.
    Halt {
        /// Why.
        reason: String,
    },
}

/// The rules of one server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    rules: Vec<Rule>,
}

impl Guard {
    /// A guard with these rules; the first that matches decides.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self { rules }
    }

    /// Looks at the texts of one call: the command, or the path and content of an edit.
    pub fn look<'a>(&self, texts: impl IntoIterator<Item = &'a str> + Clone) -> Verdict {
        let matching = self.rules.iter().find(|rule| texts.clone().into_iter().any(|text| text.contains(&rule.text)));
        match matching {
            Some(rule) => Verdict::Halt { reason: rule.reason.clone() },
            None => Verdict::Allow,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_matching_rule_decides() {
        let rule = |text: &str, reason: &str| Rule::new(text.to_owned(), reason.to_owned());
        let guard =
            Guard::new([rule("rm -rf", "no deletion"), rule("rm", "no removal")].into_iter().flatten().collect());
        let cases = [
            ("ls", Verdict::Allow),
            ("rm -rf /", Verdict::Halt { reason: "no deletion".to_owned() }),
            ("rm x", Verdict::Halt { reason: "no removal".to_owned() }),
        ];
        for (command, expected) in cases {
            assert_eq!(guard.look([command]), expected, "{command}");
        }
    }

    #[test]
    fn an_empty_rule_cannot_be_made() {
        assert_eq!(Rule::new(String::new(), "everything".to_owned()), None);
    }
}
