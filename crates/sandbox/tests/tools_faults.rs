//! Code that does with calls what it may not. It is stopped, the container lives, and nobody else notices.

mod support;

use std::time::Duration;

use belljar_sandbox::{CellOutcome, InterpreterEnd, Lease, Loss, Progress};
use serde_json::json;
use support::calls::{called, calls, ended, good, heard, over, resume, start, start_with, within};
use support::{leased, printed, said, stdout};

/// The driver's channel and its cell, as hostile code finds them: a forked interpreter has them in frozen memory.
const FOUND: &str = "import gc, json, os\n\
    gc.unfreeze()\n\
    channel = next(o for o in gc.get_objects() if type(o).__name__ == 'Channel')\n\
    tools = next(o for o in gc.get_objects() if type(o).__name__ == 'Tools')\n\
    cell = tools._cell\n\
    def say(calls='[[\"anything\",{}]]', **other):\n    \
        body = {'id': cell.id, 'nonce': cell.nonce, 'heard': 0, 'calls': calls, 'part': 'last', **other}\n    \
        channel.send(json.dumps({'called': body}))\n";

/// Runs a cell that must break a rule, in words of the outcome.
async fn broken(lease: Lease, source: &str) -> (Lease, String) {
    let progress = start(lease, &format!("{FOUND}{source}")).await;
    let progress = match progress {
        Progress::Called(parked) => resume(parked).await,
        ended => ended,
    };
    let Progress::Ended(mut lease, CellOutcome::Crashed(output)) = progress else { panic!("{source}: {progress:?}") };
    assert_eq!(output.return_code, 137, "{source}");
    let [Loss::InterpreterEnded(InterpreterEnd::Breach(what))] = output.losses[..] else {
        panic!("{source}: {:?}", output.losses);
    };
    let after = said(&support::python(&mut lease, "print('new')").await);
    assert_eq!(after, good("new\n"), "{source}");
    assert_eq!(stdout(&mut lease, "echo bash").await, "bash\n", "{source}");
    (lease, what.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_call_is_a_call_or_a_breach() {
    let (sandbox, _image) = python_sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    let cases = [
        ("say(id=99)", "it spoke out of turn"),
        ("say(nonce='0' * 32)", "it spoke out of turn"),
        ("say('[[\"other\",{}]]')", "it called a tool that it was not offered"),
        ("say('[[\"query-db\",{}]]')", "it called a tool that it was not offered"),
        ("say('[]')", "it waits for nothing"),
        ("say('[[\"anything\"]]')", "it called a tool without meaning"),
        ("say('[[\"anything\",{},1]]')", "it called a tool without meaning"),
        ("say('[[\"anything\",5]]')", "it called a tool without meaning"),
        ("say('[[\"anything\",{\"x\":NaN}]]')", "it called a tool without meaning"),
        ("say('[[\"anything\",{\"x\":' + '[' * 5000 + ']' * 5000 + '}]]')", "it called a tool without meaning"),
        ("say('')", "it called a tool without meaning"),
        ("say('[' + ','.join(['[\"anything\",{}]'] * 1025) + ']')", "it called more tools at once than it may"),
        ("while True: say('x' * 50_000, part='more')", "it called tools with more than it may"),
        ("say(heard=7)", "it heard what was not said"),
        ("say(part='middle')", "a frame without meaning"),
        ("say(more=1)", "a frame without meaning"),
        ("channel.send(json.dumps({'called': {}}))", "a frame without meaning"),
        ("channel.send(json.dumps({'answers': {'id': cell.id}}))", "a frame without meaning"),
        (
            "channel.send(json.dumps({'called': {'id': cell.id, 'nonce': cell.nonce, 'heard': 0, 'calls': '[]', 'part': \
             'last'}}), os.open('/', os.O_PATH))",
            "it spoke out of turn",
        ),
    ];
    for (source, expected) in cases {
        let (back, what) = broken(lease, &format!("{source}\nimport time\ntime.sleep(30)")).await;
        assert_eq!(what, expected, "{source}");
        lease = back;
    }
    // One that is right in all is no more than a call of the code's.
    let source = "say()\nimport time\ntime.sleep(0.2)\nprint('over')";
    let parked = called(start(lease, &format!("{FOUND}{source}")).await);
    assert_eq!(calls(&parked), [(1, "anything", json!({}))]);
    drop(parked);
    let mut lease = sandbox.lease(&support::id(1), Duration::ZERO).await.expect("free");
    assert_eq!(stdout(&mut lease, "echo bash").await, "bash\n");
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_not_waited_for_ends_the_interpreter_alone() {
    let (sandbox, _image) = python_sandbox!();
    let lease = leased(&sandbox, 1).await;
    // Two calls behind the driver's back: of the second it knows nothing when the answer comes.
    let source =
        format!("{FOUND}import asyncio\nsay('[[\"anything\",{{}}],[\"anything\",{{}}]]')\nawait anything({{}})");
    let parked = called(start(lease, &source).await);
    let Progress::Ended(mut lease, outcome) = resume(parked).await else { panic!("it goes on") };
    let CellOutcome::Crashed(output) = &outcome else { panic!("{outcome:?}") };
    assert_eq!(output.losses, [Loss::InterpreterEnded(InterpreterEnd::Exited(70))]);
    assert_eq!(said(&support::python(&mut lease, "print('new')").await), good("new\n"));
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_listen_is_stopped() {
    let (sandbox, _image) = python_sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    // It calls and calls, and takes in no answer.
    let source = "n = 0\nwhile True:\n    say(heard=n)\n    n += 1";
    let mut progress = start(lease, &format!("{FOUND}{source}")).await;
    lease = loop {
        match progress {
            Progress::Called(parked) => progress = resume(parked).await,
            Progress::Ended(lease, CellOutcome::Crashed(output)) => {
                // Which of its faults is seen first depends on who is faster.
                let known =
                    ["it does not listen", "it heard what was not said", "it called more tools at once than it may"];
                let [Loss::InterpreterEnded(InterpreterEnd::Breach(what))] = output.losses[..] else {
                    panic!("{output:?}")
                };
                assert!(known.contains(&what), "{what}");
                break lease;
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(said(&support::python(&mut lease, "print('new')").await), good("new\n"));
    // A closed channel is no way out of a pause.
    let source = "channel._socket.close()\nimport time\ntime.sleep(30)";
    let (lease, what) = broken(lease, source).await;
    assert_eq!(what, "its channel was closed");
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_without_tools_that_calls_breaks_a_rule() {
    let (sandbox, _image) = python_sandbox!();
    let lease = leased(&sandbox, 1).await;
    let parked = called(start(lease, &format!("{FOUND}await anything({{}})")).await);
    let (mut lease, said) = ended(resume(parked).await);
    assert_eq!(said, good(""));
    let source = "frame = gc.get_referrers\nimport sys\n\
                  running = next(o for o in gc.get_objects() if type(o).__name__ == 'Cell' and o is not cell)\n\
                  cell = running\nsay()\nimport time\ntime.sleep(30)";
    let outcome = support::python_outcome(&mut lease, source).await;
    let CellOutcome::Crashed(output) = &outcome else { panic!("{outcome:?}") };
    assert_eq!(output.losses, [Loss::InterpreterEnded(InterpreterEnd::Breach("it spoke out of turn"))]);
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_from_where_none_can_be_made_are_exceptions() {
    let (sandbox, _image) = python_sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    let cases = [
        (
            "import asyncio, threading\nt = threading.Thread(target=lambda: asyncio.run(anything({})))\nt.start(); t.join()",
            0,
        ),
        (
            "import os, asyncio\npid = os.fork()\nif pid == 0: asyncio.run(anything({}))\nos._exit(0) if pid == 0 else os.waitpid(pid, 0)",
            0,
        ),
        ("import atexit, asyncio\natexit.register(lambda: asyncio.run(anything({})))", 0),
        ("anything({})", 0),
        ("class Last:\n    def __del__(self): asyncio.run(anything({}))\nimport asyncio\nlast = Last()", 0),
        (
            "import multiprocessing as m\np = m.get_context('fork').Process(target=lambda: asyncio.run(anything({})))\np.start(); p.join()",
            0,
        ),
        ("await asyncio.gather(*(anything({}) for _ in range(10_000)))", 1),
        ("await anything({'x': 'y' * 100_000_000})", 1),
    ];
    for (source, code) in cases {
        let mut progress = start(lease, source).await;
        if let Progress::Called(parked) = progress {
            progress = resume(parked).await;
        }
        let (back, said) = ended(progress);
        assert_eq!(said.return_code, code, "{source}: {said:?}");
        lease = back;
        assert_eq!(printed(&mut lease, "print('fine')").await, "fine\n", "{source}");
    }
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_is_no_way_to_live_for_ever() {
    let (sandbox, _image) = python_sandbox!();
    let lease = leased(&sandbox, 1).await;
    // It says that it waits, and sleeps on without listening, then works: the time stands still only for the former.
    let source = format!("{FOUND}say()\nwhile True: pass");
    let (options, heard) = heard();
    let options = belljar_sandbox::CellOptions { wall: within(Duration::from_secs(1)).wall, ..options };
    let parked = called(start_with(lease, &source, options).await);
    if support::limits_enforced() {
        over(heard).await;
    }
    let Progress::Ended(lease, outcome) = resume(parked).await else { panic!("it goes on") };
    assert!(matches!(outcome, CellOutcome::TimedOut(_)), "{outcome:?}");
    drop(lease);
    sandbox.close().await;
}

#[test]
fn so_it_is_in_a_forked_interpreter() {
    support::warm::run_all("so_it_is_in_a_forked_interpreter");
}
