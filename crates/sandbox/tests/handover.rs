//! Containers live on while the process that holds them becomes another program.
//!
//! Each test has two halves: the first executes this very program again, for the second, whose end is then the end of both.

mod support;

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use belljar_ids::ContainerId;
use belljar_jail::HandedFd;
use belljar_sandbox::handover::{Handover, Inherited, form};
use belljar_sandbox::{
    CellOutcome, ContainerState, KillReason, Lease, Loss, Parked, Sandbox, SandboxConfig, SandboxError, ToolAnswer,
};
use rustix::fs::{MemfdFlags, memfd_create};
use support::calls::{
    answer, called, calls, ended, good, heard, over, resume, resume_with, start, start_bash, start_with, tools, waiting,
};
use support::leftovers::{Held, processes_with};
use support::{id, leased, printed, python_config, python_outcome, stdout, until};
use tokio_util::sync::CancellationToken;

/// Number of the descriptor that holds the handover.
const HANDOVER: &str = "BELLJAR_TEST_HANDOVER";

/// Executes this program again for the second half of `test`. Comes back only when that cannot be done.
async fn become_again(test: &str, sandbox: &Sandbox, parked: &[&Parked]) -> ! {
    let handover = sandbox.hand_over(parked).await.expect("handed over");
    let mut memory = File::from(memfd_create("handover", MemfdFlags::CLOEXEC).expect("memory"));
    memory.write_all(&serde_json::to_vec(&handover).expect("JSON")).expect("room");
    memory.rewind().expect("a file");
    let memory = OwnedFd::from(memory);
    let number = HandedFd::hand_over(&memory).expect("open").number().to_string();
    let program = std::env::current_exe().expect("this one");
    let error = Command::new(program).args(["--exact", test, "--nocapture"]).env(HANDOVER, number).exec();
    panic!("{test}: {error}");
}

/// In the second half: what the first has handed over.
fn handover() -> Option<Handover> {
    let number = std::env::var(HANDOVER).ok()?.parse().expect("a number");
    let mut memory = File::from(HandedFd::numbered(number).take_over().expect("inherited"));
    let mut text = Vec::new();
    memory.read_to_end(&mut text).expect("a file");
    Some(serde_json::from_slice(&text).expect("a handover"))
}

async fn inherited(config: SandboxConfig, handover: Handover) -> (Sandbox, Inherited, impl Sized) {
    inherited_with(config, handover, |_| CancellationToken::new()).await
}

async fn inherited_with(
    config: SandboxConfig,
    handover: Handover,
    cancel: impl FnMut(&ContainerId) -> CancellationToken,
) -> (Sandbox, Inherited, impl Sized) {
    let (image, rootfs) = support::image::rootfs().await.expect("it was there a moment ago");
    let (sandbox, inherited) =
        Sandbox::open_with(config, rootfs, handover, cancel).await.expect("what is handed over is taken over");
    assert_eq!(inherited.lost, []);
    (sandbox, inherited, image)
}

async fn again(sandbox: &Sandbox, seed: u64) -> Lease {
    sandbox.lease(&id(seed), Duration::ZERO).await.expect("it is there, and free")
}

fn frozen_soon() -> SandboxConfig {
    SandboxConfig { idle_freeze: Duration::from_millis(40), ..python_config() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interpreter_does_not_notice() {
    if let Some(handover) = handover() {
        return an_interpreter_has_not_noticed(handover).await;
    }
    let (sandbox, _image) = python_sandbox!(frozen_soon());
    let mut lease = leased(&sandbox, 1).await;
    printed(&mut lease, "import threading, time\nx = [41]\nopened = open('/work/notes', 'w+')").await;
    let counting = "def count():\n    while True:\n        x[0] += 1\n        time.sleep(0.01)\n\
                    threading.Thread(target=count, daemon=True).start()";
    printed(&mut lease, counting).await;
    stdout(&mut lease, "sleep 1000 >/dev/null 2>&1 & echo $! > /work/sleeper").await;
    drop(lease);
    sandbox.create(id(2)).await.expect("one that nobody has used");
    if support::limits_enforced() {
        until("both stand still", || sandbox.counts().frozen == 2).await;
    }
    let in_use = leased(&sandbox, 3).await;
    let _kept = in_use;
    become_again("an_interpreter_does_not_notice", &sandbox, &[]).await
}

async fn an_interpreter_has_not_noticed(handover: Handover) {
    let (sandbox, inherited, _image) = inherited(python_config(), handover).await;
    let mut containers = inherited.containers;
    containers.sort();
    let mut expected = vec![id(1), id(2)];
    expected.sort();
    assert_eq!(containers, expected, "what was in use is none of them");
    assert_eq!(sandbox.status(&id(3)), None);
    let mut lease = again(&sandbox, 1).await;
    let grown = "a = x[0]\nwhile x[0] == a:\n    time.sleep(0.01)\nopened.write('kept'); opened.flush()\nprint(a > 41)";
    assert_eq!(printed(&mut lease, grown).await, "True\n");
    assert_eq!(
        stdout(&mut lease, "cat /work/notes; kill -0 $(cat /work/sleeper) && echo ' runs'").await,
        "kept runs\n"
    );
    assert_eq!(stdout(&mut again(&sandbox, 2).await, "echo fresh").await, "fresh\n");
    // How it ends is still known, in namespaces by the zygote of the program before.
    let outcome = python_outcome(&mut lease, "import os; os._exit(3)").await;
    let CellOutcome::Crashed(output) = outcome else { panic!("{outcome:?}") };
    assert_eq!(output.return_code, 3, "{:?}", output.losses);
    assert_eq!(printed_after_a_loss(&mut lease, "print('new')").await, "new\n");
    drop(lease);
    sandbox.close().await;
    until("nothing is left", || Held::now().children() == 0 && Held::now().cgroups().is_empty()).await;
}

async fn printed_after_a_loss(lease: &mut Lease, source: &str) -> String {
    let output = support::python(lease, source).await;
    assert!(output.losses.iter().all(|loss| matches!(loss, Loss::InterpreterRestarted(_))), "{:?}", output.losses);
    support::said(&output).stdout
}

#[test]
fn nor_does_one_that_a_zygote_has_forked() {
    if support::isolation() == belljar_sandbox::Isolation::Namespaces {
        support::warm::run_one("an_interpreter_does_not_notice");
        support::warm::run_one("code_that_waits_goes_on");
    }
}

const GATHERS: &str = "import asyncio\nprint('before')\n\
                       one, two = await asyncio.gather(query_db({'sql': '1'}), anything({}))\nprint(one, two)\n\
                       print(await query_db({'sql': one}))\nopen(f'{__import__(\"os\").environ[\"OUTPUT_DIR\"]}/out', 'w').write('made')";

#[tokio::test(flavor = "multi_thread")]
async fn code_that_waits_goes_on() {
    if let Some(handover) = handover() {
        return code_that_waited_goes_on(handover).await;
    }
    let (sandbox, _image) = python_sandbox!(waiting(60));
    let python = called(start(leased(&sandbox, 1).await, GATHERS).await);
    assert_eq!(python.calls().len(), 2);
    let bash = called(start_bash(leased(&sandbox, 2).await, "echo before; query_db '{\"a\":1}'; anything '{}'").await);
    let other = called(start(leased(&sandbox, 3).await, "print(await query_db({}))").await);
    become_again("code_that_waits_goes_on", &sandbox, &[&python, &bash, &other]).await
}

async fn code_that_waited_goes_on(handover: Handover) {
    let interrupt = CancellationToken::new();
    let cancel = |container: &ContainerId| match *container == id(3) {
        true => interrupt.clone(),
        false => CancellationToken::new(),
    };
    let (sandbox, inherited, _image) = inherited_with(waiting(60), handover, cancel).await;
    let mut parked = inherited.parked;
    parked.sort_by_key(|parked| (1..=3).find(|seed| id(*seed) == *parked.container()));
    let [python, bash, other] = <[Parked; 3]>::try_from(parked).expect("three wait");
    assert_eq!(sandbox.status(&id(1)).map(|status| status.state), Some(ContainerState::Leased));
    assert_eq!(
        calls(&python).iter().map(|(number, tool, _)| (*number, *tool)).collect::<Vec<_>>(),
        [(1, "query-db"), (2, "anything")]
    );
    let python = called(resume_with(python, vec![answer(1, "eins"), answer(2, "zwei")]).await);
    assert_eq!(calls(&python), [(3, "query-db", serde_json::json!({"sql": "eins"}))]);
    let (mut lease, output) = support::calls::output(resume(python).await);
    assert_eq!(support::said(&output), good("before\neins zwei\n3\n"));
    assert_eq!(output.files.len(), 1);
    assert_eq!(printed(&mut lease, "print(one)").await, "eins\n");
    let bash = called(resume(bash).await);
    let (_lease, said) = ended(resume(bash).await);
    assert_eq!(said, good("before\n12"));
    // It can be interrupted like any other.
    interrupt.cancel();
    let answers = vec![ToolAnswer { number: 1, text: "late".to_owned(), is_error: false }];
    let progress = other.resume(answers, &tools()).await.expect("the container lives");
    let belljar_sandbox::Progress::Ended(_, outcome) = progress else { panic!("{progress:?}") };
    assert!(matches!(outcome, CellOutcome::Killed(KillReason::Requested, _) | CellOutcome::Ended(_)), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_nobody_answers_are_given_up_all_the_same() {
    if let Some(handover) = handover() {
        return calls_that_nobody_answered_were_given_up(handover).await;
    }
    namespaces_only!("the host does not see what runs");
    let (sandbox, _image) = python_sandbox!(waiting(1));
    let source = "import subprocess\ntry:\n    await query_db({})\nexcept TimeoutError as error:\n    print(error)\n\
                  process = subprocess.Popen(['sleep', '4711'])";
    // This code gives up, and ends, before: what it came to is lost, its container is not.
    let (options, heard) = heard();
    let gives_up = "x = 1\ntry:\n    await query_db({})\nexcept TimeoutError:\n    pass";
    let ended_before = called(start_with(leased(&sandbox, 2).await, gives_up, options).await);
    over(heard).await;
    let parked = called(start(leased(&sandbox, 1).await, source).await);
    become_again("calls_that_nobody_answers_are_given_up_all_the_same", &sandbox, &[&parked, &ended_before]).await
}

async fn calls_that_nobody_answered_were_given_up(handover: Handover) {
    let (sandbox, inherited, _image) = inherited(waiting(1), handover).await;
    let [parked] = <[Parked; 1]>::try_from(inherited.parked).expect("one waits");
    assert_eq!(printed(&mut again(&sandbox, 2).await, "print(x)").await, "1\n");
    // Its time is up while nobody asks; the outcome is kept.
    until("the code goes on by itself", || !processes_with("sleep 4711").is_empty()).await;
    let (_lease, said) = ended(resume(parked).await);
    assert_eq!(said, good("Calling tool ['query-db'] timed out (no response after 1s).\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_form_or_image_is_refused() {
    if let Some(handover) = handover() {
        return another_form_or_image_was_refused(handover).await;
    }
    let (sandbox, _image) = python_sandbox!();
    leased(&sandbox, 1).await;
    become_again("another_form_or_image_is_refused", &sandbox, &[]).await
}

async fn another_form_or_image_was_refused(handover: Handover) {
    let (_image, rootfs) = support::image::rootfs().await.expect("it was there a moment ago");
    let mut json = serde_json::to_value(handover).expect("JSON");
    for (key, value, says) in [("form", "0.0.0.0", form()), ("image", "sha256:0", "sha256:0".to_owned())] {
        let good = std::mem::replace(&mut json[key], value.into());
        let other: Handover = serde_json::from_value(json.clone()).expect("a handover");
        json[key] = good;
        let refused = Sandbox::open_with(python_config(), rootfs.clone(), other, |_| CancellationToken::new()).await;
        match refused.err() {
            Some(SandboxError::Host(why)) => assert!(why.contains(&says), "{why}"),
            other => panic!("{key}: {other:?}"),
        }
    }
}
