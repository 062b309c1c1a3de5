"""Known differences from the hosted API, as data: `divergence/` at the root says why, the table here that each is still so.

Most pages name a test of another place, where the difference is a rule of its own; a page that has none there has its cases here.
"""

import json
import time
import threading
from pathlib import Path

from harness import http_client, server
from harness.report import equal, matches

TABLE = Path(__file__).resolve().parent / "divergence" / "cases.json"
LIFE_S = 1
# The server looks every thirty seconds for what has expired.
EXPIRED_S_MAX = 90


def run(report, running):
    defaults = json.loads(TABLE.read_text())["defaults"]
    try:
        with server.Server(running.belljar, scripts=running.scripts, sandbox={"container_life_s_max": LIFE_S}) as short:
            made = http_client.post_json(short.base_url, "/belljar/v1/containers", {}).json()["id"]
            play(report, running.base_url)  # Meanwhile it expires.
            report.check("an expired container is a 404, as one that never was", lambda: expired(short.base_url, defaults, made))
            report.check("the server with short lives never panicked", short.no_panic)
    except RuntimeError as error:
        report.fail("starting a server whose containers live for a second", error)


def play(report, base):
    document = json.loads(TABLE.read_text())
    for case in document["cases"]:
        report.check(f"{case['page']}: {case['name']}", lambda case=case: check(base, document["defaults"], case))


def check(base, defaults, case):
    answer = in_cell(base, case["cell"]) if "cell" in case else ask(base, defaults, case)
    equal(answer.status, case.get("status", 200), answer.text[:300])
    for pointer, expected in case["fields"].items():
        compare(at(answer.json(), pointer), expected, pointer)


def ask(base, defaults, case):
    headers = {**http_client.api_headers(belljar_script=case["script"]), **case.get("headers", {})}
    return http_client.post_json(base, "/v1/messages", {**defaults, **case.get("body", {})}, headers)


def in_cell(base, cell):
    """Runs the cell in a container of its own."""
    made = http_client.post_json(base, "/belljar/v1/containers", {}).json()["id"]
    try:
        return http_client.post_json(base, f"/belljar/v1/containers/{made}/cells", cell)
    finally:
        http_client.call(base, "DELETE", f"/belljar/v1/containers/{made}", http_client.api_headers())


class Absent:
    """What a pointer finds where there is nothing."""

    def __repr__(self):
        return "nothing"


ABSENT = Absent()


def at(document, pointer):
    """What a JSON pointer finds (RFC 6901, without its escapes)."""
    for key in pointer.split("/")[1:]:
        if isinstance(document, list):
            document = document[int(key)] if int(key) < len(document) else ABSENT
        else:
            document = document.get(key, ABSENT)
        if document is ABSENT:
            return ABSENT
    return document


def compare(actual, expected, pointer):
    if expected == {"absent": True}:
        equal(actual, ABSENT, pointer)
    elif isinstance(expected, dict):
        matches(actual, expected["matches"], pointer)
    else:
        equal(actual, expected, pointer)


def expired(base, defaults, made):
    """The container is used until it is gone: that moment is a 404, and nothing else."""
    body = {**defaults, "container": made}
    headers = http_client.api_headers(belljar_script="recall")
    began = time.monotonic()
    while (answer := http_client.post_json(base, "/v1/messages", body, headers)).status == 200:
        if time.monotonic() - began > EXPIRED_S_MAX:
            raise AssertionError(f"it lives on after {EXPIRED_S_MAX} s, made for {LIFE_S} s")
        threading.Event().wait(0.5)
    never = "container_011CVexampLe1111111111111"
    unknown = http_client.post_json(base, "/v1/messages", {**body, "container": never}, headers)
    for refused, named in ((answer, made), (unknown, never)):
        equal(refused.status, 404, refused.text)
        equal(refused.json()["error"], {"type": "not_found_error", "message": f"Container not found: {named}"})
