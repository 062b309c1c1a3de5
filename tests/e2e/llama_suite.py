"""The server in front of llama.cpp's own, which has a toy model and speaks all three dialects: chat completions, responses, messages.

What the model says is `llama/says.json`, made into weights by `llama/model.py` and chosen by the last word of the question
(`llama/template.jinja`). Tokens, templates, grammars, parsing of calls, slots and errors are llama.cpp's.
`llama_sdk.py` asks by the official SDK.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import report as reports
from harness import server, toolchain

HERE = Path(__file__).resolve().parent
KEY, KEY_VARIABLE, WRONG_VARIABLE = "sk-llama-kept-secret", "BELLJAR_TEST_LLAMA_KEY", "BELLJAR_TEST_LLAMA_WRONG_KEY"
CONTEXT_TOKENS = 32768
START_S_MAX = 60
SDK_S_MAX = 300
# Each by the name of the model that it serves.
DIALECTS = {
    "chat": {"kind": "openai", "path": "/v1", "thinking_key": "reasoning_content"},
    "responses": {"kind": "openai", "path": "/v1", "api": "responses"},
    "messages": {"kind": "anthropic", "path": "", "like": "nobody", "tool_texts": "plain"},
}


def run(report, running):
    try:
        llama = Llama()
    except RuntimeError as why:
        return report.skip("all of it", f"llama.cpp's server cannot be had: {why}")
    try:
        environment = {KEY_VARIABLE: KEY, WRONG_VARIABLE: "sk-wrong"}
        with server.Server(running.belljar, upstreams=list(tables(llama.url)), environment=environment) as between:
            ask(report, between, llama)
            report.check("no thread panicked", between.no_panic)
    finally:
        llama.end()


def tables(url, **more):
    """An upstream for each dialect, and one that has a wrong key."""
    for name, table in DIALECTS.items():
        table = {**table, "base_url": url + table["path"], **more}
        del table["path"]
        yield {"name": name, "models": [name], "model": "toy", "api_key_env": KEY_VARIABLE, **table}
        yield {"name": f"{name}-wrong", "models": [f"{name}-wrong"], "model": "toy", **table, "api_key_env": WRONG_VARIABLE}


def ask(report, between, llama):
    """The SDK's program; what it counted is counted here."""
    python = toolchain.python_with(HERE / "locks" / "anthropic-2.11.0.txt")
    command = [str(python), str(HERE / "llama_sdk.py"), between.base_url, llama.url, KEY, *DIALECTS]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    try:
        ended = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SDK_S_MAX,
        )
    except subprocess.TimeoutExpired as why:
        return report.fail("the SDK's program", why)
    counts = reports.read_totals(ended.stdout)
    if counts is None:
        return report.fail("the SDK's program", f"it ended with {ended.returncode} before it had counted its checks: {ended.stdout}")
    print("\n".join(ended.stdout.strip().splitlines()[:-1]), flush=True)
    report.add("llama, by the SDK", *counts)


class Llama:
    """A running llama.cpp server with the toy model."""

    def __init__(self):
        python = toolchain.python_with(HERE / "locks" / "llama-cpp.txt")
        self.folder = tempfile.TemporaryDirectory(prefix="belljar-test-llama-")
        model, log = Path(self.folder.name) / "toy.gguf", Path(self.folder.name) / "log"
        subprocess.run([sys.executable, str(HERE / "llama" / "model.py"), str(model)], check=True)
        with open(log, "w") as out:
            self.process = subprocess.Popen(
                [str(python), str(HERE / "llama_server.py"), str(model), KEY, str(CONTEXT_TOKENS)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=out, text=True,
            )
        self.url = self.process.stdout.readline().strip()
        if not self.url.startswith("http://"):
            self.end()
            raise AssertionError(f"llama.cpp's server did not start: {log.read_text()[-2000:]}")

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            pipe.close()
