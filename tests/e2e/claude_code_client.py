"""Claude Code, headless, against a running server: claude_code_client.py BASE_URL (with NODE_MODULES in the environment).

It finds the server by `ANTHROPIC_BASE_URL`, always streams, and runs its own tools on this machine. It cannot declare
code execution; `CLAUDE_CODE_EXTRA_BODY`, what it adds to every request, can: `{"code_execution": true}`, and the
container beside it. It has no Files API: a file goes into the container by the server's own endpoint.
"""

import json
import os
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

from harness import http_client
from harness.report import Report, equal, matches

PACKAGE = Path(os.environ["NODE_MODULES"]) / "@anthropic-ai" / "claude-code"
CSV = b"x,y\n1,2\n3,4\n"
TURN_S_MAX = 60


class Home:
    """A home and a working directory of its own, so that nothing of the user's is read or kept."""

    def __init__(self, base_url, place):
        self.base_url = base_url
        self.work = Path(place) / "work"
        self.work.mkdir()
        (self.work / "numbers.csv").write_bytes(CSV)
        self.environment = {
            "PATH": os.environ["PATH"], "HOME": place, "ANTHROPIC_BASE_URL": base_url, "ANTHROPIC_API_KEY": "sk-test-local",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "CLAUDE_CODE_MAX_RETRIES": "0", "TMPDIR": place,
        }

    def ask(self, script, *arguments, body=None):
        """Every line of one turn's output, as JSON; the last is its result."""
        more = {"ANTHROPIC_CUSTOM_HEADERS": f"belljar-script: {script}"}
        if body:
            more["CLAUDE_CODE_EXTRA_BODY"] = json.dumps(body)
        command = [
            "node", PACKAGE / "cli-wrapper.cjs", "-p", "Go on.", "--output-format", "stream-json", "--verbose",
            "--allowedTools", "Bash,Read", *arguments,
        ]
        ended = subprocess.run(
            command, cwd=self.work, env={**self.environment, **more}, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=TURN_S_MAX,
        )
        lines = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
        if not lines or lines[-1]["type"] != "result":
            raise AssertionError(f"it ended with {ended.returncode} and no result: {ended.stderr or ended.stdout}")
        return lines

    def container(self):
        return http_client.post_json(self.base_url, "/belljar/v1/containers", {}).json()["id"]


def blocks(lines, kind):
    said = [block for line in lines if line["type"] == "assistant" for block in line["message"]["content"]]
    return [block for block in said if block["type"] == kind]


def result(lines):
    return lines[-1]["is_error"], lines[-1]["result"]


def answers(home):
    lines = home.ask("plain")
    equal(result(lines), (False, "Nothing to run here."))
    equal((lines[-1]["usage"]["input_tokens"], lines[-1]["usage"]["output_tokens"]), (11, 5), "usage")


def runs_its_own_tools(home):
    lines = home.ask("claude_code")
    equal(result(lines), (False, "It is in sum.txt."))
    equal([block["name"] for block in blocks(lines, "tool_use")], ["Read", "Bash"])
    equal((home.work / "sum.txt").read_text(), "6\n")


def code_runs_in_the_sandbox_beside_its_own_tools(home):
    """A file in, a file out, and a command on either side."""
    container = home.container()
    where = f"/belljar/v1/containers/{container}/files/tmp/numbers.csv"
    equal(http_client.call(home.base_url, "PUT", where, http_client.api_headers(), CSV).status < 300, True, "the file went in")
    lines = home.ask("claude_code_beside", body={"code_execution": True, "container": container})
    equal(result(lines), (False, "Ran in both."))
    outcome = blocks(lines, "bash_code_execution_tool_result")[0]["content"]
    equal((outcome["stdout"], outcome["return_code"]), (CSV.decode(), 0))
    out = f"/v1/files/{outcome['content'][0]['file_id']}/content"
    equal(http_client.call(home.base_url, "GET", out, http_client.api_headers()).body, b"6\n")
    equal((home.work / "home.txt").read_text(), "at home\n")


def session_goes_on_in_its_container(home):
    body = {"code_execution": True, "container": home.container()}
    session = str(uuid.uuid4())
    equal(result(home.ask("remember", "--session-id", session, body=body)), (False, "Stored."))
    lines = home.ask("recall", "--resume", session, body=body)
    outcome = blocks(lines, "bash_code_execution_tool_result")[0]["content"]
    equal(outcome["stdout"], "forty-two\nunset\n")


def errors_are_shown(home):
    """The server's own words, but for a 404: Claude Code takes every one for a model that does not exist."""
    for script, body, words in (
        ("fault_before", None, "Overloaded"),
        ("bash", {"code_execution": "yes"}, "code_execution: Input should be a valid boolean"),
    ):
        failed, text = result(home.ask(script, body=body))
        equal(failed, True, text)
        matches(text, f".*{words}.*")


CASES = [
    answers, runs_its_own_tools, code_runs_in_the_sandbox_beside_its_own_tools, session_goes_on_in_its_container,
    errors_are_shown,
]


def in_home(case, base_url):
    with tempfile.TemporaryDirectory(prefix="belljar-claude-code-", ignore_cleanup_errors=True) as place:
        case(Home(base_url, place))


def main():
    version = json.loads((PACKAGE / "package.json").read_text())["version"]
    report = Report(f"claude-code {version}")
    for case in CASES:
        report.check(case.__name__, lambda case=case: in_home(case, sys.argv[1]))
    sys.exit(report.finish())


if __name__ == "__main__":
    main()
