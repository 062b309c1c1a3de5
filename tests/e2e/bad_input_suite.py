"""Requests that must be refused, as data: each file of `bad_input/` is a table of requests and exact answers."""

import json
import socket
from pathlib import Path

from harness import http_client
from harness.report import equal, matches

# Bytes sent at once where a body comes in chunks.
CHUNK_BYTES = 1 << 20

TABLES = Path(__file__).resolve().parent / "bad_input"

# Text that would tell a client where the server keeps its things.
HOST_PATHS = ("/tmp/belljar", "/var/lib/", "/proc/", "/sys/", "target/debug", ".rs:", "/src/")


def run(report, server):
    for table in sorted(TABLES.glob("*.json")):
        document = json.loads(table.read_text())
        for case in document["cases"]:
            report.check(f"{table.stem}: {case['name']}", lambda case=case: check(server, document, case))
    report.check("a head that cannot be read gets an empty answer", lambda: broken_heads(server))


def broken_heads(server):
    """No request was made of these, so there is none to name."""
    long = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: " + b"x" * (1 << 20) + b"\r\n\r\n"
    minus = b"POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n"
    for head, status in ((b"nonsense\r\n\r\n", b"400"), (minus, b"400"), (long, b"431")):
        answer = raw(server, head)
        equal(answer.split(b" ")[1], status, repr(answer[:100]))
        equal((answer.partition(b"\r\n\r\n")[2], b"request-id" in answer.lower()), (b"", False), repr(answer))
    server.healthy()


def raw(server, sent):
    """What comes back for bytes that are no request. The server may close before it has read them all."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        received = b""
        try:
            connection.sendall(sent)
        except (BrokenPipeError, ConnectionResetError):
            pass
        try:
            while piece := connection.recv(65536):
                received += piece
        except ConnectionResetError:
            pass
        return received


def check(server, document, case):
    headers, body = build(document, case)
    method, path = case.get("call", document["call"]).split(" ", 1)
    answer = http_client.call(server.base_url, method, path, headers, body)
    compare(answer, case["expect"])
    for path_part in HOST_PATHS + (str(server.directory),):
        if path_part in answer.text:
            raise AssertionError(f"the answer names a place on the host: {answer.text}")
    server.healthy()


def compare(answer, expect):
    equal(answer.status, expect["status"], answer.text[:300])
    if expect["status"] < 400:
        for pointer, value in expect.get("json", {}).items():
            equal(answer.json()[pointer], value, pointer)
        return
    error = answer.json()["error"]
    equal(answer.json()["type"], "error")
    equal(error["type"], expect["type"])
    equal(answer.json()["request_id"], answer.headers["request-id"], "request id in body and header")
    if "message" in expect:
        equal(error["message"], expect["message"], "message")
    else:
        matches(error["message"], expect["pattern"], "message")
    equal(error.get("details", {}).get("error_code"), expect.get("error_code"), "details.error_code")


def build(document, case):
    """Headers and body: the table's defaults, changed by the case."""
    headers = http_client.api_headers()
    headers.update(document.get("headers", {}))
    headers.update(case.get("headers", {}))
    if "parts" in case:
        content_type, body = http_client.multipart(case["parts"])
        headers["content-type"] = case.get("headers", {}).get("content-type", content_type)
    elif "hex" in case:
        body = bytes.fromhex(case["hex"])
    elif "text" in case:
        body = case["text"].encode()
    elif "repeat" in case:
        plan = case["repeat"]
        body = (plan["before"] + plan["text"] * plan["times"] + plan["after"]).encode()
        if case.get("chunked"):
            body = http_client.in_pieces(body, CHUNK_BYTES)
    elif "with" in case or "without" in case:
        fields = {**document["defaults"], **case.get("with", {})}
        body = json.dumps({key: value for key, value in fields.items() if key not in case.get("without", [])}).encode()
    else:
        body = None
    return {name: value for name, value in headers.items() if value is not None}, body
