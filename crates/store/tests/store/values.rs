//! Names, instants and tokens: rules as data.

use belljar_ids::PageToken;
use belljar_store::{
    CursorError, FILENAME_CHARS_MAX, Filename, FilenameError, KeyHash, PageCursor, Timestamp, TimestampError,
    WorkspaceId, WorkspaceIdError,
};
use proptest::prelude::*;
use std::time::Duration;

#[test]
fn filenames_of_uploads() {
    use FilenameError::{Dots, Forbidden, TooLong};
    let longest = "ä".repeat(FILENAME_CHARS_MAX);
    let too_long = "a".repeat(FILENAME_CHARS_MAX + 1);
    let deep = format!("{}/x.csv", "d".repeat(10_000));
    let cases: &[(Option<&str>, &str, Result<&str, FilenameError>)] = &[
        (Some("sales.csv"), "text/csv", Ok("sales.csv")),
        (Some("报告 final (2).pdf"), "application/pdf", Ok("报告 final (2).pdf")),
        (Some("dir/sub/sales.csv"), "text/csv", Ok("sales.csv")),
        (Some("/etc/passwd"), "text/plain", Ok("passwd")),
        (Some("../../up.txt"), "text/plain", Ok("up.txt")),
        (Some(&deep), "text/csv", Ok("x.csv")),
        (Some(".hidden"), "text/plain", Ok(".hidden")),
        (Some("..."), "text/plain", Ok("...")),
        (Some(" "), "text/plain", Ok(" ")),
        (Some(&longest), "text/plain", Ok(&longest)),
        (None, "text/csv", Ok("unnamed.csv")),
        (Some(""), "image/png", Ok("unnamed.png")),
        (Some("dir/"), "application/pdf", Ok("unnamed.pdf")),
        (None, "Text/CSV; charset=utf-8", Ok("unnamed.csv")),
        (None, "application/x-never-heard-of", Ok("unnamed.bin")),
        (None, "", Ok("unnamed.bin")),
        (Some(&too_long), "text/plain", Err(TooLong { chars: 256 })),
        (Some("."), "text/plain", Err(Dots)),
        (Some(".."), "text/plain", Err(Dots)),
        (Some("a/.."), "text/plain", Err(Dots)),
        (Some("a<b"), "text/plain", Err(Forbidden { character: '<', char_index: 1 })),
        (Some("a>b"), "text/plain", Err(Forbidden { character: '>', char_index: 1 })),
        (Some("ä:b"), "text/plain", Err(Forbidden { character: ':', char_index: 1 })),
        (Some("\"a\""), "text/plain", Err(Forbidden { character: '"', char_index: 0 })),
        (Some("a|b"), "text/plain", Err(Forbidden { character: '|', char_index: 1 })),
        (Some("why?"), "text/plain", Err(Forbidden { character: '?', char_index: 3 })),
        (Some("*.csv"), "text/plain", Err(Forbidden { character: '*', char_index: 0 })),
        (Some("C:\\x.csv"), "text/plain", Err(Forbidden { character: ':', char_index: 1 })),
        (Some("x\\y.csv"), "text/plain", Err(Forbidden { character: '\\', char_index: 1 })),
        (Some("a\0b"), "text/plain", Err(Forbidden { character: '\0', char_index: 1 })),
        (Some("a\u{1f}"), "text/plain", Err(Forbidden { character: '\u{1f}', char_index: 1 })),
        (Some("a\r\nx: y"), "text/plain", Err(Forbidden { character: '\r', char_index: 1 })),
    ];
    for (given, mime_type, expected) in cases {
        let name = Filename::of_upload(*given, mime_type);
        assert_eq!(name.as_ref().map(Filename::as_str).map_err(|e| *e), *expected, "{given:?} {mime_type}");
    }
    assert_eq!("".parse::<Filename>(), Err(FilenameError::Empty));
    assert_eq!("a/b".parse::<Filename>().unwrap_err().to_string(), "a filename must not contain '/' (at character 1)");
}

#[test]
fn filenames_of_generated_files() {
    let cases: &[(&[u8], &str)] = &[
        (b"chart.png", "chart.png"),
        (b"a:b?.png", "a_b_.png"),
        (b"back\\slash", "back_slash"),
        (b"new\nline", "new_line"),
        (b"caf\xe9.txt", "caf\u{fffd}.txt"),
        (b"out/chart.png", "chart.png"),
        (b"", "unnamed"),
        (b".", "_"),
        (b"..", "__"),
    ];
    for (bytes, expected) in cases {
        assert_eq!(Filename::of_generated(bytes).as_str(), *expected);
    }
    assert_eq!(Filename::of_generated(&[b'x'; 4096]).as_str().len(), FILENAME_CHARS_MAX);
}

#[test]
fn filenames_in_a_directory() {
    let name = |text: &str| text.parse::<Filename>().unwrap().in_container();
    for short in ["sales.csv", ".hidden", "...", " ", "a.", &"a".repeat(255)] {
        assert_eq!(name(short), short);
    }
    let wide = "ä".repeat(251);
    assert_eq!(name(&format!("{wide}.csv")), format!("{}.csv", "ä".repeat(125)), "the extension stays");
    assert_eq!(name(&"報".repeat(255)), "報".repeat(85), "cut between characters");
    assert_eq!(name(&format!("a.{}", "ä".repeat(253))), format!("a.{}", "ä".repeat(126)), "that is no extension");
    assert_eq!(name(&format!(".{}", "ä".repeat(254))), format!(".{}", "ä".repeat(127)));
}

proptest! {
    #[test]
    fn every_accepted_filename_is_safe_in_a_directory(text in any::<String>()) {
        if let Ok(name) = Filename::of_upload(Some(&text), "text/plain") {
            let path = std::path::Path::new(name.as_str());
            let components: Vec<_> = path.components().collect();
            prop_assert_eq!(components, vec![std::path::Component::Normal(path.as_os_str())]);
            prop_assert!(!name.as_str().contains('\0'));
            prop_assert_eq!(name.as_str().parse::<Filename>(), Ok(name.clone()));
            let held = name.in_container();
            prop_assert!((1..=255).contains(&held.len()) && held.parse::<Filename>().is_ok(), "{}", held);
        }
    }

    #[test]
    fn every_generated_filename_is_a_filename(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let name = Filename::of_generated(&bytes);
        prop_assert_eq!(name.as_str().parse::<Filename>(), Ok(name.clone()));
    }

    #[test]
    fn instants_survive_their_text(micros in -60_000_000_000_000_000_i64..=250_000_000_000_000_000) {
        let instant = Timestamp::from_micros(micros).unwrap();
        prop_assert_eq!(instant.to_string().parse::<Timestamp>(), Ok(instant));
        prop_assert_eq!(instant.as_micros(), micros);
    }
}

#[test]
fn instants_are_written_one_way() {
    let cases = [
        ("2026-11-20T16:16:09.340000Z", "2026-11-20T16:16:09.340000Z"),
        ("2026-11-20T16:16:09Z", "2026-11-20T16:16:09.000000Z"),
        ("2026-11-20T18:16:09.3400009+02:00", "2026-11-20T16:16:09.340000Z"),
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000000Z"),
    ];
    for (text, written) in cases {
        let instant: Timestamp = text.parse().unwrap();
        assert_eq!(instant.to_string(), written);
        assert_eq!(serde_json::to_string(&instant).unwrap(), format!("\"{written}\""));
        assert_eq!(serde_json::from_str::<Timestamp>(&format!("\"{text}\"")).unwrap(), instant);
    }
    for text in ["", "yesterday", "2026-11-20", "2026-11-20T16:16:09"] {
        assert_eq!(text.parse::<Timestamp>(), Err(TimestampError), "{text}");
    }
    assert_eq!(Timestamp::from_micros(i64::MAX), Err(TimestampError));
}

#[test]
fn sums_of_instants_stay_in_range() {
    let start = Timestamp::from_micros(1).unwrap();
    assert_eq!(start.saturating_add(Duration::from_secs(1)).as_micros(), 1_000_001);
    assert_eq!(start.saturating_sub(Duration::from_micros(3)).as_micros(), -2);
    assert_eq!(start.saturating_add(Duration::MAX).to_string(), "9999-12-30T22:00:00.999999Z");
    assert_eq!(start.saturating_sub(Duration::MAX).to_string(), "-009999-01-02T01:59:59.000000Z");
    assert_eq!(start.saturating_since(start.saturating_add(Duration::from_secs(1))), Duration::ZERO);
    assert_eq!(start.saturating_add(Duration::from_secs(1)).saturating_since(start), Duration::from_secs(1));
}

#[test]
fn only_tokens_that_were_given_out_are_cursors() {
    let good = "page_000660b7b0a8d9600000000000000007";
    let cursor = PageCursor::from_token(&good.parse().unwrap()).unwrap();
    assert_eq!(cursor.to_token().as_str(), good);
    let bad = [
        "page_x",
        "page_000660b7b0a8d960",
        "page_000660b7b0a8d96000000000000000071",
        "page_000660B7B0A8D9600000000000000007",
        "page_000660b7b0a8d960f000000000000007",
        "page_7fffffffffffffff0000000000000007",
        "page_zzzzzzzzzzzzzzzz0000000000000007",
    ];
    for text in bad {
        let token: PageToken = text.parse().unwrap();
        assert_eq!(PageCursor::from_token(&token), Err(CursorError), "{text}");
    }
}

#[test]
fn workspaces_have_plain_names() {
    let longest = "w".repeat(128);
    for name in ["local", "wrkspc_01abc", "A-b_9", longest.as_str()] {
        assert_eq!(name.parse::<WorkspaceId>().unwrap().as_str(), name);
    }
    for name in ["", "a b", "a/b", "..", "ä", &format!("{longest}w")] {
        assert_eq!(name.parse::<WorkspaceId>(), Err(WorkspaceIdError), "{name}");
    }
}

#[test]
fn a_key_hash_does_not_print_itself() {
    assert_eq!(format!("{:?}", KeyHash::of("bj_secret")), "KeyHash(..)");
}
