"""`pydantic-ai-slim[anthropic]`, as its users write it, against a running server: pydantic_ai_client.py BASE_URL.

Its `ToolCallPart` keeps no `caller` (`_process_response` in its models/anthropic), so it sends the calls of code back
without: the server knows them by their ids. Its tools have no `allowed_callers` either (`_map_tool_definition`); for
those `extra_body` replaces the tools of the request. The container it takes from the history. Uploads go through the
provider's own Anthropic client: it has no Files API of its own.
"""

import asyncio
import io
import sys
from importlib.metadata import version

from harness.report import Report, equal, matches
from pydantic_ai import Agent, UploadedFile
from pydantic_ai.capabilities import NativeTool
from pydantic_ai.messages import ModelResponse, NativeToolReturnPart
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.native_tools import CodeExecutionTool
from pydantic_ai.providers.anthropic import AnthropicProvider

CODE = {"type": "code_execution_20260521", "name": "code_execution"}
LOOKUP = {
    "name": "lookup", "description": "Looks a key up.",
    "input_schema": {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]},
    "allowed_callers": ["code_execution_20260120"],
}
CSV = b"x,y\n1,2\n3,4\n"


class Chat:
    """One provider and the agents that a case makes of it."""

    def __init__(self, base_url):
        self.provider = AnthropicProvider(api_key="sk-test-local", base_url=base_url)
        self.client = self.provider.client

    def agent(self, script, tools=(), files=None, **settings):
        settings = {"max_tokens": 1024, "extra_headers": {"belljar-script": script}, **settings}
        return Agent(
            AnthropicModel("claude-opus-5-5", provider=self.provider), model_settings=settings, tools=tools,
            capabilities=[NativeTool(CodeExecutionTool(files=files))],
        )


async def in_chat(case, base_url):
    chat = Chat(base_url)
    try:
        await case(chat)
    finally:
        await chat.client.close()


def replies(result):
    return [message for message in result.all_messages() if isinstance(message, ModelResponse)]


def code_result(result):
    """What the code of the last reply printed, and so on."""
    return [part.content for part in replies(result)[-1].parts if isinstance(part, NativeToolReturnPart)][0]


def container(result):
    return replies(result)[-1].provider_details["container_id"]


async def runs_bash(chat):
    result = await chat.agent("bash").run("Go on.")
    equal((code_result(result)["stdout"], code_result(result)["return_code"]), ("a\nb\n", 0))
    equal((result.usage.input_tokens, result.usage.output_tokens), (250, 28), "usage")
    matches(container(result), r"container_01\w{22}")


async def file_in_and_file_out(chat):
    made = await chat.client.files.upload(file=("numbers.csv", io.BytesIO(CSV), "text/csv"))
    files = [UploadedFile(file_id=made.id, provider_name="anthropic")]
    equal(code_result(await chat.agent("read_upload", files=files).run("Read it."))["stdout"], CSV.decode())
    produced = code_result(await chat.agent("generate").run("Go on."))["content"]
    equal(len(produced), 1, "files produced")
    content = await chat.client.files.download(produced[0]["file_id"])
    equal(await content.read(), b"x,y\n1,2\n")


async def container_is_reused_over_turns(chat):
    first = await chat.agent("remember").run("Keep it.")
    again = await chat.agent("recall").run("What was it?", message_history=first.all_messages())
    equal((code_result(again)["stdout"], container(again)), ("forty-two\nunset\n", container(first)))
    named = await chat.agent("recall", anthropic_container=container(first)).run("What was it?")
    equal(code_result(named)["stdout"], "forty-two\nunset\n", "named in the settings")
    fresh = await chat.agent("recall", anthropic_container=False).run("What was it?", message_history=first.all_messages())
    equal(code_result(fresh)["stdout"], "unset\n", "a fresh container")


async def calls_tools(chat, script, printed, calls, requests):
    """The whole loop: every call is executed once, and the code sees each answer."""
    asked = []

    async def lookup(key: str) -> str:
        """Looks a key up."""
        asked.append(key)
        return key

    agent = chat.agent(script, [lookup], extra_body={"tools": [CODE, LOOKUP]})
    result = await agent.run("Go on.")
    equal((code_result(result)["stdout"], code_result(result)["return_code"]), (printed, 0))
    equal(sorted(asked, key=int), calls, "calls executed")
    equal(len(replies(result)), requests, "requests")
    equal({part.provider_details["container_id"] for part in replies(result)}, {container(result)}, "containers")
    # What its history has become is a conversation that can be gone on with.
    again = await chat.agent("remember").run("And now?", message_history=result.all_messages())
    equal((again.output, container(again)), ("Stored.", container(result)))


async def one_call_after_another(chat):
    await calls_tools(chat, "code_loop", "190\n", [str(number) for number in range(20)], 21)


async def eight_calls_at_once(chat):
    keys = [str(number) for number in range(8)]
    await calls_tools(chat, "code_gather", ",".join(keys) + "\n", keys, 2)


CASES = [
    runs_bash, file_in_and_file_out, container_is_reused_over_turns, one_call_after_another, eight_calls_at_once,
]


def main():
    base_url = sys.argv[1]
    report = Report(f"pydantic-ai-slim {version('pydantic-ai-slim')}")
    for case in CASES:
        report.check(case.__name__, lambda case=case: asyncio.run(in_chat(case, base_url)))
    sys.exit(report.finish())


if __name__ == "__main__":
    main()
