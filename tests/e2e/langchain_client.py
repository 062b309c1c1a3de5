"""`langchain-anthropic`, as its users write it, against a running server: langchain_client.py BASE_URL.

Tools get `allowed_callers` from a tool's `extras`, the container from `reuse_last_container`. Files go through the
Anthropic SDK that it brings: it has no Files API of its own.
"""

import io
import sys
from importlib.metadata import version

import anthropic
from harness.report import Report, equal, matches
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool

BASH = {"type": "code_execution_20250825", "name": "code_execution"}
CODE = {"type": "code_execution_20260521", "name": "code_execution"}
CSV = b"x,y\n1,2\n3,4\n"
TURNS_MAX = 30


class Lookup:
    """The program's own tool: counts what it was asked. `pad` makes each answer long, and no other number."""

    def __init__(self, pad=0):
        asked = self.asked = []

        @tool(extras={"allowed_callers": ["code_execution_20260120"]})
        def lookup(key: str) -> str:
            """Looks a key up."""
            asked.append(key)
            return key + " " * pad

        self.tool = lookup


def chat(base_url, script, **more):
    return ChatAnthropic(
        model="claude-opus-5-5", api_key="sk-test-local", base_url=base_url, max_retries=0, max_tokens=1024,
        default_headers={"belljar-script": script}, **more,
    )


def results(message, kind):
    return [block["content"] for block in message.content if block["type"] == kind]


def bash(message):
    return results(message, "bash_code_execution_tool_result")[0]


def streamed(model, messages):
    """One reply, from the chunks of its stream."""
    whole = None
    for chunk in model.stream(messages):
        whole = chunk if whole is None else whole + chunk
    return whole


def loop(base_url, script, lookup, stream=False):
    """The loop of LangChain's manual: asks, runs what is asked for, and asks again. Returns every reply."""
    model = chat(base_url, script, reuse_last_container=True).bind_tools([CODE, lookup.tool])
    messages, replies = [HumanMessage("Go on.")], []
    while len(replies) < TURNS_MAX:
        reply = streamed(model, messages) if stream else model.invoke(messages)
        replies.append(reply)
        if not reply.tool_calls:
            return replies
        messages += [reply, *(lookup.tool.invoke(call) for call in reply.tool_calls)]
    raise AssertionError(f"it still asks after {TURNS_MAX} turns")


def code_result(reply):
    return results(reply, "code_execution_tool_result")[0]


def stops(replies):
    return [reply.response_metadata["stop_reason"] for reply in replies]


def runs_bash(base_url):
    reply = chat(base_url, "bash").bind_tools([BASH]).invoke("Go on.")
    equal((bash(reply)["stdout"], bash(reply)["return_code"]), ("a\nb\n", 0))
    equal((reply.usage_metadata["input_tokens"], reply.usage_metadata["output_tokens"]), (250, 28), "usage")
    matches(reply.response_metadata["container"]["id"], r"container_01\w{22}")


def file_in_and_file_out(base_url):
    with anthropic.Anthropic(api_key="sk-test-local", base_url=base_url, max_retries=0) as client:
        made = client.files.upload(file=("numbers.csv", io.BytesIO(CSV), "text/csv"))
        asked = HumanMessage([{"type": "container_upload", "file_id": made.id}, {"type": "text", "text": "Read it."}])
        equal(bash(chat(base_url, "read_upload").bind_tools([BASH]).invoke([asked]))["stdout"], CSV.decode())
        produced = bash(chat(base_url, "generate").bind_tools([BASH]).invoke("Go on."))["content"]
        equal(len(produced), 1, "files produced")
        equal(client.files.download(produced[0]["file_id"]).read(), b"x,y\n1,2\n")


def container_is_reused_over_turns(base_url):
    messages = [HumanMessage("Keep it.")]
    messages.append(chat(base_url, "remember").bind_tools([BASH]).invoke(messages))
    messages.append(HumanMessage("What was it?"))
    recall = chat(base_url, "recall", reuse_last_container=True).bind_tools([BASH])
    reply = recall.invoke(messages)
    equal(bash(reply)["stdout"], "forty-two\nunset\n")
    identifier = messages[1].response_metadata["container"]["id"]
    equal(reply.response_metadata["container"]["id"], identifier)
    named = chat(base_url, "recall").bind_tools([BASH], container=identifier).invoke("What was it?")
    equal(bash(named)["stdout"], "forty-two\nunset\n", "bound by name")
    fresh = chat(base_url, "recall").bind_tools([BASH]).invoke("What was it?")
    equal(bash(fresh)["stdout"], "unset\n", "a fresh container")


def twenty_calls_from_code(base_url, stream=False):
    lookup = Lookup()
    replies = loop(base_url, "code_loop", lookup, stream)
    equal(lookup.asked, [str(number) for number in range(20)])
    equal(stops(replies), ["tool_use"] * 20 + ["end_turn"])
    equal((code_result(replies[-1])["stdout"], code_result(replies[-1])["return_code"]), ("190\n", 0))
    equal(replies[-1].content[-1]["text"], "Done.")
    if not stream:
        equal([reply.usage_metadata["output_tokens"] for reply in replies[1:20]], [0] * 19, "tokens of mere pauses")


def model_sees_no_answer(base_url):
    """The scripted model counts the bytes that it is sent; answers of 20 times 4 kB must not change the count."""
    short, long = (loop(base_url, "code_loop", Lookup(pad))[-1] for pad in (0, 4096))
    equal(code_result(long)["stdout"], "190\n")
    equal(long.usage_metadata["input_tokens"], short.usage_metadata["input_tokens"], "input tokens")


def eight_calls_at_once(base_url, stream=False):
    lookup = Lookup()
    replies = loop(base_url, "code_gather", lookup, stream)
    equal((len(replies), sorted(lookup.asked)), (2, [str(number) for number in range(8)]))
    calls = [block for block in replies[0].content if block["type"] == "tool_use"]
    code = [block["id"] for block in replies[0].content if block["type"] == "server_tool_use"]
    equal([[block["caller"]["tool_id"]] for block in calls], [code] * 8, "who called")
    equal(code_result(replies[1])["stdout"], "0,1,2,3,4,5,6,7\n")


def twenty_calls_in_streams(base_url):
    twenty_calls_from_code(base_url, stream=True)


def eight_calls_in_streams(base_url):
    eight_calls_at_once(base_url, stream=True)


CASES = [
    runs_bash, file_in_and_file_out, container_is_reused_over_turns, twenty_calls_from_code, model_sees_no_answer,
    eight_calls_at_once, twenty_calls_in_streams, eight_calls_in_streams,
]


def main():
    base_url = sys.argv[1]
    report = Report(f"langchain-anthropic {version('langchain-anthropic')}")
    for case in CASES:
        report.check(case.__name__, lambda case=case: case(base_url))
    sys.exit(report.finish())


if __name__ == "__main__":
    main()
