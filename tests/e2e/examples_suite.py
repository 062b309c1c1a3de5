"""The programs in `examples/` that let code call their tools, each against a server that plays their scripts."""

import subprocess
from pathlib import Path

from harness import server, toolchain
from harness.report import equal

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LOCK = Path(__file__).resolve().parent / "locks" / "anthropic-2.11.0.txt"
PROGRAMS = ("budget_compliance", "health_checks", "paginated_fetch")
PROGRAM_S_MAX = 120


def run(report, running):
    try:
        python = toolchain.python_with(LOCK)
        with server.Server(running.belljar, scripts=EXAMPLES / "scripts") as own:
            for name in PROGRAMS:
                report.check(name, lambda name=name: program(python, own, name))
            report.check("that server never panicked", own.no_panic)
    except (RuntimeError, OSError) as error:
        report.fail("starting a server with the examples' scripts", error)


def program(python, own, name):
    ended = subprocess.run(
        [str(python), str(EXAMPLES / f"{name}.py"), "--base-url", own.base_url],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PROGRAM_S_MAX,
    )
    equal(ended.returncode, 0, ended.stderr)
    if "fewer tokens" not in ended.stdout:
        raise AssertionError(f"it does not say what was saved: {ended.stdout}")
