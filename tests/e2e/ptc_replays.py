"""Continuations that are not what they should be, or come again: what code has waited for reaches it once, whatever is sent."""

import json
import socket
import threading
from urllib.parse import urlsplit

from harness import http_client
from harness.report import equal, matches
from talk import CODE, NO_CONTAINER, WAIT_S_MAX, Talk, calls, error, outcome, own_server, state, until

WEATHER = {
    "name": "get_weather", "description": "The weather in a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def run(report, running):
    for check in CHECKS:
        report.check(check.__doc__, lambda check=check: check(running.base_url))
    own_server(report, running, "with a server that is restarted", {}, RESTARTS)


def partial(base):
    """of eight calls seven are answered: refused, and the code waits on"""
    talk = Talk(base, "code_gather")
    first = talk.ask()
    talk.answer(first, lambda given: given["key"])
    whole = talk.messages
    kept = whole[-1]["content"][:-1]
    talk.messages = whole[:-1] + [{"role": "user", "content": kept}]
    matches(error(talk.post(), 400), r"messages\.1: `tool_use` ids were found without `tool_result` blocks immediately after: .*")
    # Nor when the call itself is left out, so that nothing in the conversation lacks a result.
    shorter = [block for block in first["content"] if block["type"] != "tool_use"] + calls(first)[:-1]
    talk.messages = [whole[0], {"role": "assistant", "content": shorter}, {"role": "user", "content": kept}]
    cell, missing = first["content"][0]["id"], calls(first)[-1]["id"]
    equal(error(talk.post(), 400), f"The `tool_result` blocks are not those that the code of {cell} waits for. Without a result: {missing}.")
    talk.messages = whole
    equal(outcome(talk.ask())["stdout"], "0,1,2,3,4,5,6,7\n")


def forged(base):
    """results of another cell, of another container and of nobody are refused, and the code waits on"""
    one, other = Talk(base, "code_single"), Talk(base, "code_single")
    first, second = one.ask(), other.ask()
    one.answer(first, lambda given: "mine")
    other.answer(second, lambda given: "yours")
    expected = f"`server_tool_use` {first['content'][1]['id']} does not wait for `tool_result` blocks in container " \
        f"{other.container}: its code has gone on, or never was there."
    equal(error(one.post(container=other.container), 400), expected)
    forged = json.loads(json.dumps(one.messages).replace(first["content"][2]["id"], "toolu_01Forged1111111111111111"))
    matches(error(one.post(messages=forged), 400), r".* Without a result: toolu_\w+\. Not called by it: toolu_01Forged1111111111111111\.")
    equal(outcome(one.ask())["stdout"], "got mine\n")
    equal(outcome(other.ask())["stdout"], "got yours\n")


def late(base):
    """results for code that has ended are refused"""
    talk = Talk(base, "code_twice")
    first = talk.ask()
    talk.answer(first, lambda given: given["key"])
    again = talk.body()
    second = talk.ask()
    # The same results in other words are the same continuation; others are none.
    changed = json.loads(json.dumps(again).replace(calls(first)[0]["id"], "toolu_01Late111111111111111111"))
    answer = http_client.post_json(base, "/v1/messages", changed | {"container": talk.container}, talk.headers)
    matches(error(answer, 400), r"`server_tool_use` srvtoolu_\w+ does not wait for .*")
    talk.answer(second, lambda given: given["key"])
    equal(outcome(talk.ask())["stdout"], "b\n")


def without_caller(base):
    """a client that loses `caller`, or mixes it up, or loses the call of the code, goes on all the same, and nothing runs twice"""
    for change in (caller_lost, caller_direct, caller_of_another, cell_lost):
        talk = Talk(base, "code_loop")
        reply = talk.ask()
        while reply["stop_reason"] == "tool_use":
            talk.messages = [change(message) for message in talk.messages]
            talk.answer(reply, lambda given: given["key"])
            last, reply = talk.body(), talk.ask()
        equal(outcome(reply)["stdout"], "190\n", change.__name__)
        again = http_client.post_json(base, "/v1/messages", last, talk.headers)
        equal(again.json(), reply, f"{change.__name__}: the last one once more")


def caller_lost(message):
    return changed(message, lambda block: [{key: value for key, value in block.items() if key != "caller"}])


def caller_direct(message):
    return changed(message, lambda block: [block | {"caller": {"type": "direct"}}])


def caller_of_another(message):
    another = {"type": "code_execution_20260120", "tool_id": "srvtoolu_01Another"}
    return changed(message, lambda block: [block | ({"caller": another} if block["type"] == "tool_use" else {})])


def cell_lost(message):
    """As pydantic-ai 2.68.0 does it from the second pause on."""
    return changed(caller_lost(message), lambda block: [block] if block["type"] != "server_tool_use" else [])


def changed(message, change):
    if message["role"] == "user":
        return message
    return {"role": "assistant", "content": [block for before in message["content"] for block in change(before)]}


def without_caller_elsewhere(base):
    """what has no caller waits in its container only, and is not begun again"""
    talk, other = Talk(base, "code_effect"), Talk(base, "code_single")
    first, second = talk.ask(), other.ask()
    talk.answer(first, lambda given: "once")
    other.answer(second, lambda given: "yours")
    stripped = [caller_lost(message) for message in talk.messages]
    equal(error(talk.post(messages=stripped, container=None), 400), NO_CONTAINER)
    matches(error(talk.post(messages=stripped, container=other.container), 400), r"`server_tool_use` srvtoolu_\w+ does not wait for .*")
    # Nor where the calls themselves are left out, as if the reply had paused before its code ran.
    bare = [block for block in first["content"] if block["type"] != "tool_use"]
    told = error(talk.post(messages=[stripped[0], {"role": "assistant", "content": bare}]), 400)
    matches(told, r"`server_tool_use` srvtoolu_\w+ waits for results of tools that its code has called\. .* each `tool_use` with its id.*")
    equal(outcome(talk.post(messages=stripped).json())["stdout"], "once\n")
    seen = Talk(base, "code_effects_read", container=talk.container).ask()
    equal(outcome(seen)["stdout"], "once\n", "the effects")


def retried(base):
    """the same POST again gives the same answer and has one effect, plain or as a stream"""
    talk = Talk(base, "code_effect")
    talk.answer(talk.ask(), lambda given: "once")
    first = talk.post()
    equal((first.status, outcome(first.json())["stdout"]), (200, "once\n"))
    equal(talk.post().json(), first.json(), "again")
    stream = http_client.stream(base, talk.body(), talk.headers)
    equal(stream.events[0][1]["message"]["id"], first.json()["id"], "as a stream")
    equal(stream.events[-1][0], "message_stop")
    seen = Talk(base, "code_effects_read", container=talk.container).ask()
    equal(outcome(seen)["stdout"], "once\n", "the effects")


def left_beside_a_direct_call(base):
    """a call that was left beside one of the client's runs once, however often its continuation is sent"""
    talk = Talk(base, "deferred_effect", tools=(CODE, WEATHER))
    talk.answer(talk.ask(), lambda given: "4 degrees")
    runs_once(talk, "1\n")
    # Another conversation about the same call is another request.
    talk.messages[-1]["content"][0]["content"] = "5 degrees"
    told = talk.post().json()
    equal(bash_stdout(told), "1\n", "in a container of its own")


def left_by_a_pause(base):
    """so does the call that a pause has left"""
    talk = Talk(base, "eleven_effects", tools=(CODE,))
    equal(talk.ask()["stop_reason"], "pause_turn")
    runs_once(talk, "11\n")


def runs_once(talk, told):
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(talk.post())) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S_MAX)
    answers.append(talk.post())
    equal([answer.status for answer in answers], [200] * 6)
    equal([answer.json() for answer in answers], [answers[0].json()] * 6)
    equal(bash_stdout(answers[0].json()), told)
    stream = http_client.stream(talk.base, talk.body(), talk.headers)
    equal(stream.events[0][1]["message"]["id"], answers[0].json()["id"], "as a stream")


def bash_stdout(reply):
    return next(block["content"]["stdout"] for block in reply["content"] if block["type"] == "bash_code_execution_tool_result")


def retried_at_once(base):
    """ten of the same at once are one"""
    talk = Talk(base, "code_effect")
    talk.answer(talk.ask(), lambda given: "once")
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(talk.post())) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S_MAX)
    equal([answer.status for answer in answers], [200] * 10)
    equal(len({answer.json()["id"] for answer in answers}), 1, "message ids")
    equal(outcome(answers[0].json())["stdout"], "once\n")


def hung_up(base):
    """a continuation whose client hangs up goes on, and is told to whoever asks again"""
    talk = Talk(base, "code_slow_effect")
    talk.answer(talk.ask(), lambda given: "once")
    body = json.dumps(talk.body()).encode()
    place = urlsplit(base)
    with socket.create_connection((place.hostname, place.port)) as client:
        head = "".join(f"{name}: {value}\r\n" for name, value in talk.headers.items())
        client.sendall(f"POST /v1/messages HTTP/1.1\r\nhost: x\r\n{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        until(lambda: state(base, talk.container) == "leased", "the turn runs")
    equal(outcome(talk.ask())["stdout"], "once\n")


def failed_then_again(base):
    """a continuation whose sampling fails is tried again with what the code came to"""
    talk = Talk(base, "code_then_fault")
    talk.answer(talk.ask(), lambda given: "once")
    equal(talk.post().status, 529)
    talk.headers = http_client.api_headers(belljar_script="code_effect")
    told = talk.ask()
    equal((outcome(told)["stdout"], told["content"][-1]["text"]), ("once\n", "Done."))


def lost_in_a_crash(own):
    """after a crash, code that waited is lost with its container, and the error says so"""
    talk = Talk(own.base_url, "code_effect")
    first = talk.ask()
    talk.answer(first, lambda given: "once")
    own.crash()
    talk.base = own.base_url
    told = error(talk.post(), 404, "not_found_error")
    expected = f"Container not found: {talk.container}. The server was restarted while the code of {first['content'][0]['id']} waited " \
        "in it for results: the code, its variables and its files are lost, and nothing was done with the results."
    equal(told, expected)
    # Without the container and the call, as clients begin again.
    equal(outcome(Talk(own.base_url, "code_effect").play(lambda given: "anew")[-1])["stdout"], "anew\n")


def lost_and_files_intact(own):
    """after a restart, the model is told that the code is lost; files are there, variables are not"""
    told_after(own, lambda _container: own.restart())


def lost_in_a_crash_and_files_intact(own):
    """the same after a crash, of a container that was on disk"""
    def crash(container):
        kept = http_client.post_json(own.base_url, f"/belljar/v1/containers/{container}/checkpoint", {"put_away": True})
        equal(kept.status, 200, kept.text)
        own.crash()

    told_after(own, crash)


def told_after(own, end):
    talk = Talk(own.base_url, "code_effect")
    talk.answer(talk.ask(), lambda given: "once")
    waiting = talk.messages
    talk.ask()
    end(talk.container)
    talk.base, talk.messages = own.base_url, waiting
    told = outcome(talk.ask())
    equal((told["return_code"], told["stdout"]), (1, ""))
    matches(told["stderr"], r"belljar: the server was restarted while this code waited for results: the Python interpreter is lost .*\n")
    equal(outcome(Talk(own.base_url, "code_effects_read", container=talk.container).ask())["stdout"], "once\n", "the files")
    fresh = outcome(Talk(own.base_url, "code_state_get", container=talk.container).ask())
    matches(fresh["stderr"], r"(?s).*NameError: name 'kept' is not defined\n.*")


CHECKS = [
    partial, forged, late, without_caller, without_caller_elsewhere, retried, retried_at_once, hung_up, failed_then_again,
    left_beside_a_direct_call, left_by_a_pause,
]
RESTARTS = [lost_in_a_crash, lost_and_files_intact, lost_in_a_crash_and_files_intact]
