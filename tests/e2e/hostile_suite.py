"""What hostile code in a container looks like over HTTP: told as it is, and the server and the neighbours go on.

Whether it is held inside is `belljar attack`'s to say; here are a few of its cases, through the whole server.
"""

import os
import secrets
from pathlib import Path

from harness import http_client, server
from harness.report import equal, matches

MIB = 1024 * 1024
LIMITS = {
    "cpus": 1.0, "memory_bytes_max": 384 * MIB, "disk_bytes_max": 96 * MIB, "processes_max": 64,
    "cell_wall_s_max": 30, "output_bytes_max": 65536,
}
VARIABLE = "BELLJAR_E2E_SECRET"
KILLED = {"outcome": "killed", "reason": "memory", "return_code": 137}
TIMED_OUT = {"outcome": "timed_out", "reason": "time", "return_code": 137}

# (name, bash, wall time in seconds, what is told). A value is compared whole; a `re:` one must match whole.
CASES = [
    ("the host's file", "cat @CANARY@", 30, {"return_code": 1, "stdout": "", "stderr": "cat: @CANARY@: No such file or directory\n"}),
    ("the server's environment", f"cat /proc/[0-9]*/environ | tr '\\0' '\\n' | grep -c '[{VARIABLE[0]}]{VARIABLE[1:]}'", 30, {"return_code": 1, "stdout": "0\n"}),
    ("the server's port", "exec 3<>/dev/tcp/127.0.0.1/@PORT@", 30, {"return_code": 1, "stderr": "re:bash: .*Address family not supported by protocol\n.*"}),
    ("killing everything", "kill -9 -1; kill -9 1; echo alive", 30, {"stdout": "alive\n"}),
    ("fork bomb", "bomb() { bomb | bomb & }; bomb 2>/dev/null; sleep 60", 3, TIMED_OUT),
    ("memory hog", "echo begun; exec python3 -c 'x = []\nwhile True: x.append(bytearray(8 << 20))'", 30, {**KILLED, "stdout": "begun\n", "stderr": "belljar: killed: memory limit of 402653184 bytes reached\n"}),
    ("disk fill", "dd if=/dev/zero of=/tmp/fill bs=1M", 30, {"return_code": 1, "reason": "disk", "stderr": "re:dd: error writing '/tmp/fill': No space left on device\n.*"}),
    ("endless output", "yes", 2, {**TIMED_OUT, "stdout": "re:(y\n){32768}"}),
    ("bytes that are no text", "printf '\\377\\000event: x\\n\\ndata: {}\\n\\n'", 30, {"stdout": "\ufffd\0event: x\n\ndata: {}\n\n"}),
    ("links and pipes among the outputs", "cd $OUTPUT_DIR; echo real > real.txt; ln -s @CANARY@ link; mkfifo pipe; ln -s loop loop", 30, {"files": ["real.txt"]}),
    ("a spin that ignores signals", "exec python3 -c 'import signal\nfor n in (1, 2, 3, 15): signal.signal(n, signal.SIG_IGN)\nwhile True: pass'", 2, TIMED_OUT),
]


def run(report, running):
    token = f"planted-{secrets.token_hex(16)}"
    try:
        with server.Server(running.belljar, sandbox=LIMITS, environment={VARIABLE: token}) as attacked:
            place = Place(attacked, token)
            for name, source, wall_s_max, expected in CASES:
                report.check(name, lambda: place.case(source, wall_s_max, expected))
            report.check("the attacked server ends when asked", lambda: equal(attacked.stop(), 0, "exit status"))
            report.check("nothing is left mounted", lambda: nothing_mounted(attacked.directory))
            report.check("no process is left", lambda: no_process(token))
    except (RuntimeError, AssertionError) as error:
        report.fail("starting a server to attack", error)


class Place:
    """A server under attack, a canary beside it, and a container that keeps a secret."""

    def __init__(self, attacked, token):
        self.attacked = attacked
        self.canary = attacked.directory / "canary.txt"
        self.canary_token = f"canary-{secrets.token_hex(16)}"
        self.canary.write_text(self.canary_token)
        self.secret = f"secret-{secrets.token_hex(16)}"
        self.neighbour = self.create()
        self.cell(self.neighbour, f"echo {self.secret} > /tmp/secret.txt", 30)
        self.forbidden = [self.canary_token, self.secret, token]

    def create(self):
        answer = http_client.post_json(self.attacked.base_url, "/belljar/v1/containers", {})
        equal(answer.status, 200, answer.text)
        return answer.json()["id"]

    def delete(self, container):
        base, path = self.attacked.base_url, f"/belljar/v1/containers/{container}"
        equal(http_client.call(base, "DELETE", path, http_client.api_headers()).status, 200, "deleting the container")
        equal(http_client.call(base, "GET", path, http_client.api_headers()).status, 404, "after its deletion")

    def cell(self, container, source, wall_s_max):
        source = source.replace("@CANARY@", str(self.canary)).replace("@PORT@", str(self.attacked.port))
        body = {"language": "bash", "source": source, "wall_s_max": wall_s_max}
        answer = http_client.post_json(self.attacked.base_url, f"/belljar/v1/containers/{container}/cells", body)
        equal(answer.status, 200, answer.text)
        return answer.json()

    def case(self, source, wall_s_max, expected):
        container = self.create()
        told = self.cell(container, source, wall_s_max)
        told["files"] = sorted(entry["filename"] for entry in told["files"])
        for token in self.forbidden:
            if token in told["stdout"] or token in told["stderr"]:
                raise AssertionError("something of the host or of the neighbour came out")
        for field, value in {"outcome": "ended", "reason": None, "return_code": 0, **expected}.items():
            self.compare(told[field], value, field)
        self.delete(container)
        self.attacked.healthy()
        self.attacked.no_panic()
        equal(self.canary.read_text(), self.canary_token, "the host's canary")
        equal(self.cell(self.neighbour, "cat /tmp/secret.txt", 30)["stdout"], f"{self.secret}\n", "the neighbour's secret")

    def compare(self, actual, expected, field):
        if isinstance(expected, str):
            expected = expected.replace("@CANARY@", str(self.canary))
        if isinstance(expected, str) and expected.startswith("re:"):
            matches(actual, expected.removeprefix("re:"), field)
        else:
            equal(actual, expected, field)


def nothing_mounted(directory):
    left = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(directory) in line]
    equal(left, [], "mounts below the data directory")


def no_process(token):
    """No process that descends from the server, whose environment carries the token, is alive."""
    left = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if token.encode() in (entry / "environ").read_bytes():
                    left.append((entry / "comm").read_text().strip())
            except OSError:
                continue  # Gone meanwhile, or another user's.
    equal(left, [], "processes of the server")
