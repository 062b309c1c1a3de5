"""The attack suite: every case of `cases/` against a server of its own. `run.py --belljar PATH [--only WORD]`.

A case is data: what runs in a container, and exactly what must come of it. After each one the server must answer, the
host's canary must be as it was, and another container's secret must be there and unread.
"""

import argparse
import json
import os
import platform
import secrets
import socket
import sys
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from harness import http_client, report, server  # noqa: E402
from harness.report import Skipped, equal, matches  # noqa: E402

PRELUDE = (HERE / "prelude.py").read_text()
MIB = 1024 * 1024
LIMITS = {
    "cpus": 1.0, "memory_bytes_max": 384 * MIB, "disk_bytes_max": 96 * MIB, "processes_max": 64,
    "cell_wall_s_max": 30, "output_bytes_max": 65536,
}
CELL_FIELDS = ("outcome", "return_code", "stdout", "stderr", "reason")


class Range:
    """A server under attack, a canary on the host, and a container that keeps a secret."""

    def __init__(self, running):
        self.base = running.base_url
        self.running = running
        self.canary_token = f"canary-{secrets.token_hex(16)}"
        self.canary = running.directory / "canary.txt"
        self.canary.write_text(self.canary_token)
        self.secret = f"secret-{secrets.token_hex(16)}"
        self.neighbour = self.new_container()
        self.cell(self.neighbour, f"echo {self.secret} > /tmp/secret.txt")
        self.words = {
            "CANARY": str(self.canary), "PORT": str(running.port), "ABSTRACT": f"belljar-{secrets.token_hex(8)}",
            "OUTPUT_BYTES_MAX": str(LIMITS["output_bytes_max"]),
        }
        # None of these may ever come out of a container.
        self.forbidden = [self.canary_token, self.secret, running.environment["BELLJAR_ESCAPE_SECRET"]]
        self.forbidden += shadow_lines()

    def new_container(self):
        answer = http_client.post_json(self.base, "/belljar/v1/containers", {})
        equal(answer.status, 200, answer.text)
        return answer.json()["id"]

    def delete(self, container):
        path = f"/belljar/v1/containers/{container}"
        equal(http_client.call(self.base, "DELETE", path, http_client.api_headers()).status, 200, "deleting the container")
        equal(http_client.call(self.base, "GET", path, http_client.api_headers()).status, 404, "after its deletion")

    def cell(self, container, source, wall_s_max=None):
        body = {"language": "bash", "source": source}
        if wall_s_max:
            body["wall_s_max"] = wall_s_max
        answer = http_client.post_json(self.base, f"/belljar/v1/containers/{container}/cells", body)
        equal(answer.status, 200, answer.text)
        return answer.json()

    def unharmed(self):
        self.running.healthy()
        self.running.no_panic()
        equal(self.canary.read_text(), self.canary_token, "the host's canary")
        equal(self.cell(self.neighbour, "cat /tmp/secret.txt")["stdout"], f"{self.secret}\n", "the neighbour's secret")


def shadow_lines():
    """The host's password entries, where this user can read them."""
    try:
        lines = Path("/etc/shadow").read_text().splitlines()
    except PermissionError:
        return []
    # Locked accounts are the same on every Debian; only the day and a real hash tell hosts apart.
    return [line for line in lines if line.split(":")[1] not in ("", "*", "!", "!*")]


def run_case(place, case):
    wanted = case.get("architecture", platform.machine())
    if wanted != platform.machine():
        raise Skipped(f"for {wanted} only", kernel=True)
    container = place.new_container()
    try:
        with abstract_listener(place.words["ABSTRACT"]):
            for step in [case, *case.get("then", [])]:
                run_step(place, container, step)
    finally:
        place.delete(container)
        place.unharmed()


def run_step(place, container, step):
    # What earlier steps left running in the attacker's container may reach for the neighbour.
    where = {"own": container, "neighbour": place.neighbour}[step.get("where", "own")]
    outcome = place.cell(where, source_of(place, step), step.get("wall_s_max"))
    for token in place.forbidden:
        if token in outcome["stdout"] or token in outcome["stderr"]:
            raise AssertionError("something of the host or of the neighbour came out")
    expect = {"outcome": "ended", "reason": None, **step["expect"]}
    # What was killed, for whatever reason, ended by SIGKILL.
    expect.setdefault("return_code", 0 if expect["outcome"] == "ended" else 128 + 9)
    for field in CELL_FIELDS:
        if field in expect:
            compare(outcome[field], filled(place, expect[field]), field, outcome)
    if "files" in expect:
        equal(sorted(entry["filename"] for entry in outcome["files"]), expect["files"], "captured files")
    if "stdout_bytes_kept" in expect:
        equal(len(outcome["stdout"].encode()), int(filled(place, expect["stdout_bytes_kept"])), "bytes kept of stdout")
    if "wall_ms_max" in expect and outcome["wall_ms"] > expect["wall_ms_max"]:
        raise AssertionError(f"it took {outcome['wall_ms']} ms, at most {expect['wall_ms_max']} were expected")


def compare(actual, expected, field, outcome):
    try:
        if isinstance(expected, dict):
            matches(actual, expected["pattern"], field)
        elif isinstance(expected, list):
            equal(actual.splitlines(), expected, field)
        else:
            equal(actual, expected, field)
    except AssertionError as error:
        shown = {name: str(outcome.get(name))[:200] for name in CELL_FIELDS if name != field}
        raise AssertionError(f"{error}; with {json.dumps(shown)[:600]}") from None


def source_of(place, step):
    if "python" in step:
        source = "\n".join(step["python"]) if isinstance(step["python"], list) else step["python"]
        return f"python3 - <<'END_OF_CASE'\n{PRELUDE}\n{filled(place, source)}\nEND_OF_CASE\n"
    source = "\n".join(step["bash"]) if isinstance(step["bash"], list) else step["bash"]
    return filled(place, source)


def filled(place, value):
    """Puts `@CANARY@` and the like in."""
    if isinstance(value, str):
        for word, text in place.words.items():
            value = value.replace(f"@{word}@", text)
    elif isinstance(value, list):
        value = [filled(place, item) for item in value]
    return value


@contextmanager
def abstract_listener(name):
    """A socket of the host without a path, which only a network namespace hides."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + name)
        listener.listen(1)
        yield


def load_cases(only):
    for table in sorted((HERE / "cases").glob("*.json")):
        for case in json.loads(table.read_text()):
            if only in case["name"]:
                yield table.stem, case


def run(arguments):
    total = report.Report("escape")
    server.build_image(arguments.belljar)
    environment = {"BELLJAR_ESCAPE_SECRET": f"planted-{secrets.token_hex(16)}"}
    with server.Server(arguments.belljar, sandbox=LIMITS, environment=environment) as running:
        place = Range(running)
        for table, case in load_cases(arguments.only):
            total.check(f"{table}: {case['name']}", lambda case=case: run_case(place, case))
        total.check("the server ends when asked", lambda: equal(running.stop(), 0, "exit status"))
        total.check("nothing is left mounted", lambda: nothing_mounted(running.directory))
        total.check("no process is left", lambda: no_process(running.environment["BELLJAR_ESCAPE_SECRET"]))
    return total


def nothing_mounted(directory):
    left = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(directory) in line]
    equal(left, [], "mounts below the data directory")


def no_process(marker):
    """No process that descends from the server, whose environment carries the marker, is alive."""
    left = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if marker.encode() in (entry / "environ").read_bytes():
                    left.append((entry / "comm").read_text().strip())
            except OSError:
                continue  # Gone meanwhile, or another user's.
    equal(left, [], "processes of the server")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--belljar", required=True, help="the server's binary")
    parser.add_argument("--only", default="", help="only cases whose name contains this")
    arguments = parser.parse_args()
    try:
        total = run(arguments)
    except (RuntimeError, AssertionError) as error:
        total = report.Report("escape")
        total.fail("setting up", error)
    except server.MachineCannot as why:
        total = report.Report("escape")
        total.skip("all of it", why)
    report.exit_with(total)


if __name__ == "__main__":
    main()
