//! The policy as a page: `docs/system-calls.md`, written from the data and compared with it.

use std::fmt::Write;

use serde::Deserialize;

use super::policy::{Answer, Condition, Policy, Refuse, Test, numbers};

/// Landlock's half of the policy.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rights {
    pub(crate) granted: Vec<Entry>,
    pub(crate) refused: Vec<Entry>,
    pub(crate) not_scoped: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    pub(crate) right: String,
    pub(crate) reason: String,
}

impl Rights {
    pub(crate) fn embedded() -> Self {
        serde_json::from_str(include_str!("../../../policy/landlock.json")).expect("policy/landlock.json parses")
    }
}

const HEAD: &str = "# System calls in a container

Which calls of Linux a container has, which it has not, how those are answered, and why. Written from
`crates/jail/policy/` by a test (`BELLJAR_BLESS=1 cargo test -p belljar-jail --lib the_page`): change the data, not this page.

Every call of both architectures stands below once. A number that does not, such as a call of a kernel to come, is answered
by ENOSYS, as a kernel without it would. Calls by the i386 convention (`int 0x80`) end the process with SIGSYS; x32 numbers are
nobody's and get ENOSYS. `tests/programs` makes every refused call in a container, and runs what people need beside it.
";

const ANSWERS: &str = "
ENOSYS says \"this kernel has no such call\", and programs fall back; EPERM says \"you may not\", where there is nothing to fall
back to or programs read it so; EINVAL and EAFNOSUPPORT are what kernels without that option or family answer.
";

const SETUP: &str = "Two filters are stacked. The first is on already when a container is set up, and on the programs that do \
it: it refuses all of this but what set-up itself calls. The last one, with which set-up ends, refuses that, too: ";

const EVERYWHERE: &str = "x86_64";

fn page() -> String {
    let policy = Policy::embedded().expect("the policy parses");
    let mut page = HEAD.to_owned();
    counts(&policy, &mut page);
    page.push_str("\n## Allowed\n\n| Calls | Why |\n|---|---|\n");
    for group in policy.allowed(EVERYWHERE) {
        row(&mut page, &[&calls(&group.calls, group.architecture.as_deref()), &group.reason]);
    }
    page.push_str("\n## Refused\n");
    page.push_str(ANSWERS);
    page.push_str("\n| Calls | Answer | Why |\n|---|---|---|\n");
    for group in policy.refused(EVERYWHERE).filter(|group| group.when.is_empty()) {
        let calls = calls(&group.calls, group.architecture.as_deref());
        row(&mut page, &[&calls, answer(group.answer), &group.reason]);
    }
    let setup: Vec<_> = policy.setup.iter().map(|call| format!("`{call}`")).collect();
    write!(page, "\n{SETUP}{}.\n", setup.join(", ")).expect("memory");
    page.push_str("\n## Refused for some arguments\n\n| Call | When | Answer | Why |\n|---|---|---|---|\n");
    for group in policy.refused(EVERYWHERE).filter(|group| !group.when.is_empty()) {
        let calls = calls(&group.calls, group.architecture.as_deref());
        row(&mut page, &[&calls, &when(group), answer(group.answer), &group.reason]);
    }
    rights(&mut page);
    page
}

fn counts(policy: &Policy, page: &mut String) {
    page.push_str(
        "\n| Architecture | Calls | Allowed | of these, not for all arguments | Refused |\n|---|---|---|---|---|\n",
    );
    for architecture in ["x86_64", "aarch64"] {
        let all = numbers(architecture).expect("a table").len();
        let allowed: usize = policy.allowed(architecture).map(|group| group.calls.len()).sum();
        let partly: usize =
            policy.refused(architecture).filter(|group| !group.when.is_empty()).map(|group| group.calls.len()).sum();
        let numbers = [all, allowed, partly, all - allowed].map(|number| number.to_string());
        row(page, &[architecture, &numbers[0], &numbers[1], &numbers[2], &numbers[3]]);
    }
}

fn rights(page: &mut String) {
    let rights = Rights::embedded();
    page.push_str(
        "\n## Files and sockets: Landlock\n\nBeside the filters, Landlock handles every right that the kernel knows: ",
    );
    page.push_str("what is not granted on the container's root is refused, whoever asks.\n");
    for (title, entries) in
        [("Granted", rights.granted), ("Refused", rights.refused), ("Not scoped", rights.not_scoped)]
    {
        write!(page, "\n| {title} | Why |\n|---|---|\n").expect("memory");
        for entry in entries {
            row(page, &[&format!("`{}`", entry.right), &entry.reason]);
        }
    }
}

fn row(page: &mut String, cells: &[&str]) {
    page.push_str(&format!("| {} |\n", cells.join(" | ")));
}

fn calls(calls: &[String], architecture: Option<&str>) -> String {
    let named: Vec<String> = calls.iter().map(|call| format!("`{call}`")).collect();
    let only = architecture.map(|name| format!(" ({name} only)")).unwrap_or_default();
    format!("{}{only}", named.join(", "))
}

fn answer(answer: Answer) -> &'static str {
    match answer {
        Answer::NotPermitted => "EPERM",
        Answer::NoSuchCall => "ENOSYS",
        Answer::NoSuchOption => "EINVAL",
        Answer::NoSuchFamily => "EAFNOSUPPORT",
        Answer::Done => "success, and nothing is done",
    }
}

fn when(group: &Refuse) -> String {
    let all = |conditions: &Vec<Condition>| {
        let each: Vec<String> = conditions.iter().map(condition).collect();
        each.join(" and ")
    };
    group.when.iter().map(all).collect::<Vec<_>>().join("; ")
}

fn condition(condition: &Condition) -> String {
    let how = match condition.test {
        Test::HasBits(_) => "has",
        Test::Is(_) => "is",
        Test::IsNot(_) => "is not",
    };
    format!("argument {} {how} `{}`", condition.argument, condition.means)
}

#[test]
fn the_page_says_what_the_policy_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/system-calls.md");
    if std::env::var_os("BELLJAR_BLESS").is_some() {
        std::fs::write(path, page()).expect("docs/system-calls.md can be written");
    }
    let kept = std::fs::read_to_string(path).expect("docs/system-calls.md is there");
    assert_eq!(kept, page(), "run this test with BELLJAR_BLESS=1 to write the page anew");
}
