//! What is and is not an identifier, and how new ones come out.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use belljar_ids::{
    BatchId, ContainerId, FileId, IdSource, KeyId, MessageId, PageToken, Problem, RequestId, SeededIds,
    ServerToolUseId, SkillId, SkillVersionId, ToolUseId,
};
use proptest::prelude::*;

/// Runs the same cases over every kind whose shape is `<prefix>[A-Za-z0-9]{1,64}`.
macro_rules! plain_kinds {
    ($($test:ident: $kind:ty = $prefix:literal),* $(,)?) => {$(
        #[test]
        fn $test() {
            let at = $prefix.len();
            let cases: &[(String, Result<(), Problem>)] = &[
                (format!("{}011CVexample00000000000001", $prefix), Ok(())),
                (format!("{}x", $prefix), Ok(())),
                (format!("{}{}", $prefix, "z".repeat(64)), Ok(())),
                (format!("{}{}", $prefix, "z".repeat(65)), Err(Problem::TooLong)),
                (format!("{}{}", $prefix, "z".repeat(1 << 20)), Err(Problem::TooLong)),
                (String::new(), Err(Problem::Empty)),
                ($prefix.to_owned(), Err(Problem::Empty)),
                ("other_01abc".to_owned(), Err(Problem::Prefix)),
                ($prefix.to_uppercase() + "01", Err(Problem::Prefix)),
                (format!(" {}01", $prefix), Err(Problem::Prefix)),
                (format!("{}../../etc/passwd", $prefix), Err(Problem::Character { byte_index: at })),
                (format!("{}a/b", $prefix), Err(Problem::Character { byte_index: at + 1 })),
                (format!("{}a\\b", $prefix), Err(Problem::Character { byte_index: at + 1 })),
                (format!("{}ab\0", $prefix), Err(Problem::Character { byte_index: at + 2 })),
                (format!("{}ab\n", $prefix), Err(Problem::Character { byte_index: at + 2 })),
                (format!("{}a_b", $prefix), Err(Problem::Character { byte_index: at + 1 })),
                (format!("{}\u{e9}", $prefix), Err(Problem::Character { byte_index: at })),
            ];
            for (text, expected) in cases {
                let parsed = text.parse::<$kind>();
                assert_eq!(parsed.as_ref().map(|_| ()).map_err(|e| e.problem()), *expected, "{text:.40}");
                assert_eq!(<$kind>::try_from(text.clone()), parsed);
                if let Ok(id) = parsed {
                    assert_eq!(id.to_string(), *text);
                }
            }
            assert_eq!(<$kind>::PREFIX, $prefix);
        }
    )*};
}

plain_kinds! {
    message_ids: MessageId = "msg_",
    request_ids: RequestId = "req_",
    container_ids: ContainerId = "container_",
    file_ids: FileId = "file_",
    skill_ids: SkillId = "skill_",
    skill_version_ids: SkillVersionId = "skver_",
    batch_ids: BatchId = "msgbatch_",
    page_tokens: PageToken = "page_",
    key_ids: KeyId = "key_",
}

#[test]
fn server_tool_use_ids_may_hold_underscores() {
    let cases = [
        ("srvtoolu_01abc", Ok(())),
        ("srvtoolu_bdrk_01abc", Ok(())),
        ("srvtoolu_", Err(Problem::Empty)),
        ("toolu_01abc", Err(Problem::Prefix)),
        ("srvtoolu_a-b", Err(Problem::Character { byte_index: 10 })),
        ("srvtoolu_a/b", Err(Problem::Character { byte_index: 10 })),
    ];
    for (text, expected) in cases {
        let parsed = text.parse::<ServerToolUseId>();
        assert_eq!(parsed.map(|_| ()).map_err(|e| e.problem()), expected, "{text}");
    }
}

#[test]
fn tool_use_ids_are_whatever_an_upstream_makes_them() {
    let long = "a".repeat(256);
    let longer = "a".repeat(257);
    let cases = [
        ("toolu_01abc", Ok(())),
        ("call_Xy-9", Ok(())),
        ("chatcmpl-tool-3f2a", Ok(())),
        ("0", Ok(())),
        (long.as_str(), Ok(())),
        (longer.as_str(), Err(Problem::TooLong)),
        ("", Err(Problem::Empty)),
        ("a b", Err(Problem::Character { byte_index: 1 })),
        ("../x", Err(Problem::Character { byte_index: 0 })),
        ("functions.get:0", Err(Problem::Character { byte_index: 9 })),
    ];
    for (text, expected) in cases {
        let parsed = text.parse::<ToolUseId>();
        assert_eq!(parsed.map(|_| ()).map_err(|e| e.problem()), expected, "{text:.40}");
    }
    assert_eq!(ToolUseId::mint(&mut SeededIds::new(1)).as_str().find("toolu_01"), Some(0));
}

#[test]
fn errors_say_what_was_expected_and_not_what_came() {
    let came = format!("file_{}", "SECRET/".repeat(1000));
    let error = came.parse::<FileId>().unwrap_err();
    assert_eq!(error.to_string(), "not a file id: it is too long; expected file_[A-Za-z0-9]{1,64}");
    let error = "file_a/b".parse::<FileId>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "not a file id: it has a character that does not belong at byte 6; expected file_[A-Za-z0-9]{1,64}"
    );
    assert_eq!(error.what(), "file id");
}

#[test]
fn json_is_the_text_and_is_checked() {
    let id: FileId = serde_json::from_str("\"file_01Example\"").unwrap();
    assert_eq!(serde_json::to_string(&id).unwrap(), "\"file_01Example\"");
    // An escape makes serde hand over an owned text instead of a borrowed one.
    assert_eq!(serde_json::from_str::<FileId>("\"file_\\u0030\\u0031\"").unwrap().as_str(), "file_01");
    let error = serde_json::from_str::<FileId>("\"file_../x\"").unwrap_err();
    assert_eq!(
        error.to_string(),
        "not a file id: it has a character that does not belong at byte 5; expected file_[A-Za-z0-9]{1,64} \
         at line 1 column 11"
    );
    assert!(serde_json::from_str::<FileId>("7").is_err());
    assert!(serde_json::from_str::<FileId>("null").is_err());
}

#[test]
fn the_seed_decides() {
    let first = MessageId::mint(&mut SeededIds::new(7));
    assert_eq!(first, MessageId::mint(&mut SeededIds::new(7)));
    assert_ne!(first, MessageId::mint(&mut SeededIds::new(8)));
    let mut source = SeededIds::new(7);
    let (a, b) = (MessageId::mint(&mut source), MessageId::mint(&mut source));
    assert_ne!(a, b);
}

#[test]
fn calls_of_code_belong_to_their_cell_and_to_no_other() {
    let mut source = SeededIds::new(3);
    let cells: Vec<ServerToolUseId> = (0..50).map(|_| ServerToolUseId::mint(&mut source)).collect();
    for cell in &cells {
        let (call, another) = (ToolUseId::mint_in(cell, &mut source), ToolUseId::mint_in(cell, &mut source));
        assert_ne!(call, another);
        assert_eq!(call.as_str().len(), ToolUseId::mint(&mut source).as_str().len());
        assert!(call.as_str().starts_with("toolu_01"), "{call}");
        let made_it = |call: &ToolUseId| cells.iter().filter(|one| one.mark() == call.cell_mark()).collect::<Vec<_>>();
        assert_eq!((made_it(&call), made_it(&another)), (vec![cell], vec![cell]));
        assert_eq!(made_it(&ToolUseId::mint(&mut source)), Vec::<&ServerToolUseId>::new());
    }
}

/// Ids that are not of our making have no mark, or none that belongs to anything.
#[test]
fn foreign_ids_belong_to_nothing() {
    let marked = |id: &str| id.parse::<ToolUseId>().unwrap().cell_mark();
    let cell = |id: &str| id.parse::<ServerToolUseId>().unwrap().mark();
    for id in ["toolu_01", "toolu_01A", "call_1", "toolu_02abcdefghijkmnopqrstuvw", "toolu_01abcdefghijkmnopqrstuvw1"] {
        assert_eq!(marked(id), None, "{id}");
    }
    assert_eq!(marked("toolu_010abcdefghijkmnopqrstu"), None, "a character outside base 58");
    assert_eq!((cell("srvtoolu_A"), cell("srvtoolu_bdrk_01abcdefghijkmnopqrstu")), (None, None));
    let short: ServerToolUseId = "srvtoolu_A".parse().unwrap();
    let (plain, kept) = (ToolUseId::mint(&mut SeededIds::new(1)), ToolUseId::mint_in(&short, &mut SeededIds::new(1)));
    assert_eq!(plain, kept, "without a mark it is minted as any other");
    // Filled up by hand, and the same behind the prefix.
    for tail in ["1111111111111111111111", "AAAAAAAAAAAAAAAAAAAAAA", "abcdefghijkabcdefghijk"] {
        let (cell, call) = (cell(&format!("srvtoolu_01{tail}")), marked(&format!("toolu_01{tail}")));
        assert!(cell.is_some() && call.is_some());
        assert_ne!(cell, call, "{tail}");
    }
}

/// Plays back fixed bytes, then zeros.
struct Played(Vec<u8>);

impl IdSource for Played {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = if self.0.is_empty() { 0 } else { self.0.remove(0) };
        }
    }
}

#[test]
fn bytes_that_would_bias_are_left_out() {
    // 231 is the last byte used (231 % 58 = 57, 'z'); 232 to 255 are skipped; 58 wraps to '1'.
    let id = FileId::mint(&mut Played(vec![232, 255, 231, 240, 57, 58, 0]));
    assert_eq!(id.as_str(), format!("file_01zz1{}", "1".repeat(19)));
}

#[test]
#[should_panic(expected = "not random")]
fn a_dead_source_does_not_hang() {
    struct Dead;
    impl IdSource for Dead {
        fn fill(&mut self, bytes: &mut [u8]) {
            bytes.fill(0xff);
        }
    }
    FileId::mint(&mut Dead);
}

#[test]
fn every_base58_character_is_about_as_likely() {
    let mut source = SeededIds::new(42);
    let mut counts = std::collections::BTreeMap::<char, u32>::new();
    let ids = 20_000_u32;
    for _ in 0..ids {
        for character in FileId::mint(&mut source).as_str()["file_01".len()..].chars() {
            *counts.entry(character).or_default() += 1;
        }
    }
    assert_eq!(counts.keys().collect::<String>(), "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz");
    // 7586 expected for each, standard deviation 86: six of them either way.
    let expected = ids * 22 / 58;
    for (character, count) in counts {
        assert!(count.abs_diff(expected) < 6 * 86, "{character}: {count}");
    }
}

#[test]
fn page_tokens_carry_a_payload() {
    let token = PageToken::carrying("00ff").unwrap();
    assert_eq!(token.as_str(), "page_00ff");
    assert_eq!(token.payload(), "00ff");
    assert_eq!(PageToken::carrying("").unwrap_err().problem(), Problem::Empty);
}

proptest! {
    #[test]
    fn minted_ids_parse_and_have_the_documented_form(seed: u64) {
        let id = ContainerId::mint(&mut SeededIds::new(seed));
        prop_assert_eq!(id.as_str().len(), "container_01".len() + 22);
        prop_assert!(id.as_str().starts_with("container_01"));
        prop_assert_eq!(id.as_str().parse::<ContainerId>(), Ok(id.clone()));
        prop_assert_eq!(String::from(id.clone()), id.to_string());
    }

    #[test]
    fn whatever_parses_is_safe_in_a_path_and_keeps_its_text(text in "\\PC{0,80}") {
        for prefix in ["", "file_"] {
            let text = format!("{prefix}{text}");
            if let Ok(id) = text.parse::<FileId>() {
                prop_assert_eq!(id.as_str(), text.as_str());
                prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
                prop_assert!(text.len() <= "file_".len() + 64);
            }
        }
    }

    #[test]
    fn order_is_the_order_of_the_text(a: u64, b: u64) {
        let (a, b) = (FileId::mint(&mut SeededIds::new(a)), FileId::mint(&mut SeededIds::new(b)));
        prop_assert_eq!(a.cmp(&b), a.as_str().cmp(b.as_str()));
    }
}
