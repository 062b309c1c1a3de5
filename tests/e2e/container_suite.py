"""Our own endpoints for containers: the interpreter, the interrupt, and the life on disk."""

import json
import threading
import time

from harness import http_client, server
from harness.report import equal

WAIT_S_MAX = 60


def run(report, running):
    base = running.base_url
    report.check("an interpreter remembers, and bash beside it", lambda: remembers(base))
    report.check("a traceback names the cell's file", lambda: traceback(base))
    report.check("an interpreter that dies is said, and replaced", lambda: dies(base))
    report.check("a cell is interrupted as by Ctrl-C", lambda: interrupted(base))
    report.check("nothing to interrupt", lambda: nothing_to_interrupt(base))
    report.check("a checkpoint and back", lambda: put_away_and_back(base))
    report.check("what is in use is not put away", lambda: busy(base))
    report.check("a checkpoint goes with its container", lambda: deleted(base))
    report.check("of containers that are not there", lambda: unknown(base))
    try:
        with server.Server(running.belljar, sandbox={"container_idle_s_max": 1}) as idle:
            report.check("an idle container goes to disk by itself", lambda: idles(idle))
            report.check("and outlives the server there", lambda: outlives(idle))
            report.check("that server never panicked", idle.no_panic)
    except RuntimeError as error:
        report.fail("starting a server with restless containers", error)


def create(base):
    answer = post(base, "/belljar/v1/containers", {})
    equal(answer.status, 200, answer.text)
    return answer.json()["id"]


def post(base, path, body):
    return http_client.post_json(base, path, body)


def cell(base, container, language, source, **more):
    answer = post(base, f"/belljar/v1/containers/{container}/cells", {"language": language, "source": source, **more})
    equal(answer.status, 200, answer.text)
    return answer.json()


def state(base, container):
    answer = http_client.call(base, "GET", f"/belljar/v1/containers/{container}", http_client.api_headers())
    return answer.json()["state"] if answer.status == 200 else answer.status


def remembers(base):
    container = create(base)
    equal(cell(base, container, "python", "import asyncio\nx = 6\nawait asyncio.sleep(0)")["return_code"], 0, "the first")
    equal(cell(base, container, "bash", "echo 7 > /tmp/seven")["return_code"], 0, "bash")
    second = cell(base, container, "python", "print(x * int(open('/tmp/seven').read()))")
    equal((second["stdout"], second["stderr"], second["outcome"]), ("42\n", "", "ended"), "the second")


def traceback(base):
    failed = cell(base, create(base), "python", "print('so far')\n1 / 0\n")
    equal((failed["stdout"], failed["return_code"], failed["outcome"]), ("so far\n", 1, "ended"), "its end")
    lines = failed["stderr"].splitlines()
    equal(lines[0], "Traceback (most recent call last):", "the first line")
    if not (lines[1].startswith('  File "/tmp/srvtoolu_') and lines[1].endswith('/cell.py", line 2, in <module>')):
        raise AssertionError(f"the frame is {lines[1]!r}")
    equal(lines[-1], "ZeroDivisionError: division by zero", "the last line")


def dies(base):
    container = create(base)
    cell(base, container, "python", "x = 1\nopen('/tmp/kept', 'w').write('kept')")
    dead = cell(base, container, "python", "import os\nos._exit(0)")
    equal((dead["outcome"], dead["return_code"]), ("crashed", 1), "its end")
    after = cell(base, container, "python", "print(open('/tmp/kept').read(), 'x' in globals())")
    equal((after["stdout"], after["return_code"]), ("kept False\n", 0), "the next cell")


def interrupted(base):
    container = create(base)
    cell(base, container, "python", "x = 1")
    path = f"/belljar/v1/containers/{container}"
    source = "open('/tmp/running', 'w').close()\nimport time\ntime.sleep(60)"
    found = {}
    waiting = threading.Thread(target=lambda: found.update(cell(base, container, "python", source)))
    waiting.start()
    try:
        until(lambda: state(base, container) == "leased", "the cell runs")
        until(lambda: post(base, f"{path}/interrupt", {}).json()["interrupted"] == "cell", "the interrupt")
    finally:
        waiting.join(WAIT_S_MAX)
    equal((found["outcome"], found["reason"]), ("killed", "requested"), "its end")
    if found["return_code"] == 0:
        raise AssertionError("an interrupted cell is no success")
    equal(cell(base, container, "python", "print(x)")["stdout"], "1\n", "the interpreter lives")


def nothing_to_interrupt(base):
    container = create(base)
    answer = post(base, f"/belljar/v1/containers/{container}/interrupt", {})
    equal((answer.status, answer.json()), (200, {"id": container, "interrupted": "nothing"}), "the answer")


def put_away_and_back(base):
    container = create(base)
    made = "mkdir -p /work/d && echo kept > /work/d/f && ln -s d/f /work/l && chmod 750 /work/d && rm /etc/debian_version"
    equal(cell(base, container, "bash", made)["return_code"], 0, "files are made")
    cell(base, container, "python", "x = 1")
    kept = post(base, f"/belljar/v1/containers/{container}/checkpoint", {"put_away": True})
    equal((kept.status, kept.json()["state"]), (200, "checkpointed"), kept.text)
    equal(state(base, container), "checkpointed", "its state")
    again = post(base, f"/belljar/v1/containers/{container}/checkpoint", {"put_away": True})
    equal(again.json(), kept.json(), "once more")
    seen = cell(base, container, "bash", "cat /work/l; stat -c %a /work/d; test -e /etc/debian_version; echo $?")
    equal(seen["stdout"], "kept\n750\n1\n", "its files")
    equal(state(base, container), "ready", "its state afterwards")
    lost = cell(base, container, "python", "print('x' in globals())")
    equal(lost["stdout"], "False\n", "its variables")
    equal("variables are lost" in lost["stderr"], True, "which is said")
    equal(post(base, f"/belljar/v1/containers/{container}/checkpoint", {"put_away": True}).status, 200, "away again")
    back = post(base, f"/belljar/v1/containers/{container}/restore", {})
    equal((back.status, back.json()["state"]), (200, "ready"), back.text)


def busy(base):
    container = create(base)
    found = {}
    waiting = threading.Thread(target=lambda: found.update(cell(base, container, "bash", "sleep 3; echo done")))
    waiting.start()
    until(lambda: state(base, container) == "leased", "the cell runs")
    refused = post(base, f"/belljar/v1/containers/{container}/checkpoint", {"put_away": True})
    waiting.join(WAIT_S_MAX)
    equal((refused.status, refused.headers["x-should-retry"]), (409, "false"), refused.text)
    equal(found["stdout"], "done\n", "the cell")


def deleted(base):
    container = create(base)
    post(base, f"/belljar/v1/containers/{container}/checkpoint", {"put_away": True})
    path = f"/belljar/v1/containers/{container}"
    equal(http_client.call(base, "DELETE", path, http_client.api_headers()).status, 200, "its deletion")
    equal(state(base, container), 404, "afterwards")


def unknown(base):
    for verb in ("checkpoint", "restore", "interrupt"):
        answer = post(base, f"/belljar/v1/containers/container_01ZZZZZZZZZZZZZZZZZZZZZZ/{verb}", {})
        equal((answer.status, answer.json()["error"]["type"]), (404, "not_found_error"), verb)


def idles(idle):
    container = create(idle.base_url)
    cell(idle.base_url, container, "bash", "echo mine > /work/mine")
    until(lambda: state(idle.base_url, container) == "checkpointed", "it goes to disk")
    equal(cell(idle.base_url, container, "bash", "cat /work/mine")["stdout"], "mine\n", "its file")
    idle.container = container


def outlives(idle):
    until(lambda: state(idle.base_url, idle.container) == "checkpointed", "it goes to disk")
    idle.restart()
    equal(state(idle.base_url, idle.container), "checkpointed", "its state")
    equal(cell(idle.base_url, idle.container, "bash", "cat /work/mine")["stdout"], "mine\n", "its file")


def until(done, what):
    deadline = time.monotonic() + WAIT_S_MAX
    while not done():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {WAIT_S_MAX} s: {what}")
        time.sleep(0.05)
