//! Code in Python that calls the client's tools: it pauses, is answered, and goes on.

mod support;

use std::time::Duration;

use belljar_sandbox::{
    AnswersError, CellOptions, CellOutcome, CodeTool, CodeTools, KillReason, Progress, ResumeError, ToolAnswer,
};
use serde_json::json;
use support::calls::{
    answer, called, calls, ended, good, heard, output, over, resume, resume_with, start, start_with, tool, tools,
    waiting, within,
};
use support::{Said, id, leased, options, printed, said, stdout};

#[tokio::test(flavor = "multi_thread")]
async fn a_call_pauses_the_cell_until_it_is_answered() {
    let (sandbox, _image) = python_sandbox!();
    let lease = leased(&sandbox, 1).await;
    let parked = called(start(lease, "x = 1\nprint('before')\nprint(await query_db({'sql': 'A'}), x)").await);
    assert_eq!(parked.container(), &id(1));
    assert_eq!(calls(&parked), [(1, "query-db", json!({"sql": "A"}))]);
    let (lease, said) = ended(resume_with(parked, vec![answer(1, "répons\0e")]).await);
    assert_eq!(said, good("before\nrépons\0e 1\n"));
    // Each cell counts from 1, and names live on.
    let parked = called(start(lease, "x += 1\nprint(await anything({}), x)").await);
    assert_eq!(calls(&parked), [(1, "anything", json!({}))]);
    let (mut lease, said) = ended(resume(parked).await);
    assert_eq!(said, good("1 2\n"));
    assert_eq!(printed(&mut lease, "print(x)").await, "2\n");
    let (lease, said) = ended(start(lease, "print('no call')").await);
    assert_eq!(said, good("no call\n"));
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_together_is_one_pause_and_what_follows_another() {
    let (sandbox, _image) = python_sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    printed(&mut lease, "import asyncio").await;
    let source = "a, b = await asyncio.gather(query_db({'n': 1}), anything({'n': 2}))\nprint(a, b)\n\
                  for n in range(12):\n    print(await anything({'n': n}))";
    let mut progress = start(lease, source).await;
    let mut seen = Vec::new();
    let (lease, said) = loop {
        match progress {
            Progress::Called(parked) => {
                seen.push(parked.calls().len());
                progress = resume(parked).await;
            }
            over => break ended(over),
        }
    };
    assert_eq!(seen, [&[2][..], &[1; 12]].concat());
    assert_eq!(said, good(&format!("1 2\n{}", (3..15).map(|n| format!("{n}\n")).collect::<String>())));
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn some_of_the_calls_may_be_answered_and_the_others_are_told_again() {
    let (sandbox, _image) = python_sandbox!();
    let lease = leased(&sandbox, 1).await;
    let source = "import asyncio\nasync def twice():\n    return await anything({'n': 2}) + await anything({'n': 3})\n\
                  print(await asyncio.gather(query_db({'n': 1}), twice()))";
    let parked = called(start(lease, source).await);
    assert_eq!(parked.calls().len(), 2);
    let Err(ResumeError::Refused { parked, why }) = parked.answer(Vec::new(), &tools()).await else {
        panic!("nothing was answered")
    };
    assert_eq!(why, AnswersError::Missing(1));
    let Err(ResumeError::Refused { parked, why }) = parked.answer(vec![answer(7, "x")], &tools()).await else {
        panic!("nobody called that")
    };
    assert_eq!(why, AnswersError::Unknown(7));
    let parked = called(parked.answer(vec![answer(2, "b")], &tools()).await.expect("it fits"));
    assert_eq!(calls(&parked), [(1, "query-db", json!({"n": 1})), (3, "anything", json!({"n": 3}))]);
    // The code has nothing new to ask, and waits for the one that is left.
    let parked = called(parked.answer(vec![answer(3, "c")], &tools()).await.expect("it fits"));
    assert_eq!(calls(&parked), [(1, "query-db", json!({"n": 1}))]);
    let (lease, said) = ended(resume_with(parked, vec![answer(1, "a")]).await);
    assert_eq!(said, good("['a', 'bc']\n"));
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_calls_wait_together() {
    let (sandbox, _image) = python_sandbox!();
    let lease = leased(&sandbox, 1).await;
    let source = "import asyncio\nrs = await asyncio.gather(*(anything({'n': n, 'x': 'y' * 1000}) for n in range(1000)))\n\
                  print(sum(map(int, rs)))";
    let parked = called(start(lease, source).await);
    let numbers: Vec<_> = parked.calls().iter().map(|call| (call.number, call.input["n"].as_u64())).collect();
    assert_eq!(numbers, (0..1000).map(|n| (n + 1, Some(n))).collect::<Vec<_>>());
    let (lease, said) = ended(resume(parked).await);
    assert_eq!(said, good("500500\n"));
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_data_however_long_and_whatever_they_hold() {
    let (sandbox, _image) = python_sandbox!();
    let lease = leased(&sandbox, 1).await;
    let source = "import asyncio\nrs = await asyncio.gather(*(anything({}) for _ in range(5)), return_exceptions=True)\n\
                  print(len(rs[0]), [ascii(r) for r in rs[1:]])";
    let parked = called(start(lease, source).await);
    let texts = ["x".repeat(50_000_000), "\\ud800 漢\u{2028}".to_owned(), "]]\n[[1,".to_owned(), String::new()];
    let mut answers: Vec<_> = texts.iter().zip(1..).map(|(text, number)| answer(number, text)).collect();
    answers.push(ToolAnswer { number: 5, text: "it failed".to_owned(), is_error: true });
    let (lease, said) = ended(resume_with(parked, answers).await);
    let others = r#"["'\\\\ud800 \\u6f22\\u2028'", "']]\\n[[1,'", "''", "ToolError('anything: it failed')"]"#;
    assert_eq!(said, good(&format!("50000000 {others}\n")));
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_tool_is_an_exception_with_its_text() {
    let (sandbox, _image) = python_sandbox!();
    let lease = leased(&sandbox, 1).await;
    let parked = called(start(lease, "await query_db({'sql': 'A'})").await);
    let failed = ToolAnswer { number: 1, text: "no such table".to_owned(), is_error: true };
    let (lease, said) = ended(resume_with(parked, vec![failed]).await);
    let stderr = "Traceback (most recent call last):\n  File \"/tmp/srvtoolu_01/cell.py\", line 1, in <module>\n    \
                  await query_db({'sql': 'A'})\nToolError: query_db: no such table\n";
    assert_eq!(said, Said { return_code: 1, stdout: String::new(), stderr: stderr.to_owned() });
    drop(lease);
    sandbox.close().await;
}

const TIMED_OUT: &str = "TimeoutError: Calling tool ['query-db'] timed out (no response after 1s).\n";

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_answers_in_time_ends_the_cell_whose_outcome_waits() {
    let (sandbox, _image) = python_sandbox!(waiting(1));
    let lease = leased(&sandbox, 1).await;
    let source = "try:\n    await query_db({'sql': 'A'})\nfinally:\n    open('/tmp/over', 'w').close()";
    let (options, heard) = heard();
    let parked = called(start_with(lease, source, options).await);
    over(heard).await;
    assert_eq!(sandbox.counts().leased, 1, "the outcome is its holder's");
    let (mut lease, said) = ended(resume(parked).await);
    assert_eq!(said, Said { return_code: 0, stdout: String::new(), stderr: TIMED_OUT.to_owned() });
    assert_eq!(stdout(&mut lease, "ls /tmp/over").await, "/tmp/over\n");
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_code_calls_after_that_waits_for_the_holder() {
    let (sandbox, _image) = python_sandbox!(waiting(1));
    let lease = leased(&sandbox, 1).await;
    let source = "for n in range(3):\n    try:\n        print(await query_db({'n': n}))\n    except TimeoutError as e:\n        \
                  print(e)";
    let parked = called(start(lease, source).await);
    assert_eq!(calls(&parked), [(1, "query-db", json!({"n": 0}))]);
    // Longer than two calls wait: the second is told of first, and its time begins then.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let parked = called(resume(parked).await);
    assert_eq!(calls(&parked), [(2, "query-db", json!({"n": 1}))]);
    let parked = called(resume(parked).await);
    assert_eq!(calls(&parked), [(3, "query-db", json!({"n": 2}))]);
    let (lease, said) = ended(resume(parked).await);
    assert_eq!(said, good(&format!("{}2\n3\n", TIMED_OUT.trim_start_matches("TimeoutError: "))));
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn time_spent_waiting_is_not_the_cells() {
    let (sandbox, _image) = python_sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    printed(&mut lease, "import asyncio, time").await;
    let parked = called(start_with(lease, "print(await anything({}))", within(Duration::from_secs(1))).await);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (lease, output) = output(resume(parked).await);
    assert_eq!(said(&output), good("1\n"));
    assert!(output.wall < Duration::from_secs(1), "{:?}", output.wall);
    assert!(output.cpu < Duration::from_secs(1), "{:?}", output.cpu);
    // Time before and after it is.
    let source = "time.sleep(0.6)\nawait anything({})\ntime.sleep(0.6)\nawait anything({})";
    let parked = called(start_with(lease, source, within(Duration::from_secs(1))).await);
    let Progress::Ended(lease, CellOutcome::TimedOut(output)) = resume(parked).await else { panic!("in time") };
    assert_eq!(output.notices(), ["belljar: detection_timeout: time limit of 1 s reached"]);
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_done_while_waiting_is() {
    if !support::limits_enforced() {
        skip!("this host does not count processor time");
    }
    let (sandbox, _image) = python_sandbox!();
    let lease = leased(&sandbox, 1).await;
    let source =
        "import subprocess\nspinning = subprocess.Popen(['bash', '-c', 'while :; do :; done'])\nawait anything({})";
    let (options, heard) = heard();
    let options = CellOptions { wall: Duration::from_secs(2), ..options };
    let parked = called(start_with(lease, source, options).await);
    // Interrupted after two seconds of work.
    over(heard).await;
    let Progress::Ended(mut lease, outcome) = resume(parked).await else { panic!("it goes on") };
    let CellOutcome::TimedOut(output) = &outcome else { panic!("{outcome:?}") };
    assert_eq!(output.notices(), ["belljar: detection_timeout: time limit of 2 s reached"]);
    printed(&mut lease, "spinning.kill(); spinning.wait()").await;
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_parked_cell_ends_it() {
    let (sandbox, _image) = python_sandbox!();
    let lease = leased(&sandbox, 1).await;
    let source =
        "kept = 1\ntry:\n    await anything({})\nexcept BaseException as error:\n    how = repr(error)\n    raise";
    drop(called(start(lease, source).await));
    let mut lease = sandbox.lease(&id(1), Duration::ZERO).await.expect("free at once");
    assert_eq!(printed(&mut lease, "print(kept, how)").await, "1 CancelledError()\n");
    // And one that does not listen is ended by force.
    let deaf = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nawait anything({})";
    drop(called(start(lease, deaf).await));
    let mut lease = sandbox.lease(&id(1), Duration::ZERO).await.expect("free at once");
    assert_eq!(said(&support::python(&mut lease, "print('kept' in globals())").await).stdout, "False\n");
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_cell_can_be_cancelled() {
    let (sandbox, _image) = python_sandbox!();
    let lease = leased(&sandbox, 1).await;
    let (options, heard) = heard();
    let cancel = options.cancel.clone();
    let parked = called(start_with(lease, "await anything({})", options).await);
    cancel.cancel();
    over(heard).await;
    let Progress::Ended(mut lease, outcome) = resume(parked).await else { panic!("it goes on") };
    let CellOutcome::Killed(KillReason::Requested, output) = &outcome else { panic!("{outcome:?}") };
    assert_eq!(output.return_code, 130);
    assert_eq!(printed(&mut lease, "print('fine')").await, "fine\n");
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_answers_to_its_calls_resume_a_cell() {
    let (sandbox, _image) = python_sandbox!();
    let lease = leased(&sandbox, 1).await;
    let source = "import asyncio\nprint(await asyncio.gather(anything({}), anything({})))";
    let mut parked = called(start(lease, source).await);
    let cases = [
        (vec![answer(1, "")], AnswersError::Missing(2)),
        (vec![answer(1, ""), answer(2, ""), answer(3, "")], AnswersError::Unknown(3)),
        (vec![answer(1, ""), answer(1, ""), answer(2, "")], AnswersError::Unknown(1)),
        (vec![answer(1, ""), answer(2, &"x".repeat((64 << 20) + 1))], AnswersError::TooLarge { bytes_max: 64 << 20 }),
    ];
    for (answers, expected) in cases {
        let Err(ResumeError::Refused { parked: still, why }) = parked.resume(answers, &tools()).await else {
            panic!("{expected:?}");
        };
        assert_eq!(why, expected);
        parked = *still;
    }
    let (lease, said) = ended(resume_with(parked, vec![answer(2, "b"), answer(1, "a")]).await);
    assert_eq!(said, good("['a', 'b']\n"));
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tools_sent_last_are_in_force() {
    let (sandbox, _image) = python_sandbox!();
    let lease = leased(&sandbox, 1).await;
    let source = "print(await anything({}))\ntry:\n    await anything({})\nexcept RuntimeError as e:\n    print(e)\n\
                  print(await new({}))";
    let parked = called(start(lease, source).await);
    let renamed = CodeTool { name: "New".to_owned(), ..tool("new") };
    let others = CodeTools::new(vec![renamed]).expect("good");
    let parked = called(parked.resume(vec![answer(1, "a")], &others).await.expect("lives"));
    assert_eq!(calls(&parked), [(2, "New", json!({}))]);
    let (mut lease, said) = ended(parked.resume(vec![answer(2, "b")], &others).await.expect("lives"));
    assert_eq!(said, good("a\nanything is not offered to this cell\nb\n"));
    let output = support::python(&mut lease, "await new({})").await;
    assert_eq!(
        support::said(&output).stderr.lines().last(),
        Some("RuntimeError: new: no cell is running that was given tools")
    );
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_that_cannot_be_run_gives_the_lease_back() {
    let (sandbox, _image) = python_sandbox!();
    let lease = leased(&sandbox, 1).await;
    let none = lease.python_with("1", "cell.py", options(), &tools()).await.expect_err("no absolute path");
    let mut lease = none.lease;
    assert_eq!(printed(&mut lease, "print('fine')").await, "fine\n");
    // A container that is removed under a parked cell is gone for its holder too.
    let parked = called(start(lease, "await anything({})").await);
    assert!(sandbox.remove(&id(1)).await);
    let answers = vec![answer(1, "")];
    match parked.resume(answers, &tools()).await {
        Ok(Progress::Ended(_, CellOutcome::Killed(KillReason::Requested, _))) => {}
        other => panic!("{other:?}"),
    }
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_prints_while_it_is_parked_is_heard() {
    let (sandbox, _image) = python_sandbox!();
    let lease = leased(&sandbox, 1).await;
    let (options, mut heard) = heard();
    let source = "import asyncio\nasync def ticks():\n    await asyncio.sleep(0.2)\n    print('tick')\n\
                  await asyncio.gather(anything({}), ticks())";
    let parked = called(start_with(lease, source, options).await);
    let tick = tokio::time::timeout(Duration::from_secs(30), heard.recv()).await.expect("in time").expect("open");
    assert_eq!(&tick.bytes[..], b"tick\n");
    let (lease, said) = ended(resume(parked).await);
    assert_eq!(said, good("tick\n"));
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_cell_uses_nothing() {
    if !support::limits_enforced() {
        skip!("this host does not count processor time");
    }
    let (sandbox, _image) = python_sandbox!();
    let mut lease = leased(&sandbox, 1).await;
    printed(&mut lease, "import asyncio").await;
    let parked = called(start(lease, "await anything({})").await);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (lease, output) = output(resume(parked).await);
    assert!(output.cpu < Duration::from_millis(200), "{:?}", output.cpu);
    drop(lease);
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interpreter_that_ends_while_it_is_parked_is_told_by_the_resumption() {
    let (sandbox, _image) = python_sandbox!();
    let lease = leased(&sandbox, 1).await;
    let source = "import asyncio, os\nasync def die():\n    await asyncio.sleep(0.1)\n    \
                  os._exit(5)\nawait asyncio.gather(anything({}), die())";
    let (options, heard) = heard();
    let parked = called(start_with(lease, source, options).await);
    over(heard).await;
    let Progress::Ended(mut lease, outcome) = resume(parked).await else { panic!("it goes on") };
    let CellOutcome::Crashed(output) = &outcome else { panic!("{outcome:?}") };
    assert_eq!(output.return_code, 5);
    assert_eq!(said(&support::python(&mut lease, "print('new')").await), good("new\n"));
    drop(lease);
    sandbox.close().await;
}

#[test]
fn so_it_is_in_a_forked_interpreter() {
    support::warm::run_all("so_it_is_in_a_forked_interpreter");
}
