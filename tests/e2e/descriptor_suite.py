"""What clients that hang up leave open: after them, the server has the descriptors that it had before, each by each.

A server of its own, with a pool and without. Everything is done once first, so that what is opened once and kept is there; then
clients are gone behind every event of turns, within requests, uploads and cells, many times over. When the server is quiet
(no turn, no connection, no container) its `/proc/PID/fd` is held against what it was.
"""

import json
import os
import re
import socket
import struct
import threading
from collections import Counter

from harness import http_client, server
from harness.report import equal
from hang_up_suite import connections, containers, events_in, settles
from stream_suite import BODY, TOOL
from talk import CODE, LOOKUP

ROUNDS = 3
# Containers are pooled with an interpreter and without.
KINDS = 2
# Turns, each with what it needs and the events behind which a client is gone.
TURNS = (
    ("bash", [TOOL], 12), ("edit", [TOOL], 8), ("generate", [TOOL], 8), ("sleeps_long", [TOOL], 5), ("mixed", [TOOL, LOOKUP], 6),
    ("code_single", [CODE, LOOKUP], 10), ("code_gather", [CODE, LOOKUP], 12), ("fault_midstream", [TOOL], 4),
)


def run(report, running):
    for pool in (0, 2):
        name = f"with {pool} containers ahead"
        try:
            sandbox = {"pool_containers": pool}
            with server.Server(running.belljar, scripts=running.scripts, sandbox=sandbox) as own:
                report.check(f"{name}: clients that hang up leave no descriptor open", lambda own=own, pool=pool: nothing_left(own, pool))
                report.check(f"{name}: it never panicked", own.no_panic)
        except RuntimeError as error:
            report.fail(name, error)


def nothing_left(own, pool):
    everything(own)
    quiet(own, pool)
    before = descriptors(own)
    for _round in range(ROUNDS):
        everything(own)
        # Each round: some hundred containers are left by those who were gone, and a server has places for 256.
        quiet(own, pool)
    settles(lambda: beyond(own, before), "descriptors that were not open before")


def everything(own):
    """Each way to be gone, once at each place."""
    for script, tools, events_max in TURNS:
        made = container(own)
        for count in range(events_max + 1):
            for reset in (False, True):
                # Code that waits for its client keeps its container.
                named = made if reset and LOOKUP not in tools else None
                turn = {**BODY, "tools": tools, "stream": True, "container": named}
                asked = request("POST", "/v1/messages", json.dumps(turn).encode(), belljar_script=script)
                gone_behind(own, asked, count, reset)
        http_client.call(own.base_url, "DELETE", f"/belljar/v1/containers/{made}", http_client.api_headers())
    plain = request("POST", "/v1/messages", json.dumps({**BODY, "stream": False}).encode(), belljar_script="bash")
    content_type, body = http_client.multipart([{"name": "file", "filename": "a.bin", "content_type": "a/b", "data": b"x" * 300_000}])
    upload = request("POST", "/v1/files", body, content_type=content_type)
    for whole in (plain, upload):
        for share in (0, 0.01, 0.5, 0.99, 1):
            for reset in (False, True):
                gone_behind(own, whole[: int(len(whole) * share)], 0, reset)
    cells(own)


def cells(own):
    """Cells of the endpoint of our own, told as events, and files that are on their way in or out."""
    made = container(own)
    path = f"/belljar/v1/containers/{made}"
    for language in ("bash", "python"):
        source = "echo one; sleep 0.1; echo two" if language == "bash" else "print('one', flush=True)\nprint('two')"
        cell = json.dumps({"language": language, "source": source}).encode()
        for count in (0, 1, 2):
            for reset in (False, True):
                gone_behind(own, request("POST", f"{path}/cells", cell, accept="text/event-stream"), count, reset)
    put = request("PUT", f"{path}/files/a.bin", b"x" * 300_000)
    for share in (0.5, 1):
        gone_behind(own, put[: int(len(put) * share)], 0, False)
    gone_behind(own, request("GET", f"{path}/files/a.bin", b""), 0, True)


def container(own):
    answer = http_client.post_json(own.base_url, "/belljar/v1/containers", {})
    equal(answer.status, 200, answer.body)
    return answer.json()["id"]


def request(method, path, body, **more):
    headers = "".join(f"{key}: {value}\r\n" for key, value in http_client.api_headers(**more).items())
    return f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def gone_behind(own, sent, count, reset):
    """Sends, reads `count` events that are no pings or all that come, and is gone."""
    with socket.create_connection(("127.0.0.1", own.port), timeout=60) as connection:
        connection.sendall(sent)
        received = b""
        while events_in(received) < count:
            piece = connection.recv(65536)
            if not piece:
                break
            received += piece
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def quiet(own, pool):
    """Waits until no turn and no connection is left, then ends every container, and waits until the pool is full again."""
    settles(lambda: ready(own)["turns"], "turns")
    settles(lambda: connections(own), "connections")
    settles(lambda: ended(own), "containers")
    settles(lambda: ready(own)["turns"], "turns")
    settles(lambda: pool * KINDS - ready(own)["pooled"], "places in the pool")
    settles(lambda: connections(own), "connections")


def ended(own):
    """The containers that were there; each is told to end."""
    found = containers(own)
    for container in found:
        http_client.call(own.base_url, "DELETE", f"/belljar/v1/containers/{container}", http_client.api_headers())
    return found


def ready(own):
    return http_client.call(own.base_url, "GET", "/readyz").json()


def descriptors(own):
    """What is open, how often. Numbers of pipes, sockets and processes do not count, nor do names of the pool's containers: one
    that was taken is followed by one of another name."""
    found = Counter()
    folder = f"/proc/{own.process.pid}/fd"
    for name in os.listdir(folder):
        try:
            found[re.sub(r"pooled_[^/]+|\d+", "N", os.readlink(f"{folder}/{name}"))] += 1
        except FileNotFoundError:
            pass
    return found


def beyond(own, before):
    return dict(descriptors(own) - before)
