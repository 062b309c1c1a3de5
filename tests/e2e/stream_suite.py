"""The order of events on the wire, pings while code runs, and that the plain reply is the fold of the stream."""

import http.client
import json
import socket
import threading
import time
from urllib.parse import urlsplit

from harness import http_client
from harness.report import equal, matches

TOOL = {"type": "code_execution_20250825", "name": "code_execution"}
BODY = {
    "model": "claude-opus-5-5", "max_tokens": 1024, "tools": [TOOL],
    "messages": [{"role": "user", "content": "Go on."}],
}
TEXT = [("content_block_start", "text"), ("content_block_delta", "text_delta"), ("content_block_stop", None)]
USE = [("content_block_start", "server_tool_use"), ("content_block_delta", "input_json_delta"), ("content_block_stop", None)]
RESULT = [("content_block_start", "bash_code_execution_tool_result"), ("content_block_stop", None)]
BASH_TURN = [("message_start", None), *TEXT, *USE, *RESULT, *TEXT, ("message_delta", None), ("message_stop", None)]


def run(report, server):
    base = server.base_url
    report.check("a bash turn's events are in the exact order", lambda: order(base, "bash"))
    report.check("chunks of one byte change no order", lambda: order(base, "chunked"))
    report.check("the framing is the documented one", lambda: framing(base))
    report.check("deltas join to the blocks", lambda: deltas_join(base))
    report.check("the plain reply is the fold of the stream", lambda: plain_is_fold(base))
    report.check("pings are sent while code sleeps", lambda: pings(base))
    report.check("output cannot forge an event", lambda: injection(base))
    report.check("odd characters are themselves, streamed", lambda: odd_text(ask(base, "odd_text").events))
    report.check("odd characters are themselves, plain", lambda: odd_text_plain(base))
    report.check("an upstream error ends the stream with an error event", lambda: error_event(base, "fault_midstream"))
    report.check("a cut upstream ends the stream with an error event", lambda: error_event(base, "fault_cut"))
    report.check("live output comes while code runs, between the call and its result", lambda: live_output(base))
    report.check("nobody gets live output who has not asked for it", lambda: no_live_output(base))
    report.check("a client that hangs up ends its cell", lambda: hang_up(server))
    report.check("the fixed rule runs fenced code", lambda: fixed_rule(base))


def ask(base, script):
    answer = http_client.stream(base, BODY, http_client.api_headers(belljar_script=script))
    equal(answer.status, 200, answer.text)
    return answer


def shape(events):
    """Names with their inner type; pings gone, repeated deltas of one block once."""
    seen = []
    for name, data in events:
        inner = data.get("content_block", data.get("delta", {}) if name == "content_block_delta" else {}).get("type")
        if name == "ping" or (name == "content_block_delta" and seen[-1] == (name, inner)):
            continue
        seen.append((name, inner))
    return seen


def live_output(base):
    """Events of ours, as they come: the first while the code still sleeps."""
    headers = http_client.api_headers(belljar_script="live_output", belljar_live_output="1")
    address = urlsplit(base)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    connection.request("POST", "/v1/messages", json.dumps({**BODY, "stream": True}), headers)
    response = connection.getresponse()
    came = [(time.monotonic(), json.loads(line[6:])) for line in response if line.startswith(b"data: ")]
    connection.close()
    events = [event for _, event in came]
    names = [event["type"] for event in events if event["type"] != "ping"]
    told = [(at, event) for at, event in came if event["type"] == "belljar_output"]
    use = next(event["content_block"] for event in events if event.get("content_block", {}).get("type") == "server_tool_use")
    pieces = sorted((event["stream"], event["offset"], event["text"]) for _, event in told)
    equal(pieces, [("stderr", 0, "aside\n"), ("stdout", 0, "one\n"), ("stdout", 4, "two\n")])
    equal(list(told[0][1]), ["type", "tool_use_id", "stream", "offset", "text"])
    equal({event["tool_use_id"] for _, event in told}, {use["id"]})
    first = names.index("belljar_output")
    equal(names[first - 1:first + 5], ["content_block_stop", *["belljar_output"] * 3, "content_block_start", "content_block_stop"])
    if told[-1][0] - told[0][0] < 0.5:
        raise AssertionError("the first piece came only with the last")
    refused = http_client.post_json(base, "/v1/messages", BODY, {**headers, "belljar-live-output": "yes"})
    equal((refused.status, refused.json()["error"]["message"]), (400, 'belljar-live-output: expected 1 or 0, found "yes"'))


def no_live_output(base):
    names = [name for name, _ in ask(base, "live_output").events]
    equal(names.count("belljar_output"), 0)
    plain = http_client.post_json(base, "/v1/messages", BODY, http_client.api_headers(belljar_script="live_output", belljar_live_output="1"))
    equal(plain.json()["content"][1]["content"]["stdout"], "one\ntwo\n")


def order(base, script):
    events = ask(base, script).events
    equal(shape(events), BASH_TURN)
    indices = [data["index"] for name, data in events if name == "content_block_start"]
    equal(indices, [0, 1, 2, 3])
    names = [name for name, _ in events]
    equal(names[:3], ["message_start", "content_block_start", "ping"], "the first ping follows the first block's start")


def framing(base):
    answer = ask(base, "bash")
    equal(answer.headers["content-type"], "text/event-stream; charset=utf-8")
    equal(answer.headers["cache-control"], "no-cache")
    matches(answer.headers["request-id"], r"req_01\w{22}")
    if "\r" in answer.text:
        raise AssertionError("a carriage return stands in the stream")
    start = answer.events[0][1]["message"]
    equal((start["content"], start["stop_reason"], start["stop_sequence"]), ([], None, None))
    if "container" in start:
        raise AssertionError("container rides in message_delta, not in message_start")
    delta = answer.events[-2][1]
    equal(delta["delta"]["stop_reason"], "end_turn")
    equal(sorted(delta["delta"]["container"]), ["expires_at", "id"])
    equal(delta["usage"]["server_tool_use"], {"web_search_requests": 0, "web_fetch_requests": 0, "code_execution_requests": 1})


def deltas_join(base):
    events = ask(base, "chunked").events
    joined = {}
    for name, data in events:
        if name == "content_block_delta":
            piece = data["delta"].get("text", data["delta"].get("partial_json"))
            joined[data["index"]] = joined.get(data["index"], "") + piece
    equal(joined[0], "Grüße, 世界: running it.")
    first = [data["delta"] for name, data in events if name == "content_block_delta" and data["index"] == 1][0]
    equal(first, {"type": "input_json_delta", "partial_json": ""}, "the first input delta")
    equal(json.loads(joined[1]), {"command": "printf 'a\\nb\\n'"})


def plain_is_fold(base):
    events = ask(base, "bash").events
    plain = http_client.post_json(base, "/v1/messages", BODY, http_client.api_headers(belljar_script="bash")).json()
    starts = [data["content_block"] for name, data in events if name == "content_block_start"]
    equal([block["type"] for block in plain["content"]], [block["type"] for block in starts])
    equal(plain["content"][2]["content"], starts[2]["content"], "the result block")
    equal(plain["stop_reason"], events[-2][1]["delta"]["stop_reason"])
    folded = {**events[0][1]["message"]["usage"], **events[-2][1]["usage"]}
    equal(plain["usage"], folded, "usage")
    keys = ["model", "id", "type", "role", "content", "container", "stop_reason", "stop_sequence", "stop_details", "usage"]
    equal(list(plain), keys, "the order of the keys")


def pings(base):
    events = ask(base, "sleeps").events
    names = [name for name, _ in events]
    result = next(i for i, (name, data) in enumerate(events)
                  if name == "content_block_start" and data["content_block"]["type"].endswith("_tool_result"))
    call_ends = max(i for i in range(result) if names[i] == "content_block_stop")
    between = names[call_ends + 1:result]
    if len(between) < 2 or set(between) != {"ping"}:
        raise AssertionError(f"between the call and its result, 4 s later, came {between}")


def injection(base):
    events = ask(base, "sse_injection").events
    equal([name for name, _ in events].count("message_stop"), 1)
    result = next(data for name, data in events if name == "content_block_start" and data["index"] == 1)
    expected = 'x\n\nevent: message_stop\ndata: {"type":"message_stop"}\n\n'
    equal(result["content_block"]["content"]["stdout"], expected)


ODD = 'x\0y\u2028z\u2029 event: message_stop\ndata: {"type":"message_stop"}\r\n\r\n: comment\u0085\ufeffend'
ODD_OUTPUT = ("a\ufffd\0b\u2028c\r\n\r\nevent: error\ndata: {}\n\n", "\ufffd(")


def odd_text(events):
    """The model's text and the code's output, NUL, line separators, bytes that are no text and what looks like events in them."""
    texts = {}
    for name, data in events:
        if name == "content_block_delta" and data["delta"]["type"] == "text_delta":
            texts[data["index"]] = texts.get(data["index"], "") + data["delta"]["text"]
    equal((texts[0], texts[3]), (ODD, "Still here."))
    results = [data["content_block"]["content"] for name, data in events if name == "content_block_start" and data["index"] == 2]
    equal([(result["stdout"], result["stderr"]) for result in results], [ODD_OUTPUT])
    equal([name for name, _ in events].count("message_stop"), 1)


def odd_text_plain(base):
    content = http_client.post_json(base, "/v1/messages", BODY, http_client.api_headers(belljar_script="odd_text")).json()["content"]
    equal(content[0]["text"], ODD)
    equal((content[2]["content"]["stdout"], content[2]["content"]["stderr"]), ODD_OUTPUT)


def error_event(base, script):
    answer = ask(base, script)
    name, data = answer.events[-1]
    equal(name, "error")
    equal(sorted(data), ["error", "request_id", "type"])
    equal(data["request_id"], answer.headers["request-id"])


def hang_up(server):
    """Hangs up while a cell sleeps: its container answers the next cell long before the sleep would have ended."""
    made = http_client.post_json(server.base_url, "/belljar/v1/containers", {}).json()
    body = json.dumps({**BODY, "stream": True, "container": made["id"]}).encode()
    headers = "".join(f"{k}: {v}\r\n" for k, v in http_client.api_headers(belljar_script="sleeps_long").items())
    head = f"POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(head.encode() + body)
        received = b""
        while b'"content_block_stop","index":0' not in received.replace(b" ", b""):
            piece = connection.recv(65536)
            if not piece:
                raise AssertionError(f"the stream ended early: {received[-300:]!r}")
            received += piece
    started = time.monotonic()
    cell = {"language": "bash", "source": "echo free"}
    outcome = after_conflict(server, made["id"], cell, started)
    equal(outcome["stdout"], "free\n")
    took = time.monotonic() - started
    if took > 10:
        raise AssertionError(f"the sleeping cell held the container for {took:.1f} s after the client had gone")
    http_client.call(server.base_url, "DELETE", f"/belljar/v1/containers/{made['id']}", http_client.api_headers())


def after_conflict(server, container, cell, started):
    """Runs the cell as soon as the container is free; a busy container may answer 409 until then."""
    while True:
        answer = http_client.post_json(server.base_url, f"/belljar/v1/containers/{container}/cells", cell)
        if answer.status == 200:
            return answer.json()
        if answer.status != 409 or time.monotonic() - started > 15:
            raise AssertionError(f"{answer.status}: {answer.text}")
        threading.Event().wait(0.1)


def fixed_rule(base):
    body = {**BODY, "messages": [{"role": "user", "content": "Run it:\n```bash\necho from bash\n```\n```python\nprint(6 * 7)\n```\n"}]}
    answer = http_client.post_json(base, "/v1/messages", body)
    equal(answer.status, 200, answer.text)
    results = [block["content"] for block in answer.json()["content"] if block["type"].endswith("_tool_result")]
    outputs = [content["stdout"] for content in results if "stdout" in content]
    equal(outputs, ["from bash\n", "42\n"])
