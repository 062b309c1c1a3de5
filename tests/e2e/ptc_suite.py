"""Code that calls the client's tools, over plain HTTP: the pause, the continuation, and everything that can go wrong between."""

from harness import http_client
from harness.report import equal, matches
from talk import (
    CODE, LOOKUP, NO_CONTAINER, Talk, calls, error, kinds, make_keys, outcome, own_server, result, seconds_left, state, until,
)

LEGACY = {"type": "code_execution_20250522", "name": "code_execution"}
WEATHER = {
    "name": "get_weather", "description": "The weather in a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def run(report, running):
    base = running.base_url
    for check in CHECKS:
        report.check(check.__doc__, lambda check=check: check(base))
    own_server(report, running, "with a server of little patience", {"lease_wait_s_max": 1}, PATIENCE)
    own_server(report, running, "with code that waits a second", {}, LATE, sandbox={"tool_answer_wait_s_max": 1})
    short = {"tool_answer_wait_s_max": 1, "container_idle_s_max": 1}
    own_server(report, running, "with code that waits and is soon let go", {}, LET_GO, sandbox=short)
    own_server(report, running, "with keys", {}, KEYS, prepare=make_keys)


def single_call(base):
    """one call: a pause with container and callers, then the result"""
    talk = Talk(base, "code_single")
    first = talk.ask()
    equal((kinds(first), first["stop_reason"]), (["text", "server_tool_use", "tool_use"], "tool_use"))
    use, call = first["content"][1:]
    equal((use["name"], use["caller"]), ("code_execution", {"type": "direct"}))
    equal(call["caller"], {"type": "code_execution_20260120", "tool_id": use["id"]})
    equal((call["name"], call["input"]), ("lookup", {"key": "a"}))
    left = seconds_left(first["container"]["expires_at"])
    if not 240 < left <= 270:
        raise AssertionError(f"a pause that lasts {left} s")
    talk.answer(first, lambda given: "42")
    second = talk.ask()
    equal(kinds(second), ["code_execution_tool_result", "text"])
    equal(second["content"][0]["tool_use_id"], use["id"])
    expected = {
        "type": "code_execution_result", "stdout": "got 42\n", "stderr": "", "return_code": 0, "content": [],
        "abort_reason": None,
    }
    equal(outcome(second), expected)
    equal(second["container"]["id"], first["container"]["id"])


def streamed(base):
    """the same as streams: calls come whole, the container in the last delta"""
    talk = Talk(base, "code_single")
    first = http_client.stream(base, talk.body(), talk.headers)
    starts = [data["content_block"] for name, data in first.events if name == "content_block_start"]
    equal([block["type"] for block in starts], ["text", "server_tool_use", "tool_use"])
    equal(starts[2]["input"], {"key": "a"})
    delta = next(data["delta"] for name, data in first.events if name == "message_delta")
    equal(delta["stop_reason"], "tool_use")
    content = [starts[0] | {"text": "I look it up."}, starts[1] | {"input": {"code": "shortened"}}, starts[2]]
    talk.messages = talk.messages + [
        {"role": "assistant", "content": content},
        {"role": "user", "content": [result(starts[2], [{"type": "text", "text": "4"}, {"type": "text", "text": "2"}])]},
    ]
    second = http_client.stream(base, talk.body() | {"container": delta["container"]["id"]}, talk.headers)
    starts = [data["content_block"] for name, data in second.events if name == "content_block_start"]
    equal((starts[0]["type"], starts[0]["content"]["stdout"]), ("code_execution_tool_result", "got 42\n"))
    equal(second.events[-1][0], "message_stop")


def gathered(base):
    """eight calls at once are one pause"""
    first, second = Talk(base, "code_gather").play(lambda given: f"<{given['key']}>")
    equal(len(calls(first)), 8)
    equal(outcome(second)["stdout"], ",".join(f"<{n}>" for n in range(8)) + "\n")


def thousand(base):
    """a thousand calls at once are one pause, too"""
    first, second = Talk(base, "code_thousand").play(lambda given: given["key"])
    equal([call["input"]["key"] for call in calls(first)], [str(n) for n in range(1000)])
    equal(outcome(second)["stdout"], "499500\n")


def looped(base):
    """twenty calls one after the other are twenty pauses, and no sampling between"""
    replies = Talk(base, "code_loop").play(lambda given: given["key"])
    equal(len(replies), 21)
    for reply in replies[1:-1]:
        equal((kinds(reply), reply["usage"]["output_tokens"]), (["tool_use"], 0))
    equal(outcome(replies[-1])["stdout"], "190\n")


def early_exit(base):
    """code that has seen enough calls no more"""
    replies = Talk(base, "code_early_exit").play(lambda given: "healthy" if given["key"] == "3" else "down")
    equal(sum(len(calls(reply)) for reply in replies), 4)
    equal(outcome(replies[-1])["stdout"], "first healthy: 3\n")


def tool_error(base):
    """a result with is_error is an exception in the code"""
    talk = Talk(base, "code_catches")
    talk.answer(talk.ask(), lambda given: "no such key", is_error=True)
    told = outcome(talk.ask())
    equal(told["return_code"], 0, told["stderr"])
    matches(told["stdout"], r"caught \w+ .*no such key\n")


def traceback(base):
    """a traceback names the cell's file and nobody else's frames"""
    talk = Talk(base, "code_fails")
    first = talk.ask()
    talk.answer(first, lambda given: "7")
    told = outcome(talk.ask())
    equal(told["return_code"], 1)
    lines = told["stderr"].splitlines()
    equal((lines[0], lines[-1]), ("Traceback (most recent call last):", "ZeroDivisionError: division by zero"))
    frames = [line for line in lines if line.startswith("  File")]
    file = f'/tmp/{first["content"][0]["id"]}/cell.py'
    equal(frames, [f'  File "{file}", line 3, in <module>', f'  File "{file}", line 2, in divide'])


def state_is_kept(base):
    """variables live on in the container, across requests"""
    talk = Talk(base, "code_state_set")
    talk.answer(talk.ask(), lambda given: "kept it")
    talk.ask()
    later = Talk(base, "code_state_get", container=talk.container).ask()
    equal(outcome(later)["stdout"], "kept it\n")
    elsewhere = Talk(base, "code_state_get").ask()
    matches(outcome(elsewhere)["stderr"], r".*NameError: name 'kept' is not defined\n")


def two_cells(base):
    """a second cell of the same reply pauses again"""
    replies = Talk(base, "code_twice").play(lambda given: given["key"])
    equal([kinds(reply) for reply in replies], [
        ["server_tool_use", "tool_use"],
        ["code_execution_tool_result", "server_tool_use", "tool_use"],
        ["code_execution_tool_result", "text"],
    ])
    equal([outcome(reply)["stdout"] for reply in replies[1:]], ["a\n", "b\n"])


def files_come_back(base):
    """files of a cell that has waited come back"""
    talk = Talk(base, "code_file")
    talk.answer(talk.ask(), lambda given: "the answer")
    entry, = outcome(talk.ask())["content"]
    equal(entry["type"], "code_execution_output")
    content = http_client.call(base, "GET", f"/v1/files/{entry['file_id']}/content", http_client.api_headers())
    equal(content.text, "the answer")


def direct_beside_code(base):
    """a direct call beside code: answered first, then the code runs and calls"""
    talk = Talk(base, "code_then_tool", tools=(CODE, LOOKUP, WEATHER))
    first = talk.ask()
    equal((kinds(first), first["stop_reason"]), (["server_tool_use", "tool_use"], "tool_use"))
    equal(calls(first)[0]["name"], "get_weather")
    talk.answer(first, lambda given: "4 degrees")
    second = talk.ask()
    equal((kinds(second), calls(second)[0]["name"]), (["tool_use"], "lookup"))
    talk.answer(second, lambda given: "42")
    third = talk.ask()
    equal((kinds(third), outcome(third)["stdout"]), (["code_execution_tool_result", "text"], "code 42\n"))


def no_container(base):
    """a continuation without its container is refused, and works with it"""
    talk = Talk(base, "code_single")
    talk.answer(talk.ask(), lambda given: "42")
    equal(error(talk.post(container=None), 400), NO_CONTAINER)
    unknown = "container_011CVexampLe1111111111111"
    equal(error(talk.post(container=unknown), 404, "not_found_error"), f"Container not found: {unknown}")
    equal(outcome(talk.ask())["stdout"], "got 42\n")


def interpreter_dies(base):
    """an interpreter that dies is said, with its files intact, and the next cell gets a new one"""
    replies = Talk(base, "code_dies").play(lambda given: "42")
    dead, fresh = [block["content"] for block in replies[-1]["content"] if block["type"] == "code_execution_tool_result"]
    equal(dead["return_code"] != 0, True, "a return code")
    matches(dead["stderr"], r"(?s).*belljar: the Python interpreter ended: .*; variables are lost, files are intact.*")
    equal((fresh["stdout"], fresh["return_code"]), ("False\n", 0))


def interrupted(base):
    """code that waits can be interrupted, and its end is told to the continuation"""
    talk = Talk(base, "code_single")
    talk.answer(talk.ask(), lambda given: "42")
    told = http_client.post_json(base, f"/belljar/v1/containers/{talk.container}/interrupt", {})
    equal(told.json()["interrupted"], "cell")
    equal(outcome(talk.ask())["return_code"] != 0, True, "a return code")


def deleted(base):
    """a container that is deleted takes its code along"""
    talk = Talk(base, "code_single")
    talk.answer(talk.ask(), lambda given: "42")
    path = f"/belljar/v1/containers/{talk.container}"
    equal(http_client.call(base, "DELETE", path, http_client.api_headers()).status, 200)
    equal(error(talk.post(), 404, "not_found_error"), f"Container not found: {talk.container}")


def from_bash(base):
    """a command of bash calls a tool, and its pipe goes on with the answer"""
    talk = Talk(base, "bash_calls")
    first = talk.ask()
    use, call = first["content"]
    equal((use["name"], call["name"], call["input"]), ("bash_code_execution", "lookup", {"key": "a"}))
    equal(call["caller"]["tool_id"], use["id"])
    talk.answer(first, lambda given: "loud")
    second = talk.ask()
    equal(kinds(second), ["bash_code_execution_tool_result", "text"])
    told = second["content"][0]["content"]
    equal((told["stdout"].strip(), told["stderr"], told["return_code"]), ("LOUD", "", 0))


def boolean(base):
    """code_execution: true declares the tool"""
    told = Talk(base, "bash", tools=(), code_execution=True).ask()
    equal(kinds(told), ["text", "server_tool_use", "bash_code_execution_tool_result", "text"])
    first, second = Talk(base, "code_single", tools=(LOOKUP,), code_execution=True).play(lambda given: "42")
    equal(outcome(second)["stdout"], "got 42\n")


def without_a_code_tool(base):
    """tools that code may call bring the code along"""
    first, second = Talk(base, "code_single", tools=(LOOKUP,)).play(lambda given: "42")
    equal(outcome(second)["stdout"], "got 42\n")


def legacy(base):
    """20250522: files stay and variables do not, $OUTPUT_DIR comes back"""
    told = legacy_talk(base, "legacy").ask()
    first, second = [block["content"] for block in told["content"] if block["type"] == "code_execution_tool_result"]
    equal((first["stdout"], first["stderr"], first["return_code"]), ("wrote", "", 0))
    equal([entry["type"] for entry in first["content"]], ["code_execution_output"])
    equal((second["stdout"], second["abort_reason"]), ("False", None))


def legacy_talk(base, script):
    talk = Talk(base, script, tools=(LEGACY,), model="claude-sonnet-4-20250514")
    talk.headers = http_client.api_headers(belljar_script=script, anthropic_beta="code-execution-2025-05-22")
    return talk


def legacy_traceback(base):
    """20250522: a traceback is the interpreter's own"""
    told = legacy_talk(base, "legacy_fails").ask()
    failed = outcome(told)
    equal((failed["stdout"], failed["return_code"]), ("so far", 1))
    lines = failed["stderr"].splitlines()
    equal(lines[1], f'  File "/tmp/{told["content"][0]["id"]}/cell.py", line 2, in <module>')
    equal(lines[-1], "ZeroDivisionError: division by zero")


def legacy_figure(base):
    """20250522: a figure that was saved anywhere comes back"""
    told = outcome(legacy_talk(base, "legacy_figure").ask())
    equal((told["stderr"], told["return_code"], len(told["content"])), ("", 0, 1))
    meta = http_client.call(base, "GET", f"/v1/files/{told['content'][0]['file_id']}", http_client.api_headers()).json()
    equal((meta["filename"], meta["mime_type"]), ("out.png", "image/png"))


def capability(base):
    """models say whether their code may call tools"""
    def supported(model):
        answer = http_client.call(base, "GET", f"/v1/models/{model}", http_client.api_headers())
        return answer.json()["capabilities"]["code_execution"]["supported"]

    equal([supported("claude-opus-5-5"), supported("claude-haiku-4-5"), supported("qwen3:32b")], [True, False, True])


def busy(own):
    """whoever asks for a container whose code waits is refused, and the SDKs do not ask again"""
    talk = Talk(own.base_url, "code_single")
    first = talk.ask()
    refused = Talk(own.base_url, "code_state_get", container=talk.container).post()
    equal((refused.status, refused.headers["x-should-retry"]), (409, "false"), refused.text)
    cell = first["content"][1]["id"]
    expected = f"Container {talk.container} is in use: code of {cell} waits for the results of tools that it has called"
    equal(error(refused, 409, "conflict_error"), expected)
    talk.answer(first, lambda given: "42")
    equal(outcome(talk.ask())["stdout"], "got 42\n")


def too_late(own):
    """results that come after the code gave up get what came of it"""
    talk = Talk(own.base_url, "code_patient")
    first = talk.ask()
    equal(seconds_left(first["container"]["expires_at"]) <= 1, True, "the time that is left")
    talk.answer(first, lambda given: "42")
    wait_until_over(first)
    told = outcome(talk.ask())
    equal((told["return_code"], told["stdout"]), (0, "late: Calling tool ['lookup'] timed out (no response after 1s).\n"))


def too_late_and_called_again(own):
    """or the call that the code has made since"""
    talk = Talk(own.base_url, "code_patient_twice")
    first = talk.ask()
    talk.answer(first, lambda given: given["key"])
    wait_until_over(first)
    second = talk.ask()
    equal((kinds(second), calls(second)[0]["input"]), (["tool_use"], {"key": "b"}))
    talk.answer(second, lambda given: given["key"])
    equal(outcome(talk.ask())["stdout"], "late: Calling tool ['lookup'] timed out (no response after 1s).\nb\n")


def wait_until_over(reply):
    """Until the calls of a reply have expired, with a second for the clocks of both sides."""
    until(lambda: seconds_left(reply["container"]["expires_at"]) < -1, "the calls expire")


def let_go(own):
    """code that nobody answers is let go, and the model is told so"""
    talk = Talk(own.base_url, "code_single")
    talk.answer(talk.ask(), lambda given: "42")
    until(lambda: state(own.base_url, talk.container) != "leased", "its container is free")
    told = outcome(talk.ask())
    equal((told["return_code"], told["stdout"]), (1, ""))
    matches(told["stderr"], r"belljar: the results came too late: .*\n")


def foreign(own):
    """another workspace's container and code are not there"""
    one, other = own.keys
    talk = Talk(own.base_url, "code_single")
    talk.headers = http_client.api_headers(key=one, belljar_script="code_single")
    talk.answer(talk.ask(), lambda given: "42")
    mine, talk.headers = talk.headers, http_client.api_headers(key=other, belljar_script="code_single")
    without_caller = [{key: value for key, value in block.items() if key != "caller"} for block in talk.messages[1]["content"]]
    for content in (talk.messages[1]["content"], without_caller):
        refused = talk.post(messages=[talk.messages[0], {"role": "assistant", "content": content}, talk.messages[2]])
        equal(error(refused, 404, "not_found_error"), f"Container not found: {talk.container}")
    talk.headers = mine
    equal(outcome(talk.ask())["stdout"], "got 42\n")


CHECKS = [
    single_call, streamed, gathered, thousand, looped, early_exit, tool_error, traceback, state_is_kept, two_cells, files_come_back,
    direct_beside_code, no_container, interpreter_dies, interrupted, deleted, from_bash, boolean, without_a_code_tool, legacy,
    legacy_traceback, legacy_figure, capability,
]
PATIENCE = [busy]
LATE = [too_late, too_late_and_called_again]
LET_GO = [let_go]
KEYS = [foreign]
