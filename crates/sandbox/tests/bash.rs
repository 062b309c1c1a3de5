//! Commands in a real container.

mod support;

use support::{Said, leased, run, said, stdout};

#[tokio::test(flavor = "multi_thread")]
async fn a_command_says_what_it_says_and_ends_as_it_ends() {
    let sandbox = sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    let cases = [
        ("echo hi", 0, "hi\n", ""),
        ("printf 'no newline'; echo err >&2; exit 3", 3, "no newline", "err\n"),
        ("nonsense", 127, "", "bash: line 1: nonsense: command not found\n"),
        ("kill -TERM $$", 143, "", ""),
        ("cat", 0, "", ""),
        ("pwd; cd /tmp", 0, "/work\n", ""),
        ("pwd", 0, "/work\n", ""),
        ("printf '\\xff\\x00\\xfe' | wc -c", 0, "3\n", ""),
        ("x=$(cat <<'EOF'\nå ∫\nEOF\n); echo \"$x\"", 0, "å ∫\n", ""),
        ("", 0, "", ""),
    ];
    for (command, return_code, stdout, stderr) in cases {
        let expected = Said { return_code, stdout: stdout.to_owned(), stderr: stderr.to_owned() };
        assert_eq!(said(&run(&mut lease, command).await), expected, "{command}");
    }
    assert_eq!(stdout(&mut lease, "id -u; echo $HOME $INPUT_DIR").await, "0\n/root /files/input\n");
    drop(lease);
    sandbox.close().await;
}
