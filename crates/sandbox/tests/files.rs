//! Files in and out, and the text editor, in a real container.

mod support;

use belljar_sandbox::{
    DeathReason, EditCommand, EditFailure, EditOutcome, FileType, Isolation, PutError, ReadError, SandboxError,
};
use support::{leased, run, stdout};
use tokio::io::AsyncReadExt;

const MIB: u64 = 1024 * 1024;

async fn read(lease: &mut belljar_sandbox::Lease, path: &str, bytes_max: u64) -> Result<Vec<u8>, ReadError> {
    let mut content = lease.read_file(path, bytes_max).await?;
    let mut bytes = Vec::new();
    content.read_to_end(&mut bytes).await.expect("a file on tmpfs");
    assert_eq!(bytes.len() as u64, content.size());
    Ok(bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_arrive_whole_under_their_names() {
    let sandbox = sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    let large: Vec<u8> = (0..5 * MIB).map(|n| (n % 251) as u8).collect();
    lease.put_input("large.bin", large.as_slice(), 5 * MIB).await.expect("fits");
    lease.put_input("empty", tokio::io::empty(), 0).await.expect("fits");
    lease.put_input("a b'ц.csv", b"x,y\n".as_slice(), 4).await.expect("fits");
    lease.put_input("a b'ц.csv", b"again".as_slice(), 5).await.expect("over the first");
    let listed = stdout(&mut lease, "cd $INPUT_DIR; stat -c '%n %s %a %U' *; cat /mnt/user-data/a*").await;
    assert_eq!(listed, "a b'ц.csv 5 644 root\nempty 0 644 root\nlarge.bin 5242880 644 root\nagain");
    assert_eq!(read(&mut lease, "/files/input/large.bin", 5 * MIB).await.expect("there"), large);
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_source_does_not_outlive_its_container() {
    let sandbox = sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    let id = lease.container().clone();
    let (put, removed) =
        tokio::join!(lease.put_input("silent", b"half".as_slice().chain(Never), 100), sandbox.remove(&id));
    assert!(matches!(put, Err(PutError::Sandbox(SandboxError::Dead(DeathReason::Removed)))), "{put:?}");
    assert!(removed);
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_upload_leaves_no_trace() {
    let sandbox = sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    for name in ["", ".", "..", "a/b", "../x", "a\0b", "a\nb"] {
        let put = lease.put_input(name, b"x".as_slice(), 1).await;
        assert!(matches!(&put, Err(PutError::Name(bad)) if bad == name), "{name:?}: {put:?}");
    }
    let short = lease.put_input("short", b"12345".as_slice(), 6).await;
    assert!(matches!(short, Err(PutError::Size { expected: 6, found: 5 })), "{short:?}");
    let long = lease.put_input("long", [0; 200_000].as_slice(), 100_000).await;
    assert!(matches!(long, Err(PutError::Size { expected: 100_000, found: 100_001 })), "{long:?}");
    let full = lease.put_input("full", tokio::io::repeat(7).take(100 * MIB), 100 * MIB).await;
    assert!(matches!(full, Err(PutError::DiskFull)), "{full:?}");
    assert_eq!(stdout(&mut lease, "ls -A $INPUT_DIR; mkdir $INPUT_DIR/dir").await, "");
    let directory = lease.put_input("dir", b"x".as_slice(), 1).await;
    assert!(matches!(&directory, Err(PutError::Refused(why)) if why == "is a directory"), "{directory:?}");
    let dropped = tokio::time::timeout(
        std::time::Duration::from_millis(50),
        lease.put_input("dropped", b"half".as_slice().chain(Never), 100),
    );
    assert!(dropped.await.is_err(), "the source never ends");
    assert_eq!(stdout(&mut lease, "ls -A $INPUT_DIR").await, "dir\n");
    drop(lease);
    sandbox.close().await;
}

/// A source that stalls.
struct Never;

impl tokio::io::AsyncRead for Never {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Pending
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_are_the_containers_and_only_its_own_files_are_read() {
    let sandbox = sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    lease.write_file("sub/x", b"relative".as_slice(), 8).await.expect("made with its parent");
    assert_eq!(
        stdout(&mut lease, "cat /work/sub/x; ln -s / /tmp/up; mkfifo /tmp/fifo; ln -s loop loop").await,
        "relative"
    );
    assert_eq!(read(&mut lease, "/tmp/up/tmp/../work/sub/x", 8).await.expect("inside"), b"relative");
    let host_only = tempfile::NamedTempFile::new_in("/tmp").expect("tempfile");
    let mut cases = vec![
        (host_only.path().to_str().expect("UTF-8").to_owned(), "no such file"),
        ("/etc/shadow".to_owned(), "no such file"),
    ];
    let kinds = [
        ("/", "is a directory"),
        ("/tmp/fifo", "is not a regular file"),
        ("/dev/zero", "is not a regular file"),
        ("/proc/self/status", "is not a regular file"),
        (
            "/proc/1/environ",
            match support::isolation() {
                Isolation::Namespaces => "the container refused: Permission denied (os error 13)",
                Isolation::Gvisor => "is not a regular file",
            },
        ),
        ("/work/sub/x/y", "no such file"),
        ("a\0b", "no such file"),
        ("/work/loop", "the container refused: Too many levels of symbolic links (os error 40)"),
    ];
    cases.extend(kinds.map(|(path, error)| (path.to_owned(), error)));
    for (path, error) in cases {
        assert_eq!(read(&mut lease, &path, 100).await.expect_err("refused").to_string(), error, "{path}");
    }
    let large = read(&mut lease, "/work/sub/x", 7).await;
    assert!(matches!(large, Err(ReadError::TooLarge { size: 8, bytes_max: 7 })), "{large:?}");
    drop(lease);
    sandbox.close().await;
}

fn view(path: &str) -> EditCommand {
    EditCommand::View { path: path.to_owned(), view_range: None }
}

fn create(path: &str, file_text: &str) -> EditCommand {
    EditCommand::Create { path: path.to_owned(), file_text: file_text.to_owned() }
}

fn str_replace(path: &str, old_str: &str, new_str: &str) -> EditCommand {
    EditCommand::StrReplace { path: path.to_owned(), old_str: old_str.to_owned(), new_str: new_str.to_owned() }
}

fn shown(content: &str, num_lines: u64) -> EditOutcome {
    EditOutcome::View {
        content: content.to_owned(),
        file_type: FileType::Text,
        num_lines: Some(num_lines),
        start_line: Some(1),
        total_lines: Some(num_lines),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_editor_makes_shows_and_changes_files() {
    let sandbox = sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    lease.put_input("sample.csv", b"a,b\n1,2\n".as_slice(), 8).await.expect("fits");
    let hunk = EditOutcome::StrReplace {
        old_start: 1,
        old_lines: 2,
        new_start: 1,
        new_lines: 2,
        lines: vec![" one".into(), "-two".into(), "+zwei".into()],
    };
    let missing = |path: &str| EditFailure::FileNotFound { message: format!("{path} does not exist") };
    let invalid = |message: &str| EditFailure::InvalidInput { message: message.to_owned() };
    let no_file_in_proc = match support::isolation() {
        Isolation::Namespaces => "/proc/x cannot be written: No such file or directory (os error 2)",
        Isolation::Gvisor => "/proc/x cannot be written: Permission denied (os error 13)",
    };
    let cases = [
        (view("$INPUT_DIR/sample.csv"), Ok(shown("a,b\n1,2", 2))),
        (create("notes/x.txt", "one\ntwo\n"), Ok(EditOutcome::Create { is_file_update: false })),
        (view("/work/notes/x.txt"), Ok(shown("one\ntwo", 2))),
        (str_replace("notes/x.txt", "two", "zwei"), Ok(hunk)),
        (view("notes/x.txt"), Ok(shown("one\nzwei", 2))),
        (create("notes/x.txt", ""), Ok(EditOutcome::Create { is_file_update: true })),
        (view("notes/x.txt"), Ok(shown("", 0))),
        (view("~/nothing"), Err(missing("~/nothing"))),
        (str_replace("nothing", "a", "b"), Err(missing("nothing"))),
        (view("/work"), Err(invalid("/work is a directory, not a file"))),
        (create("/work", "x"), Err(invalid("/work cannot be written: is a directory"))),
        (create("/proc/x", "x"), Err(invalid(no_file_in_proc))),
        (view("/dev/zero"), Err(invalid("/dev/zero is not a regular file"))),
        (view("$NOPE"), Err(invalid("the path names $NOPE, which is not set"))),
        (str_replace("notes/x.txt", "q", "r"), Err(invalid("old_str was not found in notes/x.txt"))),
    ];
    for (command, expected) in cases {
        let asked = format!("{command:?}");
        assert_eq!(lease.edit(command).await.expect("the container lives"), expected, "{asked}");
    }
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_editor_refuses_what_it_cannot_show() {
    let sandbox = sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    run(&mut lease, "printf '\\xff\\xfe' > binary; head -c 11M /dev/zero > large; printf '\\x89PNG\\r\\n\\x1a\\n' > i")
        .await;
    let invalid = |message: &str| Err(EditFailure::InvalidInput { message: message.to_owned() });
    let image = EditOutcome::View {
        content: "iVBORw0KGgo=".to_owned(),
        file_type: FileType::Image,
        num_lines: None,
        start_line: None,
        total_lines: None,
    };
    let too_large = "large has 11534336 bytes; at most 10485760 can be viewed or edited, use a shell command instead";
    let cases = [
        (view("binary"), invalid("binary is neither UTF-8 text nor an image nor a PDF")),
        (str_replace("binary", "a", "b"), invalid("binary is not UTF-8 text and cannot be edited")),
        (view("large"), invalid(too_large)),
        (view("i"), Ok(image)),
    ];
    for (command, expected) in cases {
        let asked = format!("{command:?}");
        assert_eq!(lease.edit(command).await.expect("the container lives"), expected, "{asked}");
    }
    let full = create("full", &"x".repeat(9 * 1024 * 1024));
    run(&mut lease, "head -c 60M /dev/zero > /tmp/fill 2>/dev/null").await;
    let unavailable = EditFailure::Unavailable { message: "the container's disk is full".to_owned() };
    assert_eq!(lease.edit(full).await.expect("the container lives"), Err(unavailable));
    drop(lease);
    sandbox.close().await;
}

#[test]
fn as_an_ordinary_user_too() {
    support::ordinary::run_all("as_an_ordinary_user_too");
}
