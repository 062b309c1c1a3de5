"""Runs the cases of `cases/*.json`: cells for one REPL, and exactly what must come of each.

A case is `{"name", "steps": [...]}`. A step has `cell`, its lines, and of `stdout`, `stderr`, `code`, `output` and
`files` what must come of it, by default nothing, 0 and "none". An expected text is a string, a list of lines, or
`{"pattern": ...}`; `@CELL@` is the cell's file. `"as_python": true` compares with `python3 cell.py` instead.
`"interrupt_at"` sends Ctrl-C when standard output shows this text, and, but for `"busy"`, the REPL sleeps. `"repeat"` runs the step so often.
`"gone"` says that the REPL does not survive the step. `"python_min"` of a case: older ones show it otherwise.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import host
from harness.report import equal, matches

CASES = Path(__file__).resolve().parent / "cases"
FIELDS = {"stdout": "", "stderr": "", "code": 0, "output": "none", "files": None}


def load(only):
    """(table, case) of every case whose name contains the word, and that is for this Python; the image has the newest."""
    for table in sorted(CASES.glob("*.json")):
        for case in json.loads(table.read_text()):
            if only in case["name"] and sys.version_info >= tuple(case.get("python_min", (3, 11))):
                yield table.stem, case


def run_case(case):
    """One case with a REPL of its own."""
    with tempfile.TemporaryDirectory() as root, host.Repl(root) as repl:
        for step in case["steps"]:
            for _ in range(step.get("repeat", 1)):
                run_step(repl, step)


def run_step(repl, step):
    source = "\n".join(step["cell"]) + "\n"
    file = str(repl.root / f"srvtoolu_{repl.number + 1:03}" / "cell.py")
    running = repl.start_cell(source, file)
    if "interrupt_at" in step:
        running.wait_for(step["interrupt_at"].encode())
        if not step.get("busy"):
            repl.wait_asleep()
        repl.interrupt()
    if step.get("gone"):
        try:
            equal(running.finish(), None, "an answer of a REPL that should be gone")
        except host.Gone:
            return
    outcome = running.finish()
    if step.get("as_python"):
        expected = as_python(source, file)
        for field in ("stdout", "stderr", "code"):
            equal(getattr(outcome, field), expected[field], field)
        return
    for field, default in FIELDS.items():
        compare(getattr(outcome, field), step.get(field, default), field, file, outcome)


def compare(actual, expected, field, file, outcome):
    expected = filled(expected, file)
    try:
        if isinstance(expected, dict):
            matches(actual, expected["pattern"], field)
        elif isinstance(expected, list) and field != "files":
            equal(actual.splitlines(), expected, field)
        else:
            equal(actual, expected, field)
    except AssertionError as error:
        raise AssertionError(f"{error}; with {outcome}") from None


def filled(expected, file):
    if isinstance(expected, str):
        return expected.replace("@CELL@", file)
    if isinstance(expected, list):
        return [filled(line, file) for line in expected]
    return expected


def as_python(source, file):
    """What `python3 cell.py` says of the same text."""
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    ended = subprocess.run([sys.executable, file], stdin=subprocess.DEVNULL, capture_output=True, cwd=path.parent,
                           env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"})
    path.unlink()
    return {"stdout": ended.stdout.decode(), "stderr": ended.stderr.decode(), "code": ended.returncode & 0xFF}
