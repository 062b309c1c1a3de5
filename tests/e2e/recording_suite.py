"""Recordings: what a strict fake of each dialect was asked and answered is recorded, the fake ends, and the recording answers the
official SDK in its place with the same messages, but for ids and times. The code says `$OUTPUT_DIR`, which is another each time.
"""

import json
import re
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

from harness import server, toolchain
from harness.report import equal
from upstream_suite import KEY, KEY_VARIABLE, Fake

HERE = Path(__file__).resolve().parent
SDK_S_MAX = 120
SHOW_S_MAX = 60
COMMAND = "echo $OUTPUT_DIR; awk '{s+=$1} END {print s}' $INPUT_DIR/in.csv | tee $OUTPUT_DIR/sum.txt"
VARYING = (
    (r"\b(srvtoolu|toolu|msg|container|file|req)_[A-Za-z0-9]{20,}", r"\1_#"), (r"/files/output/[0-9a-f]{16}", "/files/output/#"),
    (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "#"),
)


def answers(dialect):
    """What the fake says: thinking and a call, what came of it, and a farewell."""
    call = {"type": "tool_use", "id": "toolu_a" if dialect == "anthropic" else "c1", "name": "bash_code_execution", "input": {"command": COMMAND}}
    thinking = {"type": "thinking", "thinking": "A sum, größer.", **({"signature": "sig"} if dialect == "anthropic" else {})}
    usage = (lambda i, o: {"input_tokens": i, "output_tokens": o}) if dialect == "anthropic" else (
        lambda i, o: {"prompt_tokens": i, "completion_tokens": o, "total_tokens": i + o}
    )
    return [
        {"content": [thinking, call], "usage": usage(10, 5), "chunk_bytes": 7},
        {"content": [{"type": "text", "text": "It is 6."}], "usage": usage(20, 3)},
        {"content": [{"type": "text", "text": "Not at all."}], "usage": usage(40, 3)},
    ]


def run(report, running, fake_binary):
    if not fake_binary.is_file():
        how = "cargo build -p belljar-model --example fake_upstream"
        return report.fail("starting", f"{fake_binary} is missing: {how}")
    dialects = ("anthropic", "openai")
    with tempfile.TemporaryDirectory(prefix="belljar-test-recordings-") as folder:
        kept = {dialect: Path(folder) / f"{dialect}.jsonl" for dialect in dialects}
        said = {}
        record(report, running.belljar, fake_binary, kept, said)
        replay(report, running.belljar, kept, said)
        for dialect, path in kept.items():
            report.check(f"{dialect}: a recording is shown", lambda path=path, dialect=dialect: shown(running.belljar, path, dialect))


def record(report, belljar, fake_binary, kept, said):
    fakes = {dialect: Fake(fake_binary, answers(dialect)) for dialect in kept}
    try:
        tables = [
            {
                "name": dialect, "kind": dialect, "base_url": fake.url + ("/v1" if dialect == "openai" else ""),
                "api_key_env": KEY_VARIABLE, "models": [dialect], "record": True,
            }
            for dialect, fake in fakes.items()
        ]
        with server.Server(belljar, upstreams=tables, environment={KEY_VARIABLE: KEY}) as recorder:
            for dialect, path in kept.items():
                said[dialect] = by_sdk(recorder.base_url, dialect)
                report.check(f"{dialect}: what is recorded was said", lambda dialect=dialect: told(said[dialect]))
                shutil.copy2(recorder.data_dir / "recordings" / f"{dialect}.jsonl", path)
                report.check(f"{dialect}: its owner's alone, and without the key", lambda path=path: private(path))
                report.check(f"{dialect}: the fake found no broken rule", fakes[dialect].finish)
    finally:
        for fake in fakes.values():
            fake.kill()


def replay(report, belljar, kept, said):
    """No upstream is there, and no key."""
    tables = [{"name": dialect, "kind": "recorded", "recording": str(path), "models": [dialect]} for dialect, path in kept.items()]
    with server.Server(belljar, upstreams=tables) as replayer:
        for dialect in kept:
            for time in ("once", "once more"):
                report.check(
                    f"{dialect}: the recording says the same, {time}",
                    lambda dialect=dialect: equal(by_sdk(replayer.base_url, dialect), said[dialect], "messages"),
                )
            report.check(f"{dialect}: what was not recorded is not found", lambda dialect=dialect: unknown(replayer, dialect))
        report.check("no thread panicked", replayer.no_panic)


def by_sdk(base_url, *arguments):
    """What the SDK's program prints, with what varies from run to run taken out."""
    python = toolchain.python_with(HERE / "locks" / "anthropic-2.11.0.txt")
    ended = subprocess.run(
        [str(python), str(HERE / "recording_sdk.py"), base_url, *arguments], capture_output=True, text=True, timeout=SDK_S_MAX,
    )
    equal(ended.returncode, 0, ended.stdout + ended.stderr)
    text = ended.stdout
    for pattern, instead in VARYING:
        text = re.sub(pattern, instead, text)
    return [json.loads(line) for line in text.splitlines()]


def told(messages):
    first, second = messages
    equal([block["type"] for block in first["content"]], ["thinking", "server_tool_use", "bash_code_execution_tool_result", "text"], "blocks")
    equal(first["content"][2]["content"]["stdout"], "/files/output/#\n6\n", "what the code printed")
    equal([block["text"] for block in second["content"]], ["Not at all."], "the second reply")


def private(path):
    equal(stat.S_IMODE(path.stat().st_mode), 0o600, "mode")
    text = path.read_text()
    equal(KEY in text, False, "whether the key is in it")
    equal(len(text.splitlines()), 4, "a head and three exchanges")


def unknown(replayer, dialect):
    [[name, status, message]] = by_sdk(replayer.base_url, dialect, "Something else.")
    equal((name, status), ("NotFoundError", 404), "the error")
    digest = re.search(r"\(digest ([0-9a-f]{64})\)", message)
    if digest is None:
        raise AssertionError(f"no digest in {message!r}")
    hint = next((line for line in replayer.log().splitlines() if digest[1] in line), "")
    if re.search(r"at `messages\.\d\.content", hint) is None or "Something else." not in hint:
        raise AssertionError(f"the log does not say what differs: {hint!r}")


def shown(belljar, path, dialect):
    def show(*arguments):
        ended = subprocess.run(
            [belljar, "recording", "show", str(path), *arguments], capture_output=True, text=True, timeout=SHOW_S_MAX,
        )
        equal((ended.returncode, ended.stderr), (0, ""), "belljar recording show")
        return ended.stdout

    listed = show().splitlines()
    equal((listed[0], len(listed)), (f"{dialect} upstream `{dialect}`, 3 exchanges", 4), "the list")
    equal(["200 complete" in line for line in listed[1:]], [True] * 3, f"how each ended, in {listed!r}")
    turn = show("2")
    for expected in ("== user\n", "  Sum it up.", "[call of bash_code_execution]\n", f"  command: {json.dumps(COMMAND)}\n", "== reply\n  It is 6.\nstop reason: end_turn\n"):
        if expected not in turn:
            raise AssertionError(f"{expected!r} is not in\n{turn}")
    equal("== system\n  You can run code" in turn, dialect == "openai", "whether the model is told in plain words")
    document = json.loads(show("1", "--json"))
    parts = [part["type"] for part in document["reply"]["parts"]]
    equal((parts, document["reply"]["stop_reason"]), (["thinking", "call"], "tool_use"), "the first reply")
    equal(document["reply"]["parts"][1]["input"], {"command": COMMAND}, "the call's input")
