"""A server that restarts in place (SIGHUP) becomes the program and the configuration that stand on disk, and live containers go on."""

import os
import shutil
import signal
import subprocess
import threading
from pathlib import Path

from container_suite import cell, create, post, state, until
from harness import http_client, server
from harness.report import Skipped, equal, matches
from stop_suite import kept, started, under_way, write
from talk import Talk, calls, outcome


def run(report, running):
    for check in CHECKS:
        report.check(check.__doc__, lambda check=check: check(running))


def interpreter(running):
    """variables, processes and files are there afterwards, and nothing is said to be lost"""
    with started(running) as own:
        pid, container = own.process.pid, create(own.base_url)
        write(own.base_url, container, "mine")
        cell(own.base_url, container, "python", "x = [1]; import threading, time")
        count = "def count():\n    while True:\n        x[0] += 1\n        time.sleep(0.01)\nthreading.Thread(target=count, daemon=True).start()"
        cell(own.base_url, container, "python", count)
        cell(own.base_url, container, "bash", "sleep 1000 > /dev/null 2>&1 & echo $! > /work/sleeper")
        for _ in range(3):
            own.restart_in_place()
        equal(own.process.pid, pid)
        found = cell(own.base_url, container, "python", "a = x[0]\nwhile x[0] == a:\n    time.sleep(0.01)\nprint(x[0] > 1)")
        equal((found["stdout"], found["stderr"]), ("True\n", ""))
        look = "cat /work/kept; kill -0 $(cat /work/sleeper) && echo runs"
        equal(cell(own.base_url, container, "bash", look)["stdout"], "mine\nruns\n")
        own.no_panic()
        equal(own.stop(), 0, "exit status")
        own.restart()
        equal(kept(own.base_url, container), "mine\n")


def code_waits(running):
    """code that waits for a client's tool goes on, restart after restart, and the model is told of none"""
    with started(running) as own:
        loop, gather, bash = Talk(own.base_url, "code_loop"), Talk(own.base_url, "code_gather"), Talk(own.base_url, "bash_calls")
        replies = [talk.ask() for talk in (loop, gather, bash)]
        restarts = 0
        while replies[0]["stop_reason"] == "tool_use":
            if restarts < 3:
                own.restart_in_place()
                restarts += 1
            loop.answer(replies[0], lambda given: given["key"])
            replies[0] = loop.ask()
        equal(outcome(replies[0])["stdout"], "190\n")
        equal(len(calls(replies[1])), 8)
        gather.answer(replies[1], lambda given: given["key"])
        equal(outcome(gather.ask())["stdout"], "0,1,2,3,4,5,6,7\n")
        bash.answer(replies[2], lambda given: "said " + given["key"])
        told = bash.ask()["content"][0]["content"]
        equal((told["return_code"], told["stdout"]), (0, "SAID A"))
        own.no_panic()


def lost_caller(running):
    """a client that has lost the call of the code goes on, too"""
    with started(running) as own:
        talk = Talk(own.base_url, "code_single")
        reply = talk.ask()
        own.restart_in_place()
        talk.messages[-1]["content"] = [{key: value for key, value in block.items() if key != "caller"} for block in calls(reply)]
        talk.answer(reply, lambda given: "mine")
        equal(outcome(talk.ask())["stdout"], "got mine\n")


def other_results(running):
    """what the code waits for is held to as before, and its results are used once"""
    with started(running) as own:
        talk = Talk(own.base_url, "code_gather")
        reply = talk.ask()
        talk.answer(reply, lambda given: given["key"])
        whole = talk.messages
        own.restart_in_place()
        talk.messages = whole[:-1] + [{"role": "user", "content": whole[-1]["content"][:-1]}]
        equal(talk.post().status, 400)
        talk.messages = whole
        equal(outcome(talk.ask())["stdout"], "0,1,2,3,4,5,6,7\n")
        own.restart_in_place()
        talk.messages = whole
        answer = talk.post()
        equal(answer.status, 400, answer.text)
        matches(answer.json()["error"]["message"], r"`server_tool_use` srvtoolu_\w+ does not wait for .*")


def interrupt(running):
    """code that waits can be interrupted by whoever wants it to end"""
    with started(running) as own:
        talk = Talk(own.base_url, "code_single")
        reply = talk.ask()
        own.restart_in_place()
        equal(post(own.base_url, f"/belljar/v1/containers/{talk.container}/interrupt", {}).json()["interrupted"], "cell")
        talk.answer(reply, lambda given: "late")
        equal(outcome(talk.ask())["return_code"] == 0, False)


def cell_ends(running):
    """a cell under way ends first, and its variables are there"""
    with started(running) as own:
        container, found = create(own.base_url), {}
        source = "import time\nx = 1\ntime.sleep(2)\nprint('told')"
        asking = threading.Thread(target=lambda: found.update(cell(own.base_url, container, "python", source)))
        asking.start()
        until(lambda: state(own.base_url, container) == "leased", "the cell runs")
        own.restart_in_place()
        asking.join()
        equal((found["outcome"], found["stdout"]), ("ended", "told\n"))
        equal(cell(own.base_url, container, "python", "print(x)")["stdout"], "1\n")


def cell_too_long(running):
    """a cell that takes longer than a restart may is interrupted, and its container's files are kept"""
    with started(running, serving={"shutdown_wait_s_max": 2}) as own:
        other = create(own.base_url)
        cell(own.base_url, other, "python", "x = 1")
        found, waiting = under_way(own, "echo before > /work/kept; sleep 600; echo after > /work/kept")
        own.restart_in_place()
        waiting.join()
        equal(found["reason"], "requested")
        equal(kept(own.base_url, found["container"]), "before\n")
        equal(cell(own.base_url, other, "python", "print(x)")["stdout"], "1\n")


def nobody_refused(running):
    """whoever connects meanwhile waits and is answered"""
    with started(running) as own:
        refused, asked, over = [], [0], threading.Event()

        def asks():
            while not over.is_set():
                try:
                    equal(http_client.call(own.base_url, "GET", "/healthz").status, 200)
                    asked[0] += 1
                except (OSError, AssertionError) as error:
                    refused.append(repr(error))

        asking = threading.Thread(target=asks)
        asking.start()
        for _ in range(3):
            own.restart_in_place()
        over.set()
        asking.join()
        equal(refused, [], f"of {asked[0]}")


def bad_configuration(running):
    """a configuration that is wrong is said, and the server serves on as before; a good one is in force"""
    with started(running) as own:
        talk = Talk(own.base_url, "code_single")
        reply = talk.ask()
        own.configure(sandbox={"nonsense": 1})
        own.process.send_signal(signal.SIGHUP)
        until(lambda: "not restarted, and serving on as before" in own.log(), "it is said")
        matches(own.log(), r"(?s).*not restarted, and serving on as before: belljar: .*nonsense.*")
        equal(own.starts(), 1)
        own.tables["sandbox"].clear()
        own.configure(sandbox={"containers_max": 1})
        own.restart_in_place()
        talk.answer(reply, lambda given: "mine")
        equal(outcome(talk.ask())["stdout"], "got mine\n")
        # There is one already, just used: no room for another.
        equal(post(own.base_url, "/belljar/v1/containers", {}).status, 429)


def twice_at_once(running):
    """a second signal that comes while it restarts is no harm"""
    with started(running) as own:
        container = create(own.base_url)
        cell(own.base_url, container, "python", "x = 1")
        for _ in range(20):
            own.process.send_signal(signal.SIGHUP)
        own.serves_again(2)
        for _ in range(20):
            own.process.send_signal(signal.SIGHUP)
        own.serves_again(3)
        equal(cell(own.base_url, container, "python", "print(x)")["stdout"], "1\n")


def nothing_left(running):
    """however often it restarts, it has no more processes, descriptors and cgroups than before"""
    with started(running, sandbox={"pool_containers": 1}) as own:
        containers = [create(own.base_url) for _ in range(2)]
        for container in containers:
            cell(own.base_url, container, "python", "x = 1")
        own.restart_in_place()
        before = settled(own)
        for _ in range(4):
            own.restart_in_place()
        after = settled(own)
        equal(after, before)
        for container in containers:
            equal(cell(own.base_url, container, "python", "print(x)")["stdout"], "1\n")
            http_client.call(own.base_url, "DELETE", f"/belljar/v1/containers/{container}", http_client.api_headers())
        equal(zombies(own.process.pid), 0)


def settled(own):
    """Children and descriptors, when the pool is full again and the zygotes are warm."""
    seen = []

    def same():
        pid = own.process.pid
        seen.append((len(children(pid)), zombies(pid), len(os.listdir(f"/proc/{pid}/fd"))))
        quiet = len(seen) > 40 and len(set(seen[-40:])) == 1
        # One for bash and one with an interpreter. Asked last: the question has a descriptor of its own.
        return quiet and http_client.call(own.base_url, "GET", "/readyz").json()["pooled"] == 2

    until(same, "nothing changes any more")
    return seen[-1]


def children(pid):
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += (task / "children").read_text().split()
    return found


def zombies(pid):
    states = [Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[0] for child in children(pid)]
    return states.count("Z")


def another_program(running):
    """a program that cannot go on with them finds live containers on disk, and serves on the same socket"""
    with started(running) as first:
        found = subprocess.run([first.belljar, "serve", "--check", "--config", first.directory / "belljar.toml"], capture_output=True, text=True)
        equal(found.returncode, 0, found.stderr)
        matches(found.stdout, r"handover [\d.]+\nimage \S+\n$")
        image = found.stdout.splitlines()[1]
    directory = Path(first.belljar).parent / "restart-suite"
    directory.mkdir(exist_ok=True)
    program = directory / f"belljar-{os.getpid()}"
    try:
        shutil.copy(first.belljar, program)
        with server.Server(program, scripts=running.scripts) as own:
            talk, container = Talk(own.base_url, "code_single"), create(own.base_url)
            reply = talk.ask()
            write(own.base_url, container, "mine")
            program.unlink()
            program.write_text(
                f'#!/bin/sh\nfor last; do :; done\nif [ "$last" = --check ]; then printf "handover 0.0.0.0\\n{image}\\n"; exit; fi\n'
                f'exec {running.belljar} "$@"\n'
            )
            program.chmod(0o755)
            own.restart_in_place()
            matches(own.log(), r"(?s).*live containers cannot go on and are put on disk.*")
            equal(kept(own.base_url, container), "mine\n")
            talk.answer(reply, lambda given: "late")
            equal(outcome(talk.ask())["return_code"], 1)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def gvisor(running):
    """code that waits in gVisor goes on, too"""
    try:
        with started(running, sandbox={"isolation": "gvisor"}) as own:
            talk = Talk(own.base_url, "code_gather")
            reply = talk.ask()
            own.restart_in_place()
            talk.answer(reply, lambda given: given["key"])
            equal(outcome(talk.ask())["stdout"], "0,1,2,3,4,5,6,7\n")
    except server.MachineCannot as why:
        raise Skipped(str(why)) from None


CHECKS = [
    interpreter, code_waits, lost_caller, other_results, interrupt, cell_ends, cell_too_long, nobody_refused, bad_configuration,
    twice_at_once, nothing_left, another_program, gvisor,
]
