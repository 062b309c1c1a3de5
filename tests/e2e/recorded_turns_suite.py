"""The recordings of `docs/examples/recordings`: each answers the official SDK with the reply that is expected, and is shown as its page has it;
`docs/recordings.md` quotes one.

`recorded_turns_suite.py BELLJAR` makes them anew, from llama.cpp's server with its toy model: after a change of what models are
told of our tools, which is a part of what was asked.
"""

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
if __name__ == "__main__":
    sys.path[:0] = [str(HERE), str(HERE.parent)]

import llama_suite  # noqa: E402
from harness import server, toolchain  # noqa: E402
from harness.report import equal  # noqa: E402

FOLDER = HERE.parents[1] / "docs" / "examples" / "recordings"
GUIDE, QUOTE = FOLDER.parents[1] / "recordings.md", "```text\n$ "
# The name of each recording, and of the dialect that was spoken.
TURNS = {"openai-chat": "chat", "openai-responses": "responses", "anthropic": "messages"}
QUESTION, MODEL = "What is six by seven? Say code", "toy"
ANEW = f"make it anew, if what models are told has changed: python3 tests/e2e/{Path(__file__).name} BELLJAR"
SDK_S_MAX = SHOW_S_MAX = 60


def run(report, running):
    tables = [
        {"name": name, "kind": "recorded", "recording": str(FOLDER / f"{name}.jsonl"), "models": [name], "model": MODEL} for name in TURNS
    ]
    with server.Server(running.belljar, upstreams=tables) as replayer:
        for name in TURNS:
            report.check(f"{name}: the recording says what was said", lambda name=name: told(replayer.base_url, name))
            report.check(f"{name}: it is shown as its page has it", lambda name=name: equal(shown(running.belljar, name), page(name).read_text(), ANEW))
        report.check("the page that quotes one quotes it", lambda: equal(quoted(GUIDE.read_text()), page("openai-chat").read_text().split("\n\n$ ")[-1], ANEW))
        report.check("no thread panicked", replayer.no_panic)


def told(base_url, model):
    """A turn, as the toy model has it."""
    message = turn(base_url, model)
    content = message["content"]
    blocks = ["text", "server_tool_use", "bash_code_execution_tool_result", "text"]
    equal(([block["type"] for block in content], message["stop_reason"]), (blocks, "end_turn"), "blocks")
    equal((content[0]["text"].strip(), content[3]["text"]), ("I count.", "The sum is there."), "texts")
    result = content[2]["content"]
    equal((result["stdout"], result["return_code"], len(result["content"])), ("42\n", 0, 1), "what the code came to")


def turn(base_url, model):
    python = toolchain.python_with(HERE / "locks" / "anthropic-2.11.0.txt")
    ended = subprocess.run(
        [str(python), str(HERE / "turn_sdk.py"), base_url, model, QUESTION], capture_output=True, text=True, timeout=SDK_S_MAX,
    )
    equal(ended.returncode, 0, f"{ended.stdout}{ended.stderr}; {ANEW}")
    return json.loads(ended.stdout)


def quoted(guide):
    return guide.split(QUOTE)[1].split("```")[0]


def page(name):
    return FOLDER / f"{name}.txt"


def shown(belljar, name):
    """The list, then each exchange, as someone in that folder would ask for them."""
    pieces = []
    for more in ([], ["1"], ["2"]):
        command = ["belljar", "recording", "show", f"{name}.jsonl", *more]
        ended = subprocess.run([str(belljar), *command[1:]], cwd=FOLDER, capture_output=True, text=True, timeout=SHOW_S_MAX)
        equal((ended.returncode, ended.stderr), (0, ""), " ".join(command))
        pieces.append(f"$ {' '.join(command)}\n{ended.stdout}")
    return "\n".join(pieces)


def make(belljar):
    """Records a turn of each dialect, and shows it."""
    llama = llama_suite.Llama()
    try:
        for name in TURNS:
            (FOLDER / f"{name}.jsonl").unlink(missing_ok=True)
        tables = []
        for name, dialect in TURNS.items():
            [table, _] = [table for table in llama_suite.tables(llama.url) if table["name"].startswith(dialect)]
            # As it is by default: whoever replays it says nothing of that.
            table = {key: value for key, value in table.items() if key != "tool_texts"}
            tables.append({**table, "name": name, "models": [name], "record": str(FOLDER / f"{name}.jsonl")})
        with server.Server(belljar, upstreams=tables, environment={llama_suite.KEY_VARIABLE: llama_suite.KEY}) as recorder:
            for name in TURNS:
                told(recorder.base_url, name)
    finally:
        llama.end()
    for name in TURNS:
        (FOLDER / f"{name}.jsonl").chmod(0o644)
        page(name).write_text(shown(belljar, name))
        print(page(name).relative_to(HERE.parents[1]))
    guide = GUIDE.read_text()
    GUIDE.write_text(guide.replace(quoted(guide), page("openai-chat").read_text().split("\n\n$ ")[-1]))


if __name__ == "__main__":
    make(Path(sys.argv[1]).resolve())
