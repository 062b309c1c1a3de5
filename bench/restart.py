"""How long a restart in place takes beside a stop and a start, with code waiting in so many containers: `python3 bench/restart.py PATH_OF_BELLJAR`."""

import json
import os
import platform
import signal
import statistics
import sys
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "e2e")]

from harness import http_client, server  # noqa: E402
from talk import Talk, outcome  # noqa: E402

WAITING = (0, 1, 32, 200)
RESTARTS = 5


def main():
    print(json.dumps({"kernel": platform.release(), "cores": os.cpu_count(), "load_average": os.getloadavg()[0], "root": os.geteuid() == 0}))
    for count in WAITING:
        with server.Server(sys.argv[1], scripts=TESTS / "e2e/scripts", sandbox={"containers_max": max(WAITING) + 1}) as own:
            print(json.dumps(measured(own, count)), flush=True)


def measured(own, count):
    talks = [Talk(own.base_url, "code_single") for _ in range(count)]
    for talk in talks:
        talk.answer(talk.ask(), lambda given: "mine")
    restarts = [timed(lambda: in_place(own)) for _ in range(RESTARTS)]
    resumed = [timed(lambda talk=talk: check(talk)) for talk in talks[:RESTARTS]]
    return {
        "waiting": count, "restart_ms": restarts, "restart_median_ms": statistics.median(restarts), "resume_ms": resumed,
        "stop_ms": timed(own.stop), "start_ms": timed(own._start),
    }


def in_place(own):
    """From the signal to the first answer of the next program."""
    before = own.starts()
    own.process.send_signal(signal.SIGHUP)
    while own.starts() == before:
        time.sleep(0.001)
    if http_client.call(own.base_url, "GET", "/healthz").status != 200:
        raise AssertionError("not healthy")


def check(talk):
    if outcome(talk.ask())["stdout"] != "got mine\n":
        raise AssertionError("the code did not go on")


def timed(action):
    began = time.monotonic()
    action()
    return round((time.monotonic() - began) * 1000)


if __name__ == "__main__":
    main()
