"""Programs that people need, in containers of a server of its own, and every refusal of the policy. `run.py --belljar PATH`.

A case of `cases/` is data: what runs, what it needs of the wall (`needs`), and exactly what must come of it. The probe of
refusals is made from the policy itself (`crates/jail/policy/`).
"""

import argparse
import json
import platform
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
POLICY = HERE.parent.parent / "crates" / "jail" / "policy"
sys.path.insert(0, str(HERE.parent))

from harness import http_client, report, server  # noqa: E402
from harness.report import equal, matches  # noqa: E402

MIB = 1024 * 1024
LIMITS = {"cpus": 2.0, "memory_bytes_max": 2048 * MIB, "disk_bytes_max": 512 * MIB, "processes_max": 256}
# Calls that the kernel answers before any filter does (since Linux 6.14), and how.
EXEMPT = {"uretprobe": ("ENOSYS", "signal 4"), "uprobe": ("ENOSYS", "ENXIO")}


def run_case(base, case):
    container = new_container(base)
    try:
        outcome = cell(base, container, source_of(case))
        expect = {"outcome": "ended", "return_code": 0, "stderr": "", **case["expect"]}
        for field in ("stdout", "stderr", "return_code", "outcome"):
            compare(outcome[field], expect[field], f"{field} (with {str(outcome)[:1500]})")
    finally:
        path = f"/belljar/v1/containers/{container}"
        http_client.call(base, "DELETE", path, http_client.api_headers())


def new_container(base):
    answer = http_client.post_json(base, "/belljar/v1/containers", {})
    equal(answer.status, 200, answer.text)
    return answer.json()["id"]


def cell(base, container, source):
    answer = http_client.post_json(base, f"/belljar/v1/containers/{container}/cells", {"language": "bash", "source": source})
    equal(answer.status, 200, answer.text)
    return answer.json()


def source_of(case):
    lines = lambda text: "\n".join(text) if isinstance(text, list) else text
    if "python" in case:
        return f"python3 - <<'END_OF_CASE'\n{lines(case['python'])}\nEND_OF_CASE\n"
    return lines(case["bash"])


def compare(actual, expected, what):
    if isinstance(expected, dict):
        matches(actual, expected["pattern"], what)
    elif isinstance(expected, list):
        equal(actual.splitlines(), expected, what)
    else:
        equal(actual, expected, what)


def refusals():
    """[name, number, arguments, answers] of every refusal that the policy makes on this machine, x32 included."""
    machine = platform.machine()
    numbers = json.loads((POLICY / "calls.json").read_text())[machine]
    policy = json.loads((POLICY / "seccomp.json").read_text())
    found = []
    for group in policy["refuse"]:
        if group.get("architecture", machine) != machine:
            continue
        for call in group["calls"]:
            for conditions in group.get("when", [[]]):
                name = " ".join([call, *(condition["means"] for condition in conditions)])
                answers = EXEMPT.get(call, (group["answer"],))
                found.append([name, numbers[call], arguments(conditions), answers])
    found.append(["a call to come", max(numbers.values()) + 100, [0] * 6, [policy["otherwise"]]])
    if machine == "x86_64":
        found += [[f"x32 {name}", 0x40000000 | numbers[name], [0] * 6, [policy["otherwise"]]] for name in ("getpid", "unshare", "bpf")]
    return found


def arguments(conditions):
    """Arguments that an alternative of the policy is about."""
    values = [0] * 6
    for condition in conditions:
        ((test, value),) = condition["test"].items()
        slot = condition["argument"]
        # Neither of the values that the policy makes exceptions for.
        values[slot] = values[slot] | value if test == "has_bits" else value if test == "is" else 0x00040000
    return values


def check_refusals(base):
    """One cell makes every refused call, each in a process of its own, and says how it was answered."""
    probes = refusals()
    probe = (HERE / "probe.py").read_text()
    container = new_container(base)
    asked = [[number, values] for _, number, values, _ in probes]
    outcome = cell(base, container, f"python3 - <<'END_OF_CASE'\nASKED = {asked!r}\n{probe}\nEND_OF_CASE\n")
    answered = outcome["stdout"].splitlines()
    equal(len(answered), len(probes), f"answers; {outcome['stderr'][-1000:]}")
    wrong = [(name, found, answers) for (name, _, _, answers), found in zip(probes, answered) if found not in answers]
    equal(wrong, [], "refusals answered otherwise than written")
    print(f"        {len(probes)} refusals answered as the policy says")


def check_i386(base):
    """The i386 convention ends the process that uses it, whatever the call."""
    child = (
        "import ctypes, mmap; m = mmap.mmap(-1, 4096, prot=7); m.write(bytes([0xb8, {}, 0, 0, 0, 0xcd, 0x80, 0xc3])); "
        "ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))()"
    )
    # exit, read, getpid, socketcall, and one that i386 alone has (waitpid).
    loop = "".join(f"python3 -c '{child.format(number)}' 2>/dev/null; echo $?\n" for number in (1, 3, 20, 102, 7))
    outcome = cell(base, new_container(base), loop)
    equal(outcome["stdout"].splitlines(), ["159"] * 5, "128 + SIGSYS each")


def run(arguments):
    total = report.Report("programs")
    server.build_image(arguments.belljar)
    with server.Server(arguments.belljar, sandbox=LIMITS) as running:
        base = running.base_url
        if arguments.only in "refusals":
            total.check("refusals: every one of the policy", lambda: check_refusals(base))
            if platform.machine() == "x86_64":
                total.check("refusals: the i386 convention", lambda: check_i386(base))
        for table in sorted((HERE / "cases").glob("*.json")):
            for case in json.loads(table.read_text()):
                if arguments.only in case["name"]:
                    total.check(f"{table.stem}: {case['name']}", lambda case=case: run_case(base, case))
        running.no_panic()
    return total


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--belljar", required=True, help="the server's binary")
    parser.add_argument("--only", default="", help="only cases whose name contains this")
    arguments = parser.parse_args()
    try:
        total = run(arguments)
    except (RuntimeError, AssertionError) as error:
        total = report.Report("programs")
        total.fail("setting up", error)
    except server.MachineCannot as why:
        total = report.Report("programs")
        total.skip("all of it", why)
    report.exit_with(total)


if __name__ == "__main__":
    main()
