//! Which models a key may name.

use std::sync::Arc;

use globset::Glob;

/// Globs over model names, as in an upstream's `models`; without any, every name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelPermit(Option<Arc<[String]>>);

impl ModelPermit {
    /// Of a key's globs.
    pub fn of(globs: Option<Vec<String>>) -> Self {
        Self(globs.map(Arc::from))
    }

    /// As it was.
    pub fn globs(&self) -> Option<Vec<String>> {
        self.0.as_ref().map(|globs| globs.to_vec())
    }

    /// Whether the key may name this model.
    pub fn allows(&self, model: &str) -> bool {
        let Some(globs) = &self.0 else { return true };
        globs.iter().any(|glob| Glob::new(glob).is_ok_and(|glob| glob.compile_matcher().is_match(model)))
    }

    /// The globs that are names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let special = |c: char| "*?[]{}!\\".contains(c);
        self.0.iter().flat_map(|globs| globs.iter()).map(String::as_str).filter(move |glob| !glob.contains(special))
    }
}

/// Reads a glob that an operator wrote.
///
/// # Errors
/// What is wrong with it.
pub fn read_glob(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains('\n') {
        return Err("must be one line that is not empty".to_owned());
    }
    Glob::new(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_is_what_it_says_and_no_more() {
        let permit = |globs: &[&str]| ModelPermit::of(Some(globs.iter().map(|glob| (*glob).to_owned()).collect()));
        let cases = [
            (ModelPermit::default(), "anything", true),
            (permit(&[]), "anything", false),
            (permit(&["claude-haiku-*", "qwen3:32b"]), "claude-haiku-4-5", true),
            (permit(&["claude-haiku-*", "qwen3:32b"]), "qwen3:32b", true),
            (permit(&["claude-haiku-*", "qwen3:32b"]), "claude-opus-5-5", false),
            (permit(&["claude-haiku-*"]), "not-claude-haiku-4-5", false),
            (permit(&["["]), "[", false),
        ];
        for (permit, model, expected) in cases {
            assert_eq!(permit.allows(model), expected, "{permit:?} {model}");
        }
        assert_eq!(permit(&["a-*", "b", "c?"]).names().collect::<Vec<_>>(), ["b"]);
        assert!(
            read_glob("[").is_err() && read_glob("").is_err() && read_glob("a\nb").is_err() && read_glob("a*").is_ok()
        );
    }
}
