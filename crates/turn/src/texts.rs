//! What a model is told of the code execution tool: named sets of texts, each with a version, and the one that an operator writes.
//!
//! Which set a model gets is the configuration's to say. A text has placeholders in braces, as `{python}`; braces around anything
//! else are just braces.

use std::borrow::Cow;

use belljar_wire::tool::SubTool;

use crate::call::Interpreter;

/// One set of texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolTexts {
    /// What the configuration calls it.
    pub name: Cow<'static, str>,
    /// Grows with every change of a text.
    pub version: u32,
    texts: [Cow<'static, str>; TextPlace::ALL.len()],
}

/// Where a text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextPlace {
    /// Behind the system prompt; nothing where it is empty.
    System,
    /// The description of `bash_code_execution`.
    Bash,
    /// What is added to it where code may call tools.
    BashTools,
    /// The description of `text_editor_code_execution`.
    Editor,
    /// The description of `code_execution` where its interpreter lives on.
    Python,
    /// The same where each call has an interpreter of its own.
    PythonFresh,
    /// What is added to either where code may call tools; the tools follow.
    PythonTools,
    /// What is added where a version tells how long a call may run.
    TimeLimit,
}

impl TextPlace {
    /// All of them, in the order in which a set keeps them.
    pub const ALL: [Self; 8] = [
        Self::System,
        Self::Bash,
        Self::BashTools,
        Self::Editor,
        Self::Python,
        Self::PythonFresh,
        Self::PythonTools,
        Self::TimeLimit,
    ];

    /// The description of a sub-tool.
    pub(crate) const fn of(sub_tool: SubTool, interpreter: Interpreter) -> Self {
        match (sub_tool, interpreter) {
            (SubTool::CodeExecution, Interpreter::Live) => Self::Python,
            (SubTool::CodeExecution, Interpreter::Fresh) => Self::PythonFresh,
            (SubTool::BashCodeExecution, Interpreter::Live | Interpreter::Fresh) => Self::Bash,
            (SubTool::TextEditorCodeExecution, Interpreter::Live | Interpreter::Fresh) => Self::Editor,
        }
    }

    const fn index(self) -> usize {
        match self {
            Self::System => 0,
            Self::Bash => 1,
            Self::BashTools => 2,
            Self::Editor => 3,
            Self::Python => 4,
            Self::PythonFresh => 5,
            Self::PythonTools => 6,
            Self::TimeLimit => 7,
        }
    }
}

/// What may stand in braces.
const PLACEHOLDERS: [&str; 6] =
    ["python", "packages", "output_bytes_max", "memory_bytes_max", "disk_bytes_max", "wall_s_max"];

macro_rules! set {
    ($name:literal, $version:literal, $system:expr) => {
        ToolTexts {
            name: Cow::Borrowed($name),
            version: $version,
            texts: [
                Cow::Borrowed($system),
                Cow::Borrowed(include_str!(concat!("../data/texts/", $name, "/bash.txt"))),
                Cow::Borrowed(include_str!(concat!("../data/texts/", $name, "/bash_tools.txt"))),
                Cow::Borrowed(include_str!(concat!("../data/texts/", $name, "/editor.txt"))),
                Cow::Borrowed(include_str!(concat!("../data/texts/", $name, "/python.txt"))),
                Cow::Borrowed(include_str!(concat!("../data/texts/", $name, "/python_fresh.txt"))),
                Cow::Borrowed(include_str!(concat!("../data/texts/", $name, "/python_tools.txt"))),
                Cow::Borrowed(include_str!(concat!("../data/texts/", $name, "/time_limit.txt"))),
            ],
        }
    };
}

/// For models that were taught this tool.
static HOSTED: ToolTexts = set!("hosted", 1, "");
/// For models that were not: shorter sentences, with an example of each call.
static PLAIN: ToolTexts = set!("plain", 1, include_str!("../data/texts/plain/system.txt"));

impl ToolTexts {
    /// The sets that there are.
    pub fn all() -> [&'static Self; 2] {
        [&HOSTED, &PLAIN]
    }

    /// The set for models that were taught the tool.
    pub fn hosted() -> &'static Self {
        &HOSTED
    }

    /// The set for models that were not.
    pub fn plain() -> &'static Self {
        &PLAIN
    }

    /// The set of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        Self::all().into_iter().find(|set| set.name == name)
    }

    /// This set, with some other texts, under another name.
    ///
    /// # Errors
    /// What stands in braces in one of them and is no placeholder.
    pub fn with(
        &self,
        name: String,
        version: u32,
        texts: impl IntoIterator<Item = (TextPlace, String)>,
    ) -> Result<Self, (TextPlace, String)> {
        let mut set = Self { name: Cow::Owned(name), version, ..self.clone() };
        for (place, text) in texts {
            if let Some(unknown) = unknown_placeholder(&text) {
                return Err((place, unknown.to_owned()));
            }
            set.texts[place.index()] = Cow::Owned(text);
        }
        Ok(set)
    }

    /// A text, without its last line end.
    pub fn text(&self, place: TextPlace) -> &str {
        self.texts[place.index()].trim_end()
    }

    /// What may stand in braces, for whoever writes texts.
    pub fn placeholders() -> impl Iterator<Item = &'static str> {
        PLACEHOLDERS.into_iter()
    }
}

/// The first word in braces that means nothing.
fn unknown_placeholder(text: &str) -> Option<&str> {
    let mut rest = text;
    while let Some((_, behind)) = rest.split_once('{') {
        let length = behind.bytes().take_while(|byte| byte.is_ascii_lowercase() || *byte == b'_').count();
        let word = &behind[..length];
        if !word.is_empty() && behind[length..].starts_with('}') && !PLACEHOLDERS.contains(&word) {
            return Some(word);
        }
        rest = behind;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_has_every_text() {
        for (index, place) in TextPlace::ALL.into_iter().enumerate() {
            assert_eq!(place.index(), index);
            for set in ToolTexts::all() {
                let text = set.text(place);
                assert_eq!(
                    text.is_empty(),
                    set.name == "hosted" && place == TextPlace::System,
                    "{} {place:?}",
                    set.name
                );
                assert_eq!(unknown_placeholder(text), None, "{} {place:?}", set.name);
            }
        }
        assert_eq!(ToolTexts::named("plain"), Some(ToolTexts::plain()));
        assert_eq!(ToolTexts::named("shiny"), None);
    }

    #[test]
    fn texts_of_an_operator_stand_in_place_of_others() {
        let with = |text: &str| ToolTexts::plain().with("mine".to_owned(), 7, [(TextPlace::Bash, text.to_owned())]);
        let mine = with("Run it. {\"command\": \"ls {}\"} {python}\n").expect("good texts");
        assert_eq!((mine.name.as_ref(), mine.version), ("mine", 7));
        assert_eq!(mine.text(TextPlace::Bash), "Run it. {\"command\": \"ls {}\"} {python}");
        assert_eq!(mine.text(TextPlace::Editor), ToolTexts::plain().text(TextPlace::Editor));
        assert_eq!(with("a {pyton} b"), Err((TextPlace::Bash, "pyton".to_owned())));
    }
}
