//! `anthropic-version` and `anthropic-beta`.

use belljar_wire::beta::{ApiVersion, Betas};
use belljar_wire::error::ApiError;

#[test]
fn versions() {
    assert_eq!(ApiVersion::read(Some("2023-01-01")), Ok(ApiVersion::V20230101));
    assert_eq!(ApiVersion::read(Some("2023-06-01")), Ok(ApiVersion::V20230601));
    assert_eq!(ApiVersion::read(Some("2026-10-21")), Ok(ApiVersion::V20261021));
    assert_eq!(ApiVersion::read(None), Err(ApiError::invalid("anthropic-version: header is required")));
    for unknown in ["", "2026-10-22", "latest", " 2023-06-01"] {
        let message = format!("anthropic-version: \"{unknown}\" is not a valid version");
        assert_eq!(ApiVersion::read(Some(unknown)), Err(ApiError::invalid(message)));
    }
    let long = format!("anthropic-version: \"{}…\" is not a valid version", "x".repeat(128));
    assert_eq!(ApiVersion::read(Some(&"x".repeat(9_000))), Err(ApiError::invalid(long)));
}

#[test]
fn dated_betas_are_taken() {
    let headers = [
        "code-execution-2025-08-25, files-api-2025-04-14,skills-2025-10-02",
        " message-threads-2026-08-12 ,,",
        "claude-code-20250219,context-1m-2025-08-07,unheard-of-2029-12-31",
        "",
    ];
    let betas = Betas::read(headers).expect("every value ends in a date");
    let expected = [
        "code-execution-2025-08-25",
        "files-api-2025-04-14",
        "skills-2025-10-02",
        "message-threads-2026-08-12",
        "claude-code-20250219",
        "context-1m-2025-08-07",
        "unheard-of-2029-12-31",
    ];
    assert_eq!(betas.values(), expected);
    assert!(betas.has("files-api-2025-04-14"));
    assert!(!betas.has("files-api-2025-04-1"));
    assert!(!betas.has("code-execution-2025-05-22"));
}

#[test]
fn no_header_is_no_beta() {
    assert_eq!(Betas::read([]), Ok(Betas::default()));
}

/// wire.md §19 row 2.
#[test]
fn other_betas_are_named() {
    let refused = |header: &str, named: &str| {
        let message = format!(
            "Unexpected value(s) {named} for the `anthropic-beta` header. Please consult our documentation at \
             platform.claude.com/docs or try again without the header."
        );
        assert_eq!(Betas::read([header]), Err(ApiError::invalid(message)), "{header}");
    };
    refused("foo", "`foo`");
    refused("files-api-2025-04-14,foo,bar", "`foo`, `bar`");
    for ill in [
        "2025-04-14",
        "-2025-04-14",
        "-20250414",
        "x-1999-04-14",
        "x-2025-4-14",
        "x-2025-04-14-",
        "x-2025-0a-14",
        "x-202504145",
        "X-2025-04-14",
        "x y-2025-04-14",
        "é-2025-04-14",
        "x-2025-04-é",
    ] {
        refused(ill, &format!("`{ill}`"));
    }
    let long = format!("{}-2025-04-14", "x".repeat(200));
    refused(&long, &format!("`{}…`", "x".repeat(128)));
}
