"""The official Python SDK against a running server: python_sdk.py BASE_URL sync|async.

Each case is written once. `sdk` hides only that one client returns values and the other awaitables, so that
both are driven through their own public methods. What a generation of the SDK lacks is said once, in the constants.
"""

import asyncio
import base64
import inspect
import io
import sys

import anthropic
from harness.report import Report, equal, matches

TOOL = {"type": "code_execution_20250825", "name": "code_execution"}
WEATHER = {
    "name": "get_weather", "description": "The weather in a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CODE = {"type": "code_execution_20260521", "name": "code_execution"}
LOOKUP = {
    "name": "lookup", "description": "Looks a key up.",
    "input_schema": {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]},
    "allowed_callers": ["code_execution_20260120"],
}
CSV = b"x,y\n1,2\n3,4\n"
# 0.84 has Files under `beta` only, its runner does not carry the container on, and its stream helper leaves results as dicts.
BEFORE_FILES = tuple(int(part) for part in anthropic.__version__.split(".")[:2]) < (0, 125)


class Sdk:
    """One client and the few places where sync and async differ in syntax."""

    def __init__(self, base_url, mode):
        self.asynchronous = mode == "async"
        kind = anthropic.AsyncAnthropic if self.asynchronous else anthropic.Anthropic
        self.client = kind(api_key="sk-test-local", base_url=base_url, max_retries=0)

    async def do(self, value):
        return await value if inspect.isawaitable(value) else value

    async def ask(self, script, messages=None, **more):
        return await self.do(self.client.messages.create(**request(script, messages, **more)))

    async def each(self, source, then=lambda item: item):
        source = await self.do(source)
        return [then(item) async for item in source] if self.asynchronous else [then(item) for item in source]

    def files(self):
        """The namespaces in which this generation has the Files API."""
        return [self.client.beta.files] if BEFORE_FILES else [self.client.files, self.client.beta.files]

    async def inside(self, manager, body):
        """`body(stream)` within the SDK's stream manager."""
        if self.asynchronous:
            async with manager as stream:
                return await body(stream)
        with manager as stream:
            return await body(stream)

    async def raises(self, kind, value):
        try:
            await self.do(value())
        except kind as error:
            return error
        raise AssertionError(f"no {kind.__name__} was raised")


def request(script, messages=None, **more):
    defaults = {
        "model": "claude-opus-5-5", "max_tokens": 1024, "tools": [TOOL],
        "messages": messages or [{"role": "user", "content": "Go on."}],
        "extra_headers": {"belljar-script": script},
    }
    return {**defaults, **more}


def kinds(message):
    return [block.type for block in message.content]


def results(message, kind="bash_code_execution_tool_result"):
    return [block.content for block in message.content if block.type == kind]


def stdout(content):
    return content["stdout"] if isinstance(content, dict) and BEFORE_FILES else content.stdout


async def in_client(case, base_url, mode):
    sdk = Sdk(base_url, mode)
    try:
        await case(sdk)
    finally:
        await sdk.do(sdk.client.close())


async def create_without_code(sdk):
    message = await sdk.ask("plain")
    equal(kinds(message), ["text"])
    equal(message.content[0].text, "Nothing to run here.")
    equal((message.stop_reason, message.role, message.type), ("end_turn", "assistant", "message"))
    equal((message.usage.input_tokens, message.usage.output_tokens), (11, 5))
    equal(getattr(message, "container", None), None, "container")
    matches(message.id, r"msg_01[1-9A-HJ-NP-Za-km-z]{22}")


async def create_with_bash(sdk):
    message = await sdk.ask("bash")
    equal(kinds(message), ["text", "server_tool_use", "bash_code_execution_tool_result", "text"])
    use, result = message.content[1], message.content[2]
    equal((use.name, use.input), ("bash_code_execution", {"command": "printf 'a\\nb\\n'"}))
    matches(use.id, r"srvtoolu_01[1-9A-HJ-NP-Za-km-z]{22}")
    equal(result.tool_use_id, use.id)
    content = result.content
    equal((content.type, content.stdout, content.stderr, content.return_code, content.content),
          ("bash_code_execution_result", "a\nb\n", "", 0, []))
    matches(message.container.id, r"container_01[1-9A-HJ-NP-Za-km-z]{22}")
    equal((message.usage.input_tokens, message.usage.output_tokens), (250, 28), "cumulative usage")
    equal(message.usage.server_tool_use.web_search_requests, 0)


async def nonzero_exit_is_a_result(sdk):
    content = results(await sdk.ask("exit_three"))[0]
    equal((content.stdout, content.stderr, content.return_code), ("out\n", "err\n", 3))


async def stream_helper(sdk):
    async def body(stream):
        events = await sdk.each(stream)
        return events, await sdk.do(stream.get_final_message())

    events, message = await sdk.inside(sdk.client.messages.stream(**request("bash")), body)
    equal(kinds(message), ["text", "server_tool_use", "bash_code_execution_tool_result", "text"])
    equal(stdout(results(message)[0]), "a\nb\n")
    equal(message.content[1].input, {"command": "printf 'a\\nb\\n'"})
    equal((message.usage.input_tokens, message.usage.output_tokens), (250, 28))
    equal("".join(event.text for event in events if event.type == "text"), "Running it.It printed a and b.")
    if anthropic.__version__.startswith("2."):
        matches(message.container.id, r"container_01\w{22}")


async def stream_text_only(sdk):
    async def body(stream):
        return "".join(await sdk.each(stream.text_stream))

    equal(await sdk.inside(sdk.client.messages.stream(**request("chunked")), body), "Grüße, 世界: running it.It printed a and b.")


async def stream_raw(sdk):
    events = await sdk.each(sdk.client.messages.create(**request("bash"), stream=True))
    seen = [event.type for event in events if event.type != "ping"]
    equal((seen[0], seen[-2:]), ("message_start", ["message_delta", "message_stop"]))
    starts = [event.content_block.type for event in events if event.type == "content_block_start"]
    equal(starts, ["text", "server_tool_use", "bash_code_execution_tool_result", "text"])
    indices = [event.index for event in events if event.type == "content_block_start"]
    equal(indices, [0, 1, 2, 3])
    matches(events[-2].delta.container.id, r"container_01\w{22}")


async def beta_create(sdk):
    more = request("bash", betas=["code-execution-2025-08-25"])
    message = await sdk.do(sdk.client.beta.messages.create(**more))
    equal(results(message)[0].stdout, "a\nb\n")
    equal(message.container.skills, None)


async def beta_tool_runner(sdk):
    asked = []
    if sdk.asynchronous:
        @anthropic.beta_async_tool
        async def get_weather(city: str) -> str:
            """The weather in a city.

            Args:
                city: Its name.
            """
            asked.append(city)
            return "4 degrees"
    else:
        @anthropic.beta_tool
        def get_weather(city: str) -> str:
            """The weather in a city.

            Args:
                city: Its name.
            """
            asked.append(city)
            return "4 degrees"
    more = request("server_then_client", tools=[get_weather, TOOL], max_iterations=4)
    messages = await sdk.each(sdk.client.beta.messages.tool_runner(**more))
    equal(asked, ["Oslo"])
    equal(kinds(messages[0]), ["server_tool_use", "bash_code_execution_tool_result", "tool_use"])
    equal((messages[0].stop_reason, messages[-1].stop_reason), ("tool_use", "end_turn"))
    equal(messages[-1].content[-1].text, "Both done.")


async def client_tool_by_hand(sdk):
    opening = [{"role": "user", "content": "Weather?"}]
    first = await sdk.ask("client_tool", opening, tools=[TOOL, WEATHER])
    equal((kinds(first), first.stop_reason), (["text", "tool_use"], "tool_use"))
    matches(first.content[1].id, r"toolu_01[1-9A-HJ-NP-Za-km-z]{22}")
    reply = [{"type": "tool_result", "tool_use_id": first.content[1].id, "content": "4 degrees"}]
    history = opening + [{"role": "assistant", "content": first.content}, {"role": "user", "content": reply}]
    second = await sdk.ask("client_tool", history, tools=[TOOL, WEATHER])
    equal((second.content[0].text, second.stop_reason), ("It is 4 degrees in Oslo.", "end_turn"))


async def server_call_beside_client_call(sdk):
    opening = [{"role": "user", "content": "Both."}]
    first = await sdk.ask("mixed", opening, tools=[TOOL, WEATHER])
    equal((kinds(first), first.stop_reason), (["server_tool_use", "tool_use"], "tool_use"))
    reply = [{"type": "tool_result", "tool_use_id": first.content[1].id, "content": "4 degrees"}]
    history = opening + [{"role": "assistant", "content": first.content}, {"role": "user", "content": reply}]
    second = await sdk.ask("mixed", history, tools=[TOOL, WEATHER])
    equal(kinds(second), ["bash_code_execution_tool_result", "text"])
    equal((second.content[0].tool_use_id, second.content[0].content.stdout), (first.content[0].id, "deferred\n"))


def lookup_tool(sdk, asked, answer):
    """A client tool for the SDK's runner that code may call."""
    description = "Looks a key up.\n\nArgs:\n    key: The key."
    decorate = anthropic.beta_async_tool if sdk.asynchronous else anthropic.beta_tool

    def lookup(key: str) -> str:
        asked.append(key)
        return answer(key)

    async def lookup_async(key: str) -> str:
        return lookup(key)

    function = lookup_async if sdk.asynchronous else lookup
    return decorate(function, name="lookup", description=description, allowed_callers=["code_execution_20260120"])


async def code_calls(sdk, script, answer, **more):
    """What the SDK's own runner makes of a script: its replies, and what was asked."""
    asked = []
    more = request(script, tools=[CODE, lookup_tool(sdk, asked, answer)], **more)
    runner = sdk.client.beta.messages.tool_runner(**more)

    def carry_container(message):
        if BEFORE_FILES and message.container:
            runner.set_messages_params(lambda params: {**params, "container": message.container.id})
        return message

    return await sdk.each(runner, carry_container), asked


def code_result(message):
    return results(message, "code_execution_tool_result")[0]


async def runner_answers_twenty_calls_from_code(sdk):
    messages, asked = await code_calls(sdk, "code_loop", lambda key: key)
    equal(asked, [str(number) for number in range(20)])
    equal([message.stop_reason for message in messages], ["tool_use"] * 20 + ["end_turn"])
    equal((code_result(messages[-1]).stdout, code_result(messages[-1]).return_code), ("190\n", 0))


async def runner_answers_eight_calls_at_once(sdk):
    messages, asked = await code_calls(sdk, "code_gather", lambda key: f"<{key}>")
    equal((len(messages), sorted(asked)), (2, [str(number) for number in range(8)]))
    callers = {block.caller.tool_id for block in messages[0].content if block.type == "tool_use"}
    equal(callers, {messages[0].content[0].id})
    equal(code_result(messages[1]).stdout, ",".join(f"<{number}>" for number in range(8)) + "\n")


async def runner_stops_with_the_code(sdk):
    messages, asked = await code_calls(sdk, "code_early_exit", lambda key: "healthy" if key == "3" else "down")
    equal((asked, code_result(messages[-1]).stdout), (["0", "1", "2", "3"], "first healthy: 3\n"))


async def runner_passes_failures_on(sdk):
    def fail(key):
        raise KeyError("no such key")

    messages, _asked = await code_calls(sdk, "code_catches", fail)
    matches(code_result(messages[-1]).stdout, r"caught \w+ .*no such key.*\n")


async def code_calls_in_streams(sdk):
    async def final(stream):
        await sdk.each(stream)
        return await sdk.do(stream.get_final_message())

    opening = [{"role": "user", "content": "Go on."}]
    start = request("code_gather", opening, tools=[CODE, LOOKUP])
    first = await sdk.inside(sdk.client.beta.messages.stream(**start), final)
    equal((kinds(first), first.stop_reason), (["server_tool_use"] + ["tool_use"] * 8, "tool_use"))
    answers = [
        {"type": "tool_result", "tool_use_id": block.id, "content": block.input["key"]}
        for block in first.content if block.type == "tool_use"
    ]
    history = opening + [{"role": "assistant", "content": first.content}, {"role": "user", "content": answers}]
    go_on = request("code_gather", history, tools=[CODE, LOOKUP], container=first.container.id)
    second = await sdk.inside(sdk.client.beta.messages.stream(**go_on), final)
    equal((kinds(second), code_result(second).stdout), (["code_execution_tool_result", "text"], "0,1,2,3,4,5,6,7\n"))
    again = await sdk.do(sdk.client.beta.messages.create(**go_on))
    equal((again.id, code_result(again).stdout), (second.id, code_result(second).stdout), "the same once more, plain")
    alone = {key: value for key, value in go_on.items() if key != "container"}
    error = await sdk.raises(anthropic.BadRequestError, lambda: sdk.client.beta.messages.create(**alone))
    equal(error.body["error"]["message"],
          "container_id is required when there are pending tool uses generated by code execution with tools.")


async def code_calls_the_servers_own_tool(sdk):
    name = "of-the-server.csv"
    await sdk.do(sdk.client.beta.files.upload(file=(name, b"x,y\n1,2\n", "text/csv")))
    opening = [{"role": "user", "content": "Go on."}]
    more = {"tools": [CODE, {"type": "belljar_files_20261129", "name": "belljar_files"}]}

    async def final(stream):
        await sdk.each(stream)
        return await sdk.do(stream.get_final_message())

    first = await sdk.inside(sdk.client.beta.messages.stream(**request("host_files_by_name", opening, **more)), final)
    pair = ["server_tool_use", "belljar_files_tool_result"]
    equal(kinds(first), ["server_tool_use", *pair * 3, "code_execution_tool_result", "text"])
    matches(code_result(first).stdout, rf"{name} 8\nx,y\n1,2\n\nbelljar_files: there is no file .*\n")
    history = [*opening, {"role": "assistant", "content": first.content}, {"role": "user", "content": "Again."}]
    again = await sdk.do(sdk.client.beta.messages.create(
        **request("host_files_by_name", history, container=first.container.id, **more)))
    equal((kinds(again), code_result(again).stdout), (kinds(first), code_result(first).stdout))


async def python_remembers_in_its_container(sdk):
    messages, _asked = await code_calls(sdk, "code_state_set", lambda key: "kept it")
    container = messages[-1].container.id
    later = await sdk.ask("code_state_get", tools=[CODE, LOOKUP], container=container)
    equal(code_result(later).stdout, "kept it\n")


async def pause_after_ten(sdk):
    opening = [{"role": "user", "content": "Count."}]
    first = await sdk.ask("eleven", opening)
    equal(first.stop_reason, "pause_turn")
    history = opening + [{"role": "assistant", "content": first.content}]
    second = await sdk.ask("eleven", history, container=first.container.id)
    equal((second.stop_reason, second.content[-1].text), ("end_turn", "All eleven ran."))
    printed = [content.stdout for content in results(first) + results(second)]
    equal(printed, [f"{number}\n" for number in range(1, 12)])


async def text_editor(sdk):
    message = await sdk.ask("edit")
    made, remade, replaced, viewed, missing = results(message, "text_editor_code_execution_tool_result")
    equal((made.is_file_update, remade.is_file_update), (False, True))
    equal((replaced.old_start, replaced.old_lines, replaced.new_start, replaced.new_lines), (1, 7, 1, 7))
    equal(replaced.lines, [" import os", " ", " def f():", "-    x = 1", "+    x = 2", "     return x", " ", " print(f())"])
    text = "import os\n\ndef f():\n    x = 2\n    return x\n\nprint(f())"
    equal((viewed.content, viewed.file_type, viewed.num_lines, viewed.start_line, viewed.total_lines), (text, "text", 7, 1, 7))
    equal((missing.type, missing.error_code), ("text_editor_code_execution_tool_result_error", "file_not_found"))
    equal(results(message)[0].stdout, "2\n")


async def calls_of_one_batch_run_in_order(sdk):
    message = await sdk.ask("batch_order")
    uses = [block.id for block in message.content if block.type == "server_tool_use"]
    answered = [block.tool_use_id for block in message.content if block.type.endswith("_tool_result")]
    equal(answered, uses)
    equal(results(message)[0].stdout, "one")


async def container_reused_by_string_and_object(sdk):
    first = await sdk.ask("remember")
    for form in (first.container.id, {"id": first.container.id}):
        again = await sdk.ask("recall", container=form)
        equal(results(again)[0].stdout, "forty-two\nunset\n", f"with {type(form).__name__}")
        equal(again.container.id, first.container.id)
    fresh = await sdk.ask("recall")
    equal(results(fresh)[0].return_code, 0)
    equal(results(fresh)[0].stdout, "unset\n", "a fresh container")


async def generated_file_is_downloaded(sdk):
    message = await sdk.ask("generate")
    produced = results(message)[0].content
    equal([entry.type for entry in produced], ["bash_code_execution_output"])
    for files in sdk.files():
        meta = await sdk.do(files.retrieve_metadata(produced[0].file_id))
        equal((meta.filename, meta.mime_type, meta.size_bytes, meta.downloadable), ("table.csv", "text/csv", 8, True))
        content = await sdk.do(files.download(produced[0].file_id))
        equal(await sdk.do(content.read()), b"x,y\n1,2\n")


async def files_life(sdk):
    for files in sdk.files():
        made = await sdk.do(files.upload(file=("numbers.csv", io.BytesIO(CSV), "text/csv")))
        equal((made.type, made.filename, made.mime_type, made.size_bytes), ("file", "numbers.csv", "text/csv", len(CSV)))
        matches(made.id, r"file_01[1-9A-HJ-NP-Za-km-z]{22}")
        listed = await sdk.each(files.list(limit=2))
        equal([entry.id for entry in listed].count(made.id), 1, "the listing, through all its pages")
        error = await sdk.raises(anthropic.BadRequestError, lambda: files.download(made.id))
        equal(error.body["error"]["details"]["error_code"], "file_not_downloadable")
        gone = await sdk.do(files.delete(made.id))
        equal((gone.id, gone.type), (made.id, "file_deleted"))
        error = await sdk.raises(anthropic.NotFoundError, lambda: files.retrieve_metadata(made.id))
        equal(error.body["error"]["message"], f"File `{made.id}` not found.")


async def upload_reaches_the_code(sdk):
    made = await sdk.do(sdk.files()[0].upload(file=("numbers.csv", io.BytesIO(CSV), "text/csv")))
    content = [{"type": "container_upload", "file_id": made.id}, {"type": "text", "text": "Sum x."}]
    message = await sdk.ask("read_upload", [{"role": "user", "content": content}])
    equal((results(message)[0].stdout, results(message)[0].stderr), (CSV.decode(), ""))
    await sdk.do(sdk.files()[0].delete(made.id))


async def files_are_shown_in_blocks(sdk):
    """An upload, named where its content could stand: in a message, in a count, and never in the wrong kind of block."""
    picture = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGP4z8DwHwAFAAGAXSs8EgAAAABJRU5ErkJggg==")
    made = {
        "image": await sdk.do(sdk.files()[0].upload(file=("dot.png", io.BytesIO(picture), "image/png"))),
        "document": await sdk.do(sdk.files()[0].upload(file=("note.txt", io.BytesIO(b"Long. " * 500), "text/plain"))),
    }

    def showing(tag, file):
        return {"type": tag, "source": {"type": "file", "file_id": file.id}}
    text = {"type": "text", "text": "What are these?"}
    messages = [{"role": "user", "content": [*(showing(tag, file) for tag, file in made.items()), text]}]
    beta = sdk.client.beta.messages
    for create in (sdk.client.messages.create, beta.create):
        told = await sdk.do(create(**request("plain", messages)))
        equal((told.stop_reason, told.content[0].type), ("end_turn", "text"))
    asked = {"model": "claude-opus-5-5", "messages": messages}
    counted = await sdk.do(beta.count_tokens(**asked))
    if not 1600 + 500 < counted.input_tokens < 1600 + 1500:
        raise AssertionError(f"an image and 3,000 characters count as {counted.input_tokens}")
    swapped = [{"role": "user", "content": [showing("image", made["document"]), text]}]
    error = await sdk.raises(anthropic.BadRequestError, lambda: sdk.ask("plain", swapped))
    matches(error.body["error"]["message"], r"messages\.0\.content\.0: File `file_\w+` is `text/plain`, which no `image` block shows: .*")
    for file in made.values():
        await sdk.do(sdk.files()[0].delete(file.id))
    error = await sdk.raises(anthropic.NotFoundError, lambda: sdk.ask("plain", messages))
    equal(error.body["error"]["message"], f"File `{made['image'].id}` not found.")


async def errors_have_their_classes(sdk):
    unknown = "container_011CVexampLe1111111111111"
    error = await sdk.raises(anthropic.NotFoundError, lambda: sdk.ask("bash", container=unknown))
    equal(error.body["error"], {"type": "not_found_error", "message": f"Container not found: {unknown}"})
    equal(error.body["request_id"], error.request_id, "request id in body and header")
    error = await sdk.raises(anthropic.BadRequestError, lambda: sdk.ask("bash", tools=[TOOL, TOOL]))
    equal(error.body["error"]["message"], "tools: Tool names must be unique.")
    headers = {"belljar-script": "bash", "Authorization": anthropic.omit, "X-Api-Key": anthropic.omit}
    error = await sdk.raises(anthropic.AuthenticationError, lambda: sdk.ask("bash", extra_headers=headers))
    equal(error.body["error"]["type"], "authentication_error")


async def upstream_failures_reach_the_client(sdk):
    error = await sdk.raises(anthropic.APIStatusError, lambda: sdk.ask("fault_before"))
    equal((error.status_code, error.body["error"]["type"]), (529, "overloaded_error"))
    for script in ("fault_midstream", "fault_cut"):
        stream = lambda script=script: sdk.each(sdk.client.messages.create(**request(script), stream=True))
        error = await sdk.raises(anthropic.APIStatusError, stream)
        equal(error.body["type"], "error", script)


async def request_id_is_exposed(sdk):
    raw = await sdk.do(sdk.client.messages.with_raw_response.create(**request("plain")))
    header = raw.headers["request-id"]
    matches(header, r"req_01[1-9A-HJ-NP-Za-km-z]{22}")
    message = await sdk.do(raw.parse())
    equal(message._request_id, header)


async def max_tokens_is_passed_on(sdk):
    equal((await sdk.ask("max_tokens")).stop_reason, "max_tokens")


async def models_are_listed(sdk):
    models = await sdk.each(sdk.client.models.list())
    equal([model.type for model in models], ["model"] * len(models))
    if not models:
        raise AssertionError("no model is listed")
    one = await sdk.do(sdk.client.models.retrieve(models[0].id))
    equal(one.id, models[0].id)


async def batches_run_unattended(sdk):
    def asking(custom_id, text):
        messages = [{"role": "user", "content": text}]
        return {"custom_id": custom_id, "params": {"model": "m", "max_tokens": 99, "tools": [TOOL], "messages": messages}}
    for batches in (sdk.client.messages.batches, sdk.client.beta.messages.batches):
        asked = [asking("code", "```bash\necho $((6*7))\n```"), asking("wrong", [])]
        batch = await sdk.do(batches.create(requests=asked))
        equal((batch.processing_status, batch.request_counts.processing, batch.results_url), ("in_progress", 2, None))
        while batch.processing_status != "ended":
            await asyncio.sleep(0.05)
            batch = await sdk.do(batches.retrieve(batch.id))
        equal((batch.request_counts.succeeded, batch.request_counts.errored), (1, 1))
        told = {entry.custom_id: entry.result for entry in await sdk.each(batches.results(batch.id))}
        equal((told["code"].type, results(told["code"].message)[0].stdout), ("succeeded", "42\n"))
        equal((told["wrong"].type, told["wrong"].error.error.type), ("errored", "invalid_request_error"))
        equal([entry.id for entry in await sdk.each(batches.list(limit=1)) if entry.id == batch.id], [batch.id])
        error = await sdk.raises(anthropic.BadRequestError, lambda: batches.cancel(batch.id))
        equal(error.body["error"]["type"], "invalid_request_error")
        equal((await sdk.do(batches.delete(batch.id))).type, "message_batch_deleted")
        await sdk.raises(anthropic.NotFoundError, lambda: batches.retrieve(batch.id))


async def tokens_are_counted(sdk):
    asked = {"model": "claude-opus-5-5", "messages": [{"role": "user", "content": "How many?"}]}
    bare = await sdk.do(sdk.client.messages.count_tokens(**asked))
    tool = await sdk.do(sdk.client.beta.messages.count_tokens(**asked, tools=[CODE]))
    if not 0 < bare.input_tokens < 50 < tool.input_tokens:
        raise AssertionError(f"{bare.input_tokens} without the tool, {tool.input_tokens} with it")


async def live_output_is_passed_over(sdk):
    """Events that the SDK does not know, between a call and its result, change nothing for it."""
    headers = {"belljar-script": "live_output", "belljar-live-output": "1"}

    async def body(stream):
        seen = [event.type for event in await sdk.each(stream)]
        return seen, await sdk.do(stream.get_final_message())
    seen, message = await sdk.inside(sdk.client.messages.stream(**request("", extra_headers=headers)), body)
    equal([name for name in seen if name.startswith("belljar")], [])
    told = results(message)[0]
    told = told if isinstance(told, dict) else told.model_dump()  # The oldest has no type for it.
    equal((told["stdout"], told["stderr"]), ("one\ntwo\n", "aside\n"))
    raw = await sdk.each(sdk.client.messages.create(**request("", extra_headers=headers), stream=True))
    equal((raw[0].type, raw[-1].type), ("message_start", "message_stop"))


CASES = [
    live_output_is_passed_over,
    tokens_are_counted,
    batches_run_unattended,
    create_without_code, create_with_bash, nonzero_exit_is_a_result, stream_helper, stream_text_only, stream_raw,
    beta_create, beta_tool_runner, client_tool_by_hand, server_call_beside_client_call, pause_after_ten, text_editor,
    runner_answers_twenty_calls_from_code, runner_answers_eight_calls_at_once, runner_stops_with_the_code,
    runner_passes_failures_on, code_calls_in_streams, code_calls_the_servers_own_tool, python_remembers_in_its_container,
    calls_of_one_batch_run_in_order, container_reused_by_string_and_object, generated_file_is_downloaded, files_life,
    upload_reaches_the_code, files_are_shown_in_blocks, errors_have_their_classes, upstream_failures_reach_the_client, request_id_is_exposed,
    max_tokens_is_passed_on, models_are_listed,
]


def main():
    base_url, mode = sys.argv[1:3]
    report = Report(f"python {anthropic.__version__} {mode}")
    for case in CASES:
        report.check(case.__name__, lambda case=case: asyncio.run(in_client(case, base_url, mode)))
    sys.exit(report.finish())


if __name__ == "__main__":
    main()
