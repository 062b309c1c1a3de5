//! Blanks what is not code in Rust source, so that plain text searches are honest.

/// Comments, string, byte-string and character literals become spaces; line breaks stay, so line numbers hold.
pub fn literals(source: &str) -> String {
    let bytes: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_end(&bytes, at);
        if end == at {
            out.push(bytes[at]);
            at += 1;
            continue;
        }
        out.extend(
            bytes[at..end]
                .iter()
                .map(|&c| if c == '\n' { '\n' } else { ' ' }),
        );
        at = end;
    }
    out
}

/// Where the comment or literal that begins at `at` ends; `at` itself when none begins there.
fn literal_end(text: &[char], at: usize) -> usize {
    let next = text.get(at + 1).copied();
    match text[at] {
        '/' if next == Some('/') => find(text, at, |c| c == '\n'),
        '/' if next == Some('*') => block_comment_end(text, at),
        '"' => string_end(text, at),
        'r' if !continues_word(text, at) => raw_string_end(text, at).unwrap_or(at),
        'b' if !continues_word(text, at) && next == Some('r') => {
            raw_string_end(text, at + 1).unwrap_or(at)
        }
        '\'' => char_end(text, at),
        _other => at,
    }
}

fn continues_word(text: &[char], at: usize) -> bool {
    at > 0 && (text[at - 1].is_alphanumeric() || text[at - 1] == '_')
}

fn find(text: &[char], from: usize, wanted: impl Fn(char) -> bool) -> usize {
    (from..text.len())
        .find(|&i| wanted(text[i]))
        .unwrap_or(text.len())
}

fn block_comment_end(text: &[char], at: usize) -> usize {
    let mut depth = 0_usize;
    let mut i = at;
    while i + 1 < text.len() {
        match (text[i], text[i + 1]) {
            ('/', '*') => depth += 1,
            ('*', '/') => depth -= 1,
            _other => {
                i += 1;
                continue;
            }
        }
        i += 2;
        if depth == 0 {
            return i;
        }
    }
    text.len()
}

fn string_end(text: &[char], at: usize) -> usize {
    let mut i = at + 1;
    while i < text.len() {
        match text[i] {
            '\\' => i += 2,
            '"' => return i + 1,
            _other => i += 1,
        }
    }
    text.len()
}

fn raw_string_end(text: &[char], at: usize) -> Option<usize> {
    let hashes = text[at + 1..].iter().take_while(|&&c| c == '#').count();
    let open = at + 1 + hashes;
    if text.get(open) != Some(&'"') {
        return None;
    }
    let closes = |i: usize| {
        text[i] == '"'
            && text[i + 1..]
                .iter()
                .take(hashes)
                .filter(|&&c| c == '#')
                .count()
                == hashes
    };
    let close = (open + 1..text.len()).find(|&i| closes(i));
    Some(close.map_or(text.len(), |i| i + 1 + hashes))
}

/// A lifetime (`'a`) is code; a character (`'a'`, `'\n'`, `'"'`) is not.
fn char_end(text: &[char], at: usize) -> usize {
    match (text.get(at + 1), text.get(at + 2)) {
        (Some('\\'), _) => find(text, at + 3, |c| c == '\'') + 1,
        (Some(_), Some('\'')) => at + 3,
        _other => at,
    }
}

/// Blanks each `#[cfg(test)]` item with a body in already masked code.
pub fn test_modules(code: &str) -> String {
    let mut out = code.to_owned();
    let mut from = 0;
    while let Some(found) = out[from..].find("#[cfg(test)]") {
        let start = from + found;
        let end = item_end(&out, start + "#[cfg(test)]".len());
        let blank: String = out[start..end]
            .chars()
            .map(|c| if c == '\n' { '\n' } else { ' ' })
            .collect();
        out.replace_range(start..end, &blank);
        from = start + blank.len();
    }
    out
}

fn item_end(code: &str, from: usize) -> usize {
    match code[from..].find(['{', ';']) {
        Some(found) if code.as_bytes()[from + found] == b'{' => block_end(code, from + found),
        Some(found) => from + found + 1,
        None => code.len(),
    }
}

/// The byte after the `}` that closes the `{` at `open`, in masked code.
pub fn block_end(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, c) in code[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return open + offset + 1,
            '}' => depth -= 1,
            _other => {}
        }
    }
    code.len()
}

/// The 1-based line of a byte offset.
pub fn line_of(code: &str, offset: usize) -> usize {
    code[..offset].matches('\n').count() + 1
}

/// Byte offsets at which `word` stands as a whole word (or path) in masked code.
pub fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |&at| {
            let before = code[..at].chars().next_back();
            let after = code[at + word.len()..].chars().next();
            !before.is_some_and(part) && !after.is_some_and(part)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_comments_are_blanked_and_lines_kept() {
        let cases = [
            ("a // unsafe\nb", "a          \nb"),
            ("a /* x /* y */ z */ b", "a                   b"),
            ("f(\"un\\\"safe\") + 1", "f(          ) + 1"),
            ("f(r#\"a\"b\"#)", "f(        )"),
            ("let x: &'a str = 'b';", "let x: &'a str =    ;"),
            ("c == '\\'' || d", "c ==      || d"),
            ("b'\"' + \"x\"", "b    +    "),
            ("for_r\"x\"", "for_r   "),
        ];
        for (source, expected) in cases {
            assert_eq!(literals(source), expected, "{source}");
        }
    }

    #[test]
    fn test_modules_are_blanked() {
        let code = "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { } }\nfn c() {}";
        let product = test_modules(code);
        assert!(product.contains("fn a") && product.contains("fn c"));
        assert!(!product.contains("fn b"));
        assert_eq!(product.lines().count(), 4);
    }

    #[test]
    fn words_are_whole() {
        assert_eq!(
            words("Instant Instants my_Instant", "Instant").collect::<Vec<_>>(),
            [0]
        );
    }
}
