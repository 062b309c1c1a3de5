//! A container's files out of one container and into another.

mod support;

use std::time::Duration;

use belljar_sandbox::{DeathReason, Lease, PutError, SandboxConfig, SandboxError};
use support::{config, id, leased, run, stdout, until};
use tokio::io::AsyncReadExt;

async fn layer_of(lease: &mut Lease) -> Result<Vec<u8>, std::io::Error> {
    let mut layer = Vec::new();
    lease.checkpoint().expect("a pipe").read_to_end(&mut layer).await?;
    Ok(layer)
}

#[tokio::test(flavor = "multi_thread")]
async fn files_come_back_as_they_were() {
    let sandbox = sandbox!();
    let mut first = leased(&sandbox, 1).await;
    let made = "
        mkdir -p /work/a/b; echo one > /work/a/b/f; ln /work/a/b/f /work/hard; ln -s a/b/f /work/soft
        chmod 000 /work/a; truncate -s 8M /tmp/sparse; echo x > \"/tmp/$(printf 'odd\\n\\377')\"
        rm $(command -v uname); echo changed >> /etc/made; touch -d 2001-02-03 /work";
    stdout(&mut first, made).await;
    let layer = layer_of(&mut first).await.expect("whole");

    let mut second = leased(&sandbox, 2).await;
    second.restore(layer.as_slice()).await.expect("fits");
    let look = "
        stat -c '%n %a %s %F' /work/a /tmp/sparse; stat -c %y /work | cut -c1-10; chmod 700 /work/a
        cat /work/soft; stat -c %h /work/hard; command -v uname; echo $?
        cat /etc/made; ls -b /tmp";
    let expected = "/work/a 0 60 directory\n/tmp/sparse 644 8388608 regular file\n2001-02-03\none\n2\n1\n\
                    changed\nodd\\n\\377\nsparse\n";
    assert_eq!(stdout(&mut second, look).await, expected);
    drop((first, second));
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_copied_from_one_container_into_another() {
    let sandbox = sandbox!();
    let mut first = leased(&sandbox, 1).await;
    let made = "
        mkdir -p /work/a/b; head -c 3000000 /dev/urandom > /work/a/b/f; ln /work/a/b/f /work/hard; ln -s a/b/f /work/soft
        rm $(command -v uname); sleep 1000 & echo $! > /work/pid";
    stdout(&mut first, made).await;
    let mut second = leased(&sandbox, 2).await;
    first.copy_into(&mut second).await.expect("fits");
    let look = "sha256sum < /work/soft; stat -c %h /work/hard; command -v uname; echo $?; cat /work/pid";
    assert_eq!(stdout(&mut second, look).await, stdout(&mut first, look).await);
    // Its own from now on; and the first one's code goes on.
    stdout(&mut second, "rm -r /work/a").await;
    assert_eq!(stdout(&mut first, "kill -0 $(cat /work/pid) && ls /work/a/b").await, "f\n");
    drop((first, second));
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_cannot_be_is_told_and_leaves_the_first_one() {
    let sandbox = sandbox!(SandboxConfig { disk_bytes_max: 8 << 20, ..config() });
    let mut first = leased(&sandbox, 1).await;
    stdout(&mut first, "head -c 5000000 /dev/urandom > /work/f").await;
    let mut full = leased(&sandbox, 2).await;
    stdout(&mut full, "head -c 6000000 /dev/urandom > /work/g").await;
    let refused = first.copy_into(&mut full).await;
    assert!(matches!(refused, Err(PutError::DiskFull)), "{refused:?}");
    assert_eq!(stdout(&mut first, "stat -c %s /work/f").await, "5000000\n");
    drop((first, full));
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifos_come_back_and_holes_stay_holes() {
    namespaces_only!("gVisor keeps FIFOs in its own memory, and tells no file's blocks");
    let sandbox = sandbox!();
    let mut first = leased(&sandbox, 1).await;
    stdout(&mut first, "mkfifo /tmp/pipe; truncate -s 8M /tmp/sparse").await;
    let layer = layer_of(&mut first).await.expect("whole");
    let mut second = leased(&sandbox, 2).await;
    second.restore(layer.as_slice()).await.expect("fits");
    assert_eq!(stdout(&mut second, "stat -c '%a %b %F' /tmp/*").await, "644 0 fifo\n644 0 regular file\n");
    drop((first, second));
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_frozen_is_read_too() {
    let sandbox = sandbox!(SandboxConfig { idle_freeze: Duration::ZERO, ..config() });
    let mut lease = leased(&sandbox, 1).await;
    stdout(&mut lease, "echo mine > /work/mine").await;
    drop(lease);
    until("it is frozen", || sandbox.counts().frozen == 1).await;
    let mut lease = sandbox.lease(&id(1), Duration::ZERO).await.expect("free");
    let layer = layer_of(&mut lease).await.expect("whole");
    let mut second = leased(&sandbox, 2).await;
    second.restore(layer.as_slice()).await.expect("fits");
    assert_eq!(stdout(&mut second, "cat /work/mine").await, "mine\n");
    drop((lease, second));
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_changes_while_it_is_read_and_all_goes_on_afterwards() {
    let sandbox = sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    // Two files that are only ever written together, as fast as it goes.
    let writer = "(n=0; while :; do n=$((n+1)); echo $n > /work/one; echo $n > /work/two; done) > /dev/null 2>&1 &
        until [ -s /work/two ]; do :; done";
    stdout(&mut lease, writer).await;
    let layer = layer_of(&mut lease).await.expect("whole");
    let mut restored = leased(&sandbox, 2).await;
    restored.restore(layer.as_slice()).await.expect("fits");
    // Stopped anywhere between the two writes: at most one behind, or emptied for the next number.
    let near = "one=$(cat /work/one); two=$(cat /work/two); echo $(( ${one:-$two} - ${two:-$one} <= 1 ))";
    assert_eq!(stdout(&mut restored, near).await, "1\n");
    let goes_on = "was=$(cat /work/two); until [ \"$(cat /work/two)\" != \"$was\" ]; do :; done; echo on";
    assert_eq!(stdout(&mut lease, goes_on).await, "on\n");
    drop((lease, restored));
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_cannot_be_is_an_error_and_not_half_a_layer() {
    let sandbox = sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    let deep = "cd /tmp; for i in $(seq 60); do mkdir $(printf 'd%.0s' $(seq 100)); cd -P d*; done 2> /dev/null; true";
    run(&mut lease, deep).await;
    let error = layer_of(&mut lease).await.expect_err("deeper than a path can say");
    assert_eq!(error.to_string(), std::io::Error::from_raw_os_error(36).to_string());
    assert_eq!(stdout(&mut lease, "echo alive").await, "alive\n");
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_leaves_the_container_usable() {
    let sandbox = sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    stdout(&mut lease, "head -c 20M /dev/urandom > /work/large").await;
    let mut reader = lease.checkpoint().expect("a pipe");
    reader.read_exact(&mut [0; 1000]).await.expect("it has begun");
    drop(reader);
    assert_eq!(stdout(&mut lease, "echo alive").await, "alive\n");
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_layer_or_too_large_is_refused() {
    let sandbox = sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    for nonsense in [vec![b'x'; 5000], b"\x1f\x8b\x08".repeat(400)] {
        let refused = lease.restore(nonsense.as_slice()).await;
        assert!(matches!(refused, Err(PutError::Refused(_))), "{refused:?}");
    }
    let mut large = leased(&sandbox, 2).await;
    stdout(&mut large, "head -c 40M /dev/urandom > /work/large").await;
    let layer = layer_of(&mut large).await.expect("whole");
    stdout(&mut lease, "head -c 40M /dev/urandom > /work/mine").await;
    let full = lease.restore(layer.as_slice()).await;
    assert!(matches!(full, Err(PutError::DiskFull)), "{full:?}");
    drop((lease, large));
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_dies_meanwhile_is_no_whole_layer() {
    let sandbox = sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    stdout(&mut lease, "head -c 20M /dev/urandom > /work/large").await;
    let id = lease.container().clone();
    let mut reader = lease.checkpoint().expect("a pipe");
    reader.read_exact(&mut [0; 1000]).await.expect("it has begun");
    assert!(sandbox.remove(&id).await);
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).await.expect_err("not whole");
    let after = lease.bash("true", support::options()).await;
    assert!(matches!(after, Err(SandboxError::Dead(DeathReason::Removed))), "{after:?}");
    drop(lease);
    sandbox.close().await;
}
