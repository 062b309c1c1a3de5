"""`litellm` as a library, as its users write it, against a running server: litellm_client.py BASE_URL.

It speaks OpenAI's shapes to the program and Anthropic's to the server. Results of code are in
`provider_specific_fields` of a message; files go through its own Files API. It sends the calls of code back without their
`caller`; their ids suffice.
"""

import asyncio
import json
import os
import sys
from importlib.metadata import version

from harness.report import Report, equal, matches

os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "true", "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "true"}  # no network
import litellm  # noqa: E402

BASH = {"type": "code_execution_20250825", "name": "code_execution"}
CODE = {"type": "code_execution_20260120", "name": "code_execution"}
KEY = {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]}
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
LOOKUP = {
    "type": "function", "allowed_callers": ["code_execution_20260120"],
    "function": {"name": "lookup", "description": "Looks a key up.", "parameters": KEY},
}
WEATHER = {"type": "function", "function": {"name": "get_weather", "description": "Weather.", "parameters": CITY}}
CSV = b"x,y\n1,2\n3,4\n"
GO_ON = [{"role": "user", "content": "Go on."}]


class Chat:
    """Where the server is, and the calls that a program makes of it."""

    def __init__(self, base_url):
        self.server = {"api_base": base_url, "api_key": "sk-test-local"}

    def request(self, script, messages=None, **more):
        defaults = {
            "model": "anthropic/claude-opus-4-5", "max_tokens": 1024, "tools": [BASH], "max_retries": 0,
            "messages": messages or GO_ON, "extra_headers": {"belljar-script": script},
        }
        return {**self.server, **defaults, **more}

    def ask(self, script, messages=None, **more):
        return litellm.completion(**self.request(script, messages, **more)).choices[0].message

    def files(self):
        return {**self.server, "custom_llm_provider": "anthropic"}


def bash(message):
    return message.provider_specific_fields["tool_results"][0]["content"]


def container(message):
    return message.provider_specific_fields["container"]["id"]


def runs_bash(chat):
    reply = litellm.completion(**chat.request("bash"))
    message = reply.choices[0].message
    equal((message.content, reply.choices[0].finish_reason), ("Running it.It printed a and b.", "stop"))
    equal((bash(message)["stdout"], bash(message)["return_code"]), ("a\nb\n", 0))
    equal((reply.usage.prompt_tokens, reply.usage.completion_tokens), (250, 28), "usage")
    matches(container(message), r"container_01\w{22}")


def runs_bash_async(chat):
    reply = asyncio.run(litellm.acompletion(**chat.request("bash")))
    equal(bash(reply.choices[0].message)["stdout"], "a\nb\n")


def runs_bash_in_a_stream(chat):
    deltas = [chunk.choices[0].delta for chunk in litellm.completion(**chat.request("bash", stream=True))]
    equal("".join(delta.content or "" for delta in deltas), "Running it.It printed a and b.")
    fields = {}
    for delta in deltas:
        fields.update(delta.get("provider_specific_fields") or {})
    equal(fields["tool_results"][0]["content"]["stdout"], "a\nb\n")
    matches(fields["container"]["id"], r"container_01\w{22}")


def file_in_and_file_out(chat):
    made = litellm.create_file(file=("numbers.csv", CSV, "text/csv"), purpose="assistants", **chat.files())
    asked = [{"type": "file", "file": {"file_id": made.id, "format": "text/csv"}}, {"type": "text", "text": "Read it."}]
    equal(bash(chat.ask("read_upload", [{"role": "user", "content": asked}]))["stdout"], CSV.decode())
    produced = bash(chat.ask("generate"))["content"]
    equal(len(produced), 1, "files produced")
    equal(litellm.file_content(file_id=produced[0]["file_id"], **chat.files()).content, b"x,y\n1,2\n")


def container_is_reused_over_turns(chat):
    first = chat.ask("remember")
    messages = [*GO_ON, first, {"role": "user", "content": "What was it?"}]
    again = chat.ask("recall", messages, container=container(first))
    equal((bash(again)["stdout"], container(again)), ("forty-two\nunset\n", container(first)))
    equal(bash(chat.ask("recall"))["stdout"], "unset\n", "a fresh container")


def own_tool_after_a_server_tool(chat):
    first = chat.ask("server_then_client", tools=[BASH, WEATHER])
    equal([call.function.name for call in first.tool_calls], ["get_weather"])
    answer = {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "4 degrees"}
    second = chat.ask("server_then_client", [*GO_ON, first, answer], tools=[BASH, WEATHER])
    equal(second.content, "Both done.")


def calls_tools(chat, script, told, keys, replies):
    """The whole loop: every call is executed once, and the code sees each answer."""
    messages, asked, place, count = [*GO_ON], [], None, 0
    while True:
        reply = chat.ask(script, messages, tools=[CODE, LOOKUP], **({"container": place} if place else {}))
        count += 1
        if not reply.tool_calls:
            break
        place = container(reply)
        answers = []
        for call in reply.tool_calls:
            key = json.loads(call.function.arguments)["key"]
            asked.append(key)
            answers.append({"role": "tool", "tool_call_id": call.id, "content": key})
        messages += [reply, *answers]
    equal((sorted(asked, key=int), count), (keys, replies), "calls and replies")
    equal(bash(reply)["stdout"], told)


def twenty_calls_one_after_another(chat):
    calls_tools(chat, "code_loop", "190\n", [str(number) for number in range(20)], 21)


def eight_calls_at_once(chat):
    calls_tools(chat, "code_gather", ",".join(str(number) for number in range(8)) + "\n", [str(number) for number in range(8)], 2)


def errors_have_their_classes(chat):
    unknown = "container_011CVexampLe1111111111111"
    for kind, words, more in (
        (litellm.NotFoundError, f"Container not found: {unknown}", {"container": unknown}),
        (litellm.InternalServerError, "overloaded_error", {"script": "fault_before"}),
    ):
        try:
            chat.ask(**{"script": "bash", **more})
        except kind as error:
            equal(words in str(error), True, str(error))
        else:
            raise AssertionError(f"no {kind.__name__} was raised")


CASES = [
    runs_bash, runs_bash_async, runs_bash_in_a_stream, file_in_and_file_out, container_is_reused_over_turns,
    own_tool_after_a_server_tool, twenty_calls_one_after_another, eight_calls_at_once,
    errors_have_their_classes,
]


def main():
    litellm.suppress_debug_info = True
    chat = Chat(sys.argv[1])
    report = Report(f"litellm {version('litellm')}")
    for case in CASES:
        report.check(case.__name__, lambda case=case: case(chat))
    sys.exit(report.finish())


if __name__ == "__main__":
    main()
