"""`belljar compare`: the same requests asked of several servers, as an operator would."""

import json
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import ptc_suite
from harness import http_client, server
from harness.report import equal

KEY = "sk-compare-not-to-be-seen"
PRICES = """
date = "2026-11-29"
[[model]]
name = "claude-opus-*"
input = 5.0
output = 25.0
cache_write = 6.25
cache_read = 0.5
"""


def run(report, running):
    try:
        with server.Server(running.belljar, scripts=running.scripts) as other, Odd() as odd:
            urls = [running.base_url, other.base_url]
            report.check("two equal servers differ in nothing", lambda: equal_servers(running, urls))
            report.check("a stream has a first event before its end", lambda: first_event(running, urls))
            report.check("cost is told where the price is", lambda: costs(running, urls))
            report.check("a server of another shape is found out", lambda: another_shape(running, odd))
            report.check("servers are shown side by side", lambda: side_by_side(running, odd))
            report.check("a key goes to its server and nowhere else", lambda: keys(running, odd))
            report.check("a recording of one server is asked again of another", lambda: recording(running, other))
            report.check("a server that is not there", lambda: nobody(running))
            report.check("a command line that is wrong", lambda: usage(running, urls))
    except RuntimeError as error:
        report.fail("starting a second server", error)


class Odd:
    """Another server's reply: one key more, one less, and an order of its own."""

    def __enter__(self):
        seen = self.seen = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers["content-length"]))
                seen.append((self.path, self.headers["x-api-key"]))
                reply = {
                    "id": "msg_01odd", "model": "claude-opus-5-5", "type": "message", "role": "assistant",
                    "content": [{"type": "text", "text": "odd \x1b[31mred", "mood": "fine"}],
                    "stop_reason": "end_turn", "stop_sequence": None,
                    "usage": {"input_tokens": 3, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 7},
                }
                body = json.dumps(reply).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        return self

    def __exit__(self, *_exception):
        self.server.shutdown()
        self.server.server_close()


def request(script, **more):
    body = {
        "model": "claude-opus-5-5", "max_tokens": 1024, "messages": [{"role": "user", "content": "Go on."}],
        "tools": [ptc_suite.CODE], **more,
    }
    return {"headers": {"belljar-script": script}, "body": body}


def compare(running, documents, urls, *more, environment=None, lines=False):
    """What the command came to: its exit status, its standard output and its standard error."""
    path = running.directory / "compare.json"
    path.write_text("\n".join(map(json.dumps, documents)) if lines else json.dumps(documents))
    addresses = [part for url in urls for part in ("--base-url", url)]
    ended = subprocess.run(
        [running.belljar, "compare", "--request", str(path), *addresses, *more], stdin=subprocess.DEVNULL,
        capture_output=True, text=True, env={**os.environ, **(environment or {})}, timeout=120,
    )
    return ended.returncode, ended.stdout, ended.stderr


def documents(running, requests, urls, *more, **how):
    status, out, err = compare(running, requests, urls, "--json", *more, **how)
    if not out:
        raise AssertionError(f"it ended with {status} and printed nothing: {err}")
    return status, json.loads(out)["requests"]


def equal_servers(running, urls):
    asked = [request("bash"), request("bash", stream=True), request("plain", stream=True), request("fault_before")]
    status, told = documents(running, asked, urls, "--check", lines=True)
    equal([part["differences"] for part in told], [[{"server": urls[1], "found": []}]] * 4)
    equal(status, 0)
    equal([part["stream"] for part in told], [False, True, True, False])
    statuses = [[answer["status"] for answer in part["answers"]] for part in told]
    equal(statuses[:3], [[200, 200]] * 3)
    equal(statuses[3][0] >= 400, True)
    kinds = [block["type"] for block in told[1]["answers"][1]["message"]["content"]]
    equal("bash_code_execution_tool_result" in kinds, True, kinds)


def first_event(running, urls):
    _, [told] = documents(running, [request("bash", stream=True)], urls)
    for answer in told["answers"]:
        equal(0 < answer["first_event_ms"] < answer["total_ms"], True, answer)


def costs(running, urls):
    path = running.directory / "prices.toml"
    path.write_text(PRICES)
    asked = [request("bash"), request("bash")]
    asked[1]["body"]["model"] = "somebody-else"
    _, told = documents(running, asked, urls, "--prices", str(path))
    for answer in told[0]["answers"]:
        expected = (answer["input_tokens"] * 5.0 + answer["output_tokens"] * 25.0) / 1e6
        equal(answer["input_tokens"] > 0 and abs(answer["cost"] - expected) < 1e-9, True, answer)
    equal([answer["cost"] for answer in told[1]["answers"]], [None, None])


def another_shape(running, odd):
    status, [told] = documents(running, [request("plain", tools=[])], [running.base_url, odd.url], "--check")
    equal(status, 1)
    [differences] = told["differences"]
    found = {one["at"]: (one["left"], one["right"]) for one in differences["found"]}
    equal(found["content[0].mood"], ({"absent": True}, {"value": "fine"}))
    equal(found["stop_details"], ({"value": None}, {"absent": True}))
    equal(found[""][1]["keys"][:2], ["id", "model"])
    without = documents(running, [request("plain", tools=[])], [running.base_url, odd.url])
    equal(without[0], 0, "without --check")


def side_by_side(running, odd):
    _, out, _ = compare(running, [request("plain", tools=[])], [running.base_url, odd.url])
    rows = {line[:12].strip(): line[12:] for line in reversed(out.splitlines())}
    equal(rows["status"].split(), ["200", "200"])
    equal(rows["tokens out"].split()[1], "7")
    for part in (running.base_url, odd.url, "odd \ufffd[31mred", "content[0].mood", "stop_details"):
        equal(part in out, True, f"{part!r} in\n{out}")
    equal("\x1b" in out, False)


def keys(running, odd):
    odd.seen.clear()
    environment = {"COMPARE_KEY": KEY}
    urls = [running.base_url, odd.url]
    for more in ((), ("--json",)):
        status, out, err = compare(
            running, [request("plain", tools=[])], urls, "--key-env", "-", "--key-env", "COMPARE_KEY", *more, environment=environment,
        )
        equal((status, KEY in out + err), (0, False))
    equal(odd.seen, [("/v1/messages", KEY)] * 2)
    status, _, err = compare(running, [request("plain")], urls, "--key-env", "COMPARE_NO_KEY")
    equal((status, "COMPARE_NO_KEY is not set" in err), (2, True), err)


class Recorded(ptc_suite.Talk):
    """A conversation that is written down as it goes."""

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        self.exchanges = []

    def post(self, **changes):
        body = {**self.body(), **changes}
        answer = http_client.post_json(self.base, "/v1/messages", body, self.headers)
        headers = {"belljar-script": self.script, "authorization": "REDACTED"}
        self.exchanges.append({
            "request": {"method": "POST", "path": "/v1/messages", "headers": headers, "body": body},
            "response": {"status": answer.status, "headers": {}, "body": answer.json()},
        })
        return answer


def recording(running, other):
    talk = Recorded(running.base_url, "code_twice")
    replies = talk.play(lambda given: "42")
    equal(len(replies) >= 3, True, "it pauses twice")
    status, told = documents(running, talk.exchanges, [other.base_url], "--check")
    equal([part["differences"] for part in told], [[{"server": other.base_url, "found": []}]] * len(replies))
    equal(status, 0)
    for part in told:
        equal([answer["server"] for answer in part["answers"]], ["recorded", other.base_url])
        ids = [answer["message"]["id"] for answer in part["answers"]]
        equal(len(set(ids)), 2, "nothing was asked")


def nobody(running):
    port = server.free_port()
    status, out, _ = compare(running, [request("plain")], [running.base_url, f"http://127.0.0.1:{port}"])
    equal((status, "no answer" in out), (1, True), out)


def usage(running, urls):
    equal(compare(running, [{"model": "m"}], urls)[0], 2, "no messages")
    equal(compare(running, [request("plain")], urls, "--key-env", "A", "--key-env", "B", "--key-env", "C")[0], 2, "three keys")
    equal(compare(running, [request("plain")], ["ftp://a"])[0], 2, "no http")
    equal(compare(running, [request("plain")], ["http://user:secret@127.0.0.1"])[0], 2, "credentials")
