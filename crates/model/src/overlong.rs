//! A conversation that is longer than the model can read. That is said as the hosted API says it: there are clients that shorten it then.

/// What `error.type` or `error.code` says of it.
const TAGS: [&str; 2] = ["context_length_exceeded", "exceed_context_size_error"];
/// What messages say of it, in lower case.
const WORDS: [&str; 3] = ["maximum context length", "exceeds the available context size", "context window"];
/// How the hosted API begins.
const HOSTED: &str = "prompt is too long";

/// Whether an error with these tags and this message tells of it.
pub(crate) fn is_told(tags: &[impl AsRef<str>], message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    tags.iter().any(|tag| TAGS.contains(&tag.as_ref())) || WORDS.iter().any(|words| message.contains(words))
}

/// What the client is told.
pub(crate) fn told(message: String) -> String {
    if message.starts_with(HOSTED) { message } else { format!("{HOSTED}: {message}") }
}
