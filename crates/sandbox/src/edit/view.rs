//! Showing a file (wire.md §6.3, §23): text without line numbers and without the last line end.
//!
//! What the hosted service puts into `content` for an image or a PDF is not known; here it is the whole file in base64,
//! as far as `content_bytes_max` allows.

use super::{EditFailure, EditOutcome, FileType};

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// What stands in a file, or in some of its lines.
pub fn view(
    path: &str,
    content: &[u8],
    view_range: Option<(i64, i64)>,
    content_bytes_max: u64,
) -> Result<EditOutcome, EditFailure> {
    let file_type = kind(content);
    if file_type != FileType::Text {
        if view_range.is_some() {
            return Err(EditFailure::invalid(format!("{path} is not text and has no lines to choose from")));
        }
        let encoded = base64(content);
        fits(path, &encoded, content_bytes_max)?;
        return Ok(EditOutcome::View {
            content: encoded,
            file_type,
            num_lines: None,
            start_line: None,
            total_lines: None,
        });
    }
    let text = std::str::from_utf8(content)
        .map_err(|_| EditFailure::invalid(format!("{path} is neither UTF-8 text nor an image nor a PDF")))?;
    let lines: Vec<&str> = if text.is_empty() { Vec::new() } else { without_last_end(text).split('\n').collect() };
    let (first, last) = chosen(view_range, lines.len())?;
    let content = lines[first..last].join("\n");
    fits(path, &content, content_bytes_max)?;
    Ok(EditOutcome::View {
        content,
        file_type,
        num_lines: Some((last - first) as u64),
        start_line: Some(first as u64 + 1),
        total_lines: Some(lines.len() as u64),
    })
}

fn without_last_end(text: &str) -> &str {
    text.strip_suffix('\n').unwrap_or(text)
}

fn fits(path: &str, content: &str, content_bytes_max: u64) -> Result<(), EditFailure> {
    let bytes = content.len() as u64;
    if bytes <= content_bytes_max {
        return Ok(());
    }
    Err(EditFailure::invalid(format!(
        "{path} takes {bytes} bytes to show, at most {content_bytes_max} can be shown; view fewer lines"
    )))
}

/// The lines asked for, as a range from 0 with an exclusive end.
fn chosen(view_range: Option<(i64, i64)>, lines: usize) -> Result<(usize, usize), EditFailure> {
    let Some((first, last)) = view_range else {
        return Ok((0, lines));
    };
    let wrong = |what: &str| Err(EditFailure::invalid(format!("view_range [{first}, {last}]: {what}")));
    let Some(start) = usize::try_from(first).ok().filter(|start| (1..=lines).contains(start)) else {
        return wrong(&format!("the first line must be between 1 and {lines}, the number of lines"));
    };
    let end = match (last, usize::try_from(last)) {
        (-1, _) => lines,
        (_, Ok(end)) if end >= start => end.min(lines),
        _ => return wrong("the last line must be -1 or at least the first"),
    };
    Ok((start - 1, end))
}

/// By the first bytes, as the formats define them.
fn kind(content: &[u8]) -> FileType {
    let webp = content.starts_with(b"RIFF") && content.get(8..12) == Some(b"WEBP");
    let heads: [&[u8]; 4] = [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a"];
    if webp || heads.iter().any(|head| content.starts_with(head)) {
        FileType::Image
    } else if content.starts_with(b"%PDF-") {
        FileType::Pdf
    } else {
        FileType::Text
    }
}

/// RFC 4648 §4, with padding.
fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let padding = place > chunk.len();
            text.push(if padding { '=' } else { char::from(BASE64[(group >> (18 - 6 * place)) as usize & 63]) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(content: &str, num_lines: u64, start_line: u64, total_lines: u64) -> Result<EditOutcome, EditFailure> {
        Ok(EditOutcome::View {
            content: content.to_owned(),
            file_type: FileType::Text,
            num_lines: Some(num_lines),
            start_line: Some(start_line),
            total_lines: Some(total_lines),
        })
    }

    #[test]
    fn text_is_shown_without_its_last_line_end() {
        let cases = [
            ("Hello, world!", None, text("Hello, world!", 1, 1, 1)),
            ("Hello, world!\n", None, text("Hello, world!", 1, 1, 1)),
            ("", None, text("", 0, 1, 0)),
            ("\n", None, text("", 1, 1, 1)),
            ("a\n\n", None, text("a\n", 2, 1, 2)),
            ("a\r\nb", None, text("a\r\nb", 2, 1, 2)),
            ("a\nb\nc\n", Some((2, 2)), text("b", 1, 2, 3)),
            ("a\nb\nc\n", Some((2, -1)), text("b\nc", 2, 2, 3)),
            ("a\nb\nc\n", Some((1, 99)), text("a\nb\nc", 3, 1, 3)),
        ];
        for (content, range, outcome) in cases {
            assert_eq!(view("f", content.as_bytes(), range, 100), outcome, "{content:?} {range:?}");
        }
    }

    #[test]
    fn a_wrong_range_is_said() {
        let first = "the first line must be between 1 and 2, the number of lines";
        let last = "the last line must be -1 or at least the first";
        let cases =
            [((0, 1), first), ((-1, 1), first), ((3, 3), first), ((2, 1), last), ((1, -2), last), ((1, 0), last)];
        for ((from, to), what) in cases {
            let message = format!("view_range [{from}, {to}]: {what}");
            assert_eq!(view("f", b"a\nb\n", Some((from, to)), 100), Err(EditFailure::invalid(message)));
        }
    }

    #[test]
    fn images_and_documents_are_base64_and_other_bytes_are_refused() {
        let cases: [(&[u8], FileType, &str); 4] = [
            (b"\x89PNG\r\n\x1a\n", FileType::Image, "iVBORw0KGgo="),
            (b"\xff\xd8\xff", FileType::Image, "/9j/"),
            (b"RIFF0000WEBP", FileType::Image, "UklGRjAwMDBXRUJQ"),
            (b"%PDF-1.7", FileType::Pdf, "JVBERi0xLjc="),
        ];
        for (bytes, file_type, encoded) in cases {
            let content = encoded.to_owned();
            let shown = EditOutcome::View { content, file_type, num_lines: None, start_line: None, total_lines: None };
            assert_eq!(view("f", bytes, None, 100), Ok(shown));
        }
        let refused = EditFailure::invalid("f is neither UTF-8 text nor an image nor a PDF");
        assert_eq!(view("f", b"\xff\xfe", None, 100), Err(refused));
        let no_lines = EditFailure::invalid("f is not text and has no lines to choose from");
        assert_eq!(view("f", b"%PDF-1.7", Some((1, 2)), 100), Err(no_lines));
    }

    #[test]
    fn what_is_too_large_to_show_is_said() {
        let refused = EditFailure::invalid("f takes 5 bytes to show, at most 4 can be shown; view fewer lines");
        assert_eq!(view("f", b"ab\ncd\n", None, 4), Err(refused));
        assert_eq!(view("f", b"ab\ncd\n", Some((2, 2)), 4), text("cd", 1, 2, 2));
    }
}
