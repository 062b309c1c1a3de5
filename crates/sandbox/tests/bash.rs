//! Commands in a real container.

mod support;

use std::io::Read;

use belljar_sandbox::{CellOptions, LiveChunk, SandboxError, Stream};
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

#[tokio::test(flavor = "multi_thread")]
async fn what_code_has_taken_away_from_the_next_command_is_told() {
    let sandbox = sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    assert_eq!(stdout(&mut lease, "cd /; rm -rf /work; echo >/work").await, "");
    let stderr = "belljar: /work is gone, starting in /\n".to_owned();
    let expected = Said { return_code: 0, stdout: "/\n".to_owned(), stderr };
    assert_eq!(said(&run(&mut lease, "pwd").await), expected);
    assert_eq!(said(&run(&mut lease, "rm /work /bin/bash").await).return_code, 0);
    let stderr = "belljar: /bin/bash: No such file or directory (os error 2)\n".to_owned();
    let expected = Said { return_code: 127, stdout: String::new(), stderr };
    assert_eq!(said(&run(&mut lease, "echo unheard").await), expected);
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_longer_than_an_argument_runs_all_the_same() {
    let sandbox = sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    let long = "x".repeat(200 * 1024);
    assert_eq!(stdout(&mut lease, &format!("printf %s {long} | wc -c")).await, "204800\n");
    // The text is no longer open when it runs, and its mistakes are told as those of a short one.
    let command = format!(": {long}\nls /proc/self/fd | tr '\\n' ' '; nonsense; exit 7");
    let output = said(&run(&mut lease, &command).await);
    let stderr = "bash: line 2: nonsense: command not found\n".to_owned();
    assert_eq!(output, Said { return_code: 7, stdout: "0 1 2 3 ".to_owned(), stderr });
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_no_shell_can_be_given_is_refused_and_the_container_lives() {
    let sandbox = sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    let refused = lease.bash("echo \0", support::options()).await;
    assert!(matches!(refused, Err(SandboxError::CommandHasNul)), "{refused:?}");
    let long = "x".repeat(33 * 1024 * 1024);
    let refused = lease.bash(&long, support::options()).await;
    assert!(matches!(refused, Err(SandboxError::CommandTooLong { bytes_max: 33_554_432 })));
    assert_eq!(stdout(&mut lease, "echo still here").await, "still here\n");
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_is_ours_and_nothing_of_the_host() {
    let sandbox = sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    let seen = stdout(&mut lease, "env -u OUTPUT_DIR -u _ | cut -d= -f1 | sort | tr '\\n' ' '").await;
    let expected = "HOME INPUT_DIR JE_ARROW_MALLOC_CONF LANG LOGNAME MPLBACKEND OMP_NUM_THREADS \
                    OPENBLAS_NUM_THREADS PATH PWD PYTHONIOENCODING SHELL SHLVL TAR_OPTIONS TERM USER ";
    assert_eq!(seen, expected);
    assert_eq!(stdout(&mut lease, "uname -n").await, "container\n");
    assert_eq!(stdout(&mut lease, "readlink /mnt/user-data").await, "/files/input\n");
    // No descriptor of the host's leaks in; 3 is the listing's own.
    assert_eq!(stdout(&mut lease, "ls /proc/self/fd | tr '\\n' ' '").await, "0 1 2 3 ");
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_command_has_its_own_output_directory_and_the_files_stay() {
    let sandbox = sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    let first = stdout(&mut lease, "echo -n $OUTPUT_DIR; ls -A $OUTPUT_DIR; echo kept > /tmp/kept").await;
    let second = stdout(&mut lease, "echo -n $OUTPUT_DIR; ls -A $OUTPUT_DIR").await;
    for directory in [&first, &second] {
        let name = directory.strip_prefix("/files/output/").expect("in the output directory");
        assert!(name.len() == 16 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{name}");
    }
    assert_ne!(first, second);
    assert_eq!(stdout(&mut lease, "cat /tmp/kept; ls -A /files/output | wc -l").await, "kept\n1\n");
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn top_level_regular_files_come_out_and_the_rest_is_named() {
    let sandbox = sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    let command = "cd $OUTPUT_DIR; echo -n chart > b.png; echo -n > a.txt; ln -s b.png link.txt; ln b.png hard.png; \
                   mkdir deep; echo x > deep/x; mkfifo pipe; touch 'a:b' $'bad\\xff'; ln -s /etc/passwd shadow; \
                   truncate -s 60M huge; chmod 600 b.png";
    let mut output = run(&mut lease, command).await;
    let mut files = Vec::new();
    for file in &mut output.files {
        let mut content = String::new();
        file.file.read_to_string(&mut content).expect("readable after its directory is gone");
        assert_eq!(content.len() as u64, file.size);
        files.push((file.name.clone(), content));
    }
    let expected = [("a.txt", ""), ("b.png", "chart"), ("hard.png", "chart")];
    assert_eq!(files, expected.map(|(name, content)| (name.to_owned(), content.to_owned())));
    let mut notices = vec![
        "belljar: not captured from $OUTPUT_DIR: a:b (unusable file name)",
        "belljar: not captured from $OUTPUT_DIR: bad\\xff (unusable file name)",
        "belljar: not captured from $OUTPUT_DIR: deep (directory)",
        "belljar: not captured from $OUTPUT_DIR: huge (larger than 50000000 bytes)",
        "belljar: not captured from $OUTPUT_DIR: link.txt (symbolic link)",
        "belljar: not captured from $OUTPUT_DIR: pipe (not a regular file)",
        "belljar: not captured from $OUTPUT_DIR: shadow (symbolic link)",
    ];
    if support::isolation() == belljar_sandbox::Isolation::Gvisor {
        // A FIFO is the sentry's own affair there: no file of the host stands for it.
        notices.retain(|notice| !notice.contains("pipe"));
    }
    assert_eq!(output.notices(), notices);
    assert_eq!(stdout(&mut lease, "ls -A /files/output | wc -l").await, "1\n", "only this command's own is there");
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_directory_made_anew_counts_and_a_removed_one_is_told() {
    let sandbox = sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    let anew = run(&mut lease, "rm -rf /files/output; mkdir -p $OUTPUT_DIR; echo x > $OUTPUT_DIR/x").await;
    assert_eq!(anew.files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), ["x"]);
    let gone = ["belljar: nothing captured: $OUTPUT_DIR was removed or replaced"];
    assert_eq!(run(&mut lease, "rm -rf $OUTPUT_DIR").await.notices(), gone);
    assert_eq!(run(&mut lease, "rmdir $OUTPUT_DIR; ln -s /proc/self $OUTPUT_DIR").await.notices(), gone);
    let swapped = "rm -rf /files/output; mkdir -p /tmp/o; ln -s /proc/1 /files/output";
    assert_eq!(run(&mut lease, swapped).await.notices(), gone);
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_levels_deep_tree_is_removed() {
    let sandbox = sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    let command = "cd $OUTPUT_DIR; mkdir -p $(printf 'd/%.0s' $(seq 1900)); mkdir e; mv d e; mkdir -p d/d; mv e d/d";
    let output = run(&mut lease, command).await;
    assert_eq!(output.notices(), ["belljar: not captured from $OUTPUT_DIR: d (directory)"]);
    assert_eq!(stdout(&mut lease, "ls -A /files/output | wc -l").await, "1\n");
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn output_is_live_and_in_order() {
    let sandbox = sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    let (live, mut heard) = tokio::sync::mpsc::channel::<LiveChunk>(4);
    let hearing = tokio::spawn(async move {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        while let Some(chunk) = heard.recv().await {
            match chunk.stream {
                Stream::Stdout => out.extend_from_slice(&chunk.bytes),
                Stream::Stderr => err.extend_from_slice(&chunk.bytes),
            }
        }
        (out, err)
    });
    let options = CellOptions { live: Some(live), ..support::options() };
    let outcome = lease.bash("seq 20000; seq 5 >&2", options).await.expect("lives");
    let heard = hearing.await.expect("no panic");
    let output = outcome.into_output();
    assert_eq!(output.stdout_bytes, 108_894);
    assert_eq!((&output.stdout, &output.stderr), (&heard.0, &heard.1));
    assert_eq!(heard.1, b"1\n2\n3\n4\n5\n");
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_running_lives_on_and_disturbs_nobody() {
    let sandbox = sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    let started = "(while true; do echo noise; sleep 0.01; done) & echo $! > /tmp/pid; echo started";
    assert_eq!(said(&run(&mut lease, started).await).return_code, 0);
    let later = "setsid bash -c 'sleep 0.2; echo late > /tmp/late' >/dev/null 2>&1 & echo now";
    assert_eq!(stdout(&mut lease, later).await, "now\n");
    assert_eq!(stdout(&mut lease, "until [ -e /tmp/late ]; do sleep 0.05; done; cat /tmp/late").await, "late\n");
    drop(lease);
    sandbox.close().await;
}

#[test]
fn as_an_ordinary_user_too() {
    support::ordinary::run_all("as_an_ordinary_user_too");
}
