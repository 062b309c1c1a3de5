"""A client that hangs up at every event of a stream: nobody waits for it, and nothing of it is left.

One turn with code is told in N events. Each of N + 1 requests for it loses its client behind the k-th, by an orderly end of
the connection and by a reset. Its container must be free for the next cell, its turn and its connection must end, and no
container may be there that was not before.
"""

import json
import socket
import struct
import threading
import time
from pathlib import Path

from harness import http_client
from harness.report import equal
from stream_suite import BODY, after_conflict

SCRIPTS = ("bash", "chunked")
# message_start, then a call: its start, two deltas and its stop.
EVENTS_BEFORE_SLEEP = 5
SETTLED_S_MAX = 20
# Well below the minute for which a cell sleeps.
FREE_S_MAX = 10
# Of `/proc/net/tcp`: listening, and waiting out the time after the end.
LET_GO = ("0A", "06")


def run(report, server):
    for script in SCRIPTS:
        for reset in (False, True):
            how = "a reset" if reset else "an orderly end"
            report.check(f"{script}: {how} at every event leaves nothing", lambda args=(script, reset): everywhere(server, *args))
    asleep = "sleeps_long: a reset at every event up to the sleep leaves nothing"
    report.check(asleep, lambda: everywhere(server, "sleeps_long", True, EVENTS_BEFORE_SLEEP))


def everywhere(server, script, reset, events_max=None):
    made = http_client.post_json(server.base_url, "/belljar/v1/containers", {}).json()["id"]
    last = events_max or len(events_of(server, script, made))
    before = containers(server)
    ids = []
    for count in range(last + 1):
        ids += hung_up_behind(server, script, made, count, reset)
        began = time.monotonic()
        outcome = after_conflict(server, made, {"language": "bash", "source": "echo free"}, began)
        equal(outcome["stdout"], "free\n", f"behind event {count}")
        took = time.monotonic() - began
        if took > FREE_S_MAX:
            raise AssertionError(f"behind event {count} the container was held for {took:.1f} s")
    equal(len(ids), last, "requests whose head was seen")
    settles(lambda: [one for one in ids if f"turn ended request_id={one} " not in server.log()], "turns that have not ended")
    settles(lambda: connections(server), "connections that the server holds")
    equal(containers(server), before, "containers")
    http_client.call(server.base_url, "DELETE", f"/belljar/v1/containers/{made}", http_client.api_headers())


def events_of(server, script, container):
    answer = http_client.stream(server.base_url, {**BODY, "container": container}, http_client.api_headers(belljar_script=script))
    equal(answer.status, 200, answer.text)
    return [name for name, _data in answer.events if name != "ping"]


def hung_up_behind(server, script, container, count, reset):
    """Asks, reads `count` events that are no pings, and is gone. The request's id, when the head came."""
    body = json.dumps({**BODY, "stream": True, "container": container}).encode()
    headers = "".join(f"{k}: {v}\r\n" for k, v in http_client.api_headers(belljar_script=script).items())
    head = f"POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    received = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(head.encode() + body)
        while events_in(received) < count:
            piece = connection.recv(65536)
            if not piece:
                raise AssertionError(f"the stream ended before event {count}: {received[-300:]!r}")
            received += piece
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    lines = received.decode("utf-8", "replace").split("\r\n")
    return [line.split(": ", 1)[1] for line in lines if line.lower().startswith("request-id: ")]


def events_in(received):
    whole = received.split(b"\n\n")[:-1]
    return sum(1 for event in whole if b"event: ping" not in event)


def connections(server):
    """States of the connections to the server's port that its side has not let go."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [row[3] for row in rows if int(row[1].split(":")[1], 16) == server.port and row[3] not in LET_GO]


def containers(server):
    answer = http_client.call(server.base_url, "GET", "/belljar/v1/containers?limit=100", http_client.api_headers())
    return {one["id"] for one in answer.json()["data"]}


def settles(left, what):
    """Waits until nothing is left."""
    began = time.monotonic()
    while found := left():
        if time.monotonic() - began > SETTLED_S_MAX:
            raise AssertionError(f"{what}, {SETTLED_S_MAX} s later: {found}")
        threading.Event().wait(0.1)
