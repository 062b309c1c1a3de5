"""A server that is asked to stop puts live containers on disk, says what it could not keep, and ends at once when told twice."""

import os
import subprocess
import threading
from pathlib import Path

from container_suite import cell, create, post, state, until
from harness import http_client, server
from harness.report import Skipped, equal, matches
from talk import Talk, outcome

# Of the data directory's disk, which leaves 16 MiB of every disk free: too little for one large container, enough for small ones.
DISK_MIB = 64
LARGE_MIB = 96
# Made at once, as a hole; longer to pack than a second signal takes to be sent.
HOLE_GIB = 4
MANY_LARGE = 4


def run(report, running):
    for check in CHECKS:
        report.check(check.__doc__, lambda check=check: check(running))


def started(running, **more):
    return server.Server(running.belljar, scripts=running.scripts, **more)


def write(base, container, text):
    equal(cell(base, container, "bash", f"echo {text} > /work/kept")["return_code"], 0, "a file is written")


def kept(base, container):
    equal(state(base, container), "checkpointed", "its state")
    return cell(base, container, "bash", "cat /work/kept")["stdout"]


def all_kept(own, count):
    matches(own.log(), rf"(?s).*containers were put on disk and will be there again.* kept={count}\b.*")


def idle(running):
    """containers that nobody uses come back with their files, and are told that variables are lost"""
    with started(running) as own:
        containers = [create(own.base_url) for _ in range(5)]
        for number, container in enumerate(containers):
            write(own.base_url, container, number)
            cell(own.base_url, container, "python", "x = 1")
        # One is on disk already, one is deleted: neither is asked for anything.
        equal(post(own.base_url, f"/belljar/v1/containers/{containers[3]}/checkpoint", {"put_away": True}).status, 200)
        http_client.call(own.base_url, "DELETE", f"/belljar/v1/containers/{containers[4]}", http_client.api_headers())
        equal(own.stop(), 0, "exit status")
        all_kept(own, 3)
        own.restart()
        equal([kept(own.base_url, one) for one in containers[:4]], ["0\n", "1\n", "2\n", "3\n"])
        equal(state(own.base_url, containers[4]), 404, "the deleted one")
        lost = cell(own.base_url, containers[0], "python", "print('x' in globals())")
        equal(lost["stdout"], "False\n", "its variables")
        matches(lost["stderr"], r"belljar: the Python interpreter was restarted: the container was on disk in the meantime, .*variables are lost\n")
        own.no_panic()


def cell_ends(running):
    """a cell under way ends first, and its files are kept as it left them"""
    with started(running) as own:
        found, waiting = under_way(own, "echo before > /work/kept; sleep 2; echo after >> /work/kept; echo told")
        equal(own.stop(), 0, "exit status")
        waiting.join()
        equal((found["outcome"], found["stdout"]), ("ended", "told\n"), "the cell")
        own.restart()
        equal(kept(own.base_url, found["container"]), "before\nafter\n")


def cell_too_long(running):
    """a cell that takes longer than a stop may is interrupted, and so is the one that waits behind it"""
    with started(running, serving={"shutdown_wait_s_max": 2}) as own:
        found, waiting = under_way(own, "echo before > /work/kept; sleep 600; echo after > /work/kept")
        behind = {}
        base, container = own.base_url, found["container"]
        second = threading.Thread(target=lambda: behind.update(cell(base, container, "bash", "sleep 600; echo behind > /work/kept")))
        before = sockets(own)
        second.start()
        until(lambda: sockets(own) > before, "the second is let in")
        equal(own.stop(), 0, "exit status")
        waiting.join()
        second.join()
        # The second may have come too late to get in line.
        equal((found["reason"], behind.get("reason", "requested")), ("requested", "requested"), "their ends")
        own.restart()
        equal(kept(own.base_url, found["container"]), "before\n")


def turn_too_long(running):
    """a turn that takes longer than a stop may lets go of its container"""
    with started(running, serving={"shutdown_wait_s_max": 2}) as own:
        talk = Talk(own.base_url, "stop_long_cell")
        container = create(own.base_url)
        talk.container = container
        asking = threading.Thread(target=lambda: quietly(talk.post))
        asking.start()
        until(lambda: state(own.base_url, container) == "leased", "the turn runs")
        equal(own.stop(), 0, "exit status")
        asking.join()
        own.restart()
        equal(kept(own.base_url, container), "before\n")


def code_waits(running):
    """code that waits for a client's tool is let go of, its files are kept, and its continuation is told"""
    with started(running) as own:
        talks = [Talk(own.base_url, "stop_waits") for _ in range(3)]
        for talk in talks:
            talk.answer(talk.ask(), lambda given: "once")
        equal(own.stop(), 0, "exit status")
        all_kept(own, 3)
        own.restart()
        for talk in talks:
            talk.base = own.base_url
            equal(state(own.base_url, talk.container), "checkpointed", "its state")
            told = outcome(talk.ask())
            equal((told["return_code"], told["stdout"]), (1, ""))
            matches(told["stderr"], r"belljar: the server was restarted while this code waited for results: the Python interpreter is lost .*\n")
            # The answers were never used.
            equal(cell(own.base_url, talk.container, "bash", "cat /work/kept")["stdout"], "before\n", "its file")


def crash(running):
    """a server that is killed has said goodbye to none: what was live is gone, what was on disk is there"""
    with started(running) as own:
        live, away = create(own.base_url), create(own.base_url)
        for container in (live, away):
            write(own.base_url, container, "mine")
        equal(post(own.base_url, f"/belljar/v1/containers/{away}/checkpoint", {"put_away": True}).status, 200)
        own.crash()
        equal(kept(own.base_url, away), "mine\n")
        answer = post(own.base_url, f"/belljar/v1/containers/{live}/cells", {"language": "bash", "source": "true"})
        equal((answer.status, answer.json()["error"]["message"]), (404, f"Container not found: {live}"), answer.text)


def gvisor(running):
    """containers of gVisor are kept too"""
    try:
        with started(running, sandbox={"isolation": "gvisor"}) as own:
            container = create(own.base_url)
            made = "mkdir -p /work/d && echo kept > /work/d/f && ln -s d/f /work/l && ln /work/d/f /work/h && chmod 750 /work/d && rm /etc/debian_version && chmod 000 /work/h"
            equal(cell(own.base_url, container, "bash", made)["return_code"], 0, "files are made")
            cell(own.base_url, container, "python", "x = 1")
            equal(own.stop(), 0, "exit status")
            all_kept(own, 1)
            own.restart()
            equal(state(own.base_url, container), "checkpointed", "its state")
            look = "stat -c '%a %h' /work/h /work/d; chmod 600 /work/h; cat /work/l; test -e /etc/debian_version; echo $?"
            equal(cell(own.base_url, container, "bash", look)["stdout"], "0 2\n750 2\nkept\n1\n", "its files")
            matches(cell(own.base_url, container, "python", "1")["stderr"], r".*variables are lost\n")
    except server.MachineCannot as why:
        raise Skipped(str(why)) from None


def full_disk(running):
    """on a disk that fills up what fits is kept, and the exit says what is not"""
    def small_disk(fresh):
        fresh.data_dir.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(fresh.data_dir)]
        ended = subprocess.run(command, capture_output=True, text=True)
        if ended.returncode != 0:
            raise Skipped(f"nothing can be mounted here: {ended.stderr.strip()}")
        mounted.append(fresh.data_dir)

    mounted = []
    try:
        with started(running, prepare=small_disk) as own:
            containers = [create(own.base_url) for _ in range(6)]
            for container in containers:
                write(own.base_url, container, "small")
            large = containers[2]
            cell(own.base_url, large, "bash", f"head -c {LARGE_MIB}M /dev/urandom > /work/large")
            equal(own.stop(), 1, "exit status")
            matches(own.log(), rf"(?s).*belljar: 1 of 6 live containers were not kept; their files are lost: {large}\n$")
            own.restart()
            containers.remove(large)
            equal([kept(own.base_url, one) for one in containers], ["small\n"] * 5)
            equal(state(own.base_url, large), 404, "the large one")
            own.stop()
    finally:
        for place in mounted:
            subprocess.run(["umount", str(place)], check=True)


def second_signal(running):
    """a second signal ends the server at once, and what was not kept by then is said"""
    with started(running) as own:
        containers = large_containers(own)
        own.process.terminate()
        until(lambda: "files of live containers are being put on disk" in own.log(), "it begins")
        own.process.terminate()
        equal(own.process.wait(10), 0, "exit status")
        matches(own.log(), rf"(?s).* of {MANY_LARGE} live containers were not kept; their files are lost: .*")
        own.restart()
        if all(state(own.base_url, one) == "checkpointed" for one in containers):
            raise AssertionError("it kept them all nevertheless")
        # What is there is whole.
        for container in containers:
            if state(own.base_url, container) == "checkpointed":
                seen = cell(own.base_url, container, "bash", "stat -c %s /work/large; cat /work/kept")
                equal(seen["stdout"], f"{HOLE_GIB << 30}\nlarge\n", container)


def time_up(running):
    """containers that cannot be kept in the time that a stop may take are said to be lost"""
    with started(running, serving={"shutdown_wait_s_max": 1}) as own:
        large_containers(own)
        equal(own.stop(), 1, "exit status")
        matches(own.log(), rf"(?s).*containers were still being put away when the time was up.*\d of {MANY_LARGE} live containers were not kept.*")


def large_containers(own):
    containers = [create(own.base_url) for _ in range(MANY_LARGE)]
    for container in containers:
        write(own.base_url, container, "large")
        equal(cell(own.base_url, container, "bash", f"truncate -s {HOLE_GIB}G /work/large")["return_code"], 0, "a large file")
    return containers


def under_way(own, source):
    """A cell that has begun, and the thread that waits for it."""
    base, container = own.base_url, create(own.base_url)
    found = {"container": container}
    waiting = threading.Thread(target=lambda: found.update(cell(base, container, "bash", source)))
    waiting.start()
    until(lambda: state(base, container) == "leased", "the cell runs")
    return found, waiting


def sockets(own):
    """How many sockets the server has."""
    held = 0
    for fd in Path(f"/proc/{own.process.pid}/fd").iterdir():
        try:
            held += os.readlink(fd).startswith("socket:")
        except FileNotFoundError:
            pass  # Closed since it was listed.
    return held


def quietly(action):
    try:
        action()
    except (OSError, AssertionError):
        pass


CHECKS = [idle, cell_ends, cell_too_long, turn_too_long, code_waits, crash, gvisor, full_disk, second_signal, time_up]
