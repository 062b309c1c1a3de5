"""A server whose places are all taken: who gives way, and what clients that hang up leave behind."""

import json
import socket
import time

from harness import http_client, server
from harness.report import equal
from keys_suite import command

PLACES = 3
# An idle container gives way after five seconds.
ROOM_S_MAX = 30


def run(report, running):
    report.check("a server whose log cannot be written serves, and ends when asked", lambda: unheard(running))
    keys = {}

    def make_keys(fresh):
        for name in ("one", "two"):
            keys[name] = command(fresh, "create", "--workspace", name)["key"]

    try:
        with server.Server(running.belljar, sandbox={"containers_max": PLACES}, prepare=make_keys) as full:
            report.check("the longest idle of who holds the most gives way", lambda: gives_way(full.base_url, keys))
            report.check("who hangs up leaves no place taken", lambda: hang_ups(full, keys["one"]))
            report.check("the full server never panicked", full.no_panic)
    except RuntimeError as error:
        report.fail("starting a server with few places", error)


def create(base, key):
    return http_client.post_json(base, "/belljar/v1/containers", {}, http_client.api_headers(key=key))


def gives_way(base, keys):
    taken = [create(base, keys["one"]).json()["id"] for _ in range(PLACES)]
    refused = create(base, keys["two"])
    equal((refused.status, refused.json()["error"]["type"]), (429, "rate_limit_error"), "at once")
    equal(refused.headers["retry-after"], "5", "retry-after")
    # The first is used again: then the second is the longest idle.
    cell = {"language": "bash", "source": "true"}
    path = f"/belljar/v1/containers/{taken[0]}/cells"
    equal(http_client.post_json(base, path, cell, http_client.api_headers(key=keys["one"])).status, 200, "a cell")
    new = created_in_time(base, keys["two"])
    equal([status(base, keys["one"], one) for one in taken], [200, 404, 200], "the flooder's containers")
    equal(status(base, keys["two"], new), 200, "the newcomer's container")
    # Now 2 and 1: the flooder pays for its next one itself.
    created_in_time(base, keys["one"])
    equal(status(base, keys["two"], new), 200, "the newcomer's container, later")


def created_in_time(base, key):
    deadline = time.monotonic() + ROOM_S_MAX
    while True:
        answer = create(base, key)
        if answer.status == 200:
            return answer.json()["id"]
        equal(answer.status, 429, answer.text)
        if time.monotonic() > deadline:
            raise AssertionError(f"no room within {ROOM_S_MAX} s")
        time.sleep(0.2)


def status(base, key, container):
    return http_client.call(base, "GET", f"/belljar/v1/containers/{container}", http_client.api_headers(key=key)).status


def hang_ups(full, key):
    """Requests whose clients are gone before the container is there; each is somebody's all the same."""
    head = f"POST /belljar/v1/containers HTTP/1.1\r\nHost: localhost\r\nx-api-key: {key}\r\n"
    request = f"{head}content-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}".encode()
    for container in listed(full.base_url, key):
        http_client.call(full.base_url, "DELETE", f"/belljar/v1/containers/{container}", http_client.api_headers(key=key))
    for _ in range(4 * PLACES):
        with socket.create_connection(("127.0.0.1", full.port)) as client:
            client.sendall(request)
    created_in_time(full.base_url, key)
    full.healthy()


def listed(base, key):
    answer = http_client.call(base, "GET", "/belljar/v1/containers?limit=100", http_client.api_headers(key=key))
    equal(answer.status, 200, answer.text)
    return [one["id"] for one in json.loads(answer.body)["data"]]


def unheard(running):
    """Standard error is a full disk."""
    with server.Server(running.belljar, scripts=running.scripts, log="/dev/full") as mute:
        mute.healthy()
        equal(http_client.call(mute.base_url, "GET", "/v1/models", http_client.api_headers()).status, 200)
        equal(mute.stop(), 0, "exit status")
