"""`llm` with `llm-anthropic`, its Python API and its command, against a running server: llm_client.py BASE_URL.

It finds the server by `ANTHROPIC_BASE_URL` and always streams. It can declare code execution, and name a container; it
has no Files API, no `container_upload`, and no `allowed_callers`. So a file goes into the container through the
server's own endpoint, and what code produced is fetched by the `anthropic` that it brings. Its tools it runs itself.
"""

import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import anthropic
from harness import http_client
from harness.report import Report, equal, matches

BASE_URL = sys.argv[1]
USER = tempfile.TemporaryDirectory(prefix="belljar-llm-")
os.environ |= {"ANTHROPIC_BASE_URL": BASE_URL, "LLM_USER_PATH": USER.name, "ANTHROPIC_API_KEY": "sk-test-local"}
import llm  # noqa: E402
from llm_anthropic import CodeExecution  # noqa: E402

CSV = b"x,y\n1,2\n3,4\n"
MODEL = "claude-opus-4.5"


def script(name):
    """The script of the requests that follow: the SDK below it reads headers for all of them from the environment."""
    os.environ["ANTHROPIC_CUSTOM_HEADERS"] = f"belljar-script: {name}"


def ask(name, conversation=None, container=None, **more):
    script(name)
    response = (conversation or llm.get_model(MODEL)).prompt("Go on.", tools=[CodeExecution(container)], **more)
    response.text()
    return response


def bash(response):
    blocks = response.response_json["content"]
    return [block["content"] for block in blocks if block["type"] == "bash_code_execution_tool_result"][0]


def container(response):
    return response.response_json["container"]["id"]


def runs_bash():
    response = ask("bash")
    equal((response.text(), bash(response)["stdout"]), ("Running it.It printed a and b.", "a\nb\n"))
    equal((response.usage().input, response.usage().output), (250, 28), "usage")
    matches(container(response), r"container_01\w{22}")


def command_runs_bash():
    """Its command, as its manual shows it."""
    script("bash")
    command = [Path(sys.executable).with_name("llm"), "prompt", "-m", MODEL, "-T", "CodeExecution", "Go on."]
    ended = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    equal((ended.returncode, ended.stdout.strip()), (0, "Running it.It printed a and b."), ended.stderr)


def file_in_and_file_out():
    made = http_client.post_json(BASE_URL, "/belljar/v1/containers", {}).json()["id"]
    where = f"/belljar/v1/containers/{made}/files/tmp/state.txt"
    equal(http_client.call(BASE_URL, "PUT", where, http_client.api_headers(), CSV).status < 300, True, "the file went in")
    equal(bash(ask("recall", container=made))["stdout"], CSV.decode() + "unset\n")
    produced = bash(ask("generate"))["content"]
    equal(len(produced), 1, "files produced")
    with anthropic.Anthropic() as client:
        equal(client.beta.files.download(produced[0]["file_id"]).read(), b"x,y\n1,2\n")


def container_is_reused_over_turns():
    conversation = llm.get_model(MODEL).conversation()
    first = ask("remember", conversation)
    again = ask("recall", conversation, container(first))
    equal((bash(again)["stdout"], container(again)), ("forty-two\nunset\n", container(first)))
    equal(bash(ask("recall"))["stdout"], "unset\n", "a fresh container")


def own_tool_after_a_server_tool():
    asked = []

    def get_weather(city: str) -> str:
        """The weather in a city."""
        asked.append(city)
        return "4 degrees"

    script("server_then_client")
    chain = llm.get_model(MODEL).chain("Both.", tools=[CodeExecution(), get_weather])
    equal((chain.text().strip(), asked), ("Both done.", ["Oslo"]))


def errors_say_why():
    try:
        ask("bash", container="container_011CVexampLe1111111111111")
    except anthropic.NotFoundError as error:
        equal(error.body["error"]["message"], "Container not found: container_011CVexampLe1111111111111")
    else:
        raise AssertionError("no NotFoundError was raised")


CASES = [
    runs_bash, command_runs_bash, file_in_and_file_out, container_is_reused_over_turns, own_tool_after_a_server_tool,
    errors_say_why,
]


def main():
    report = Report(f"llm {version('llm')}")
    with USER:
        for case in CASES:
            report.check(case.__name__, case)
    sys.exit(report.finish())


if __name__ == "__main__":
    main()
