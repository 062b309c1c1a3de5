"""Counts checks and prints them the way `cargo xtask` reads them: the last line is `N passed, N failed, N skipped`."""

import re
import sys
import traceback


class Skipped(Exception):
    """This check cannot run here. `kernel` says that the running kernel lacks the feature."""

    def __init__(self, reason, kernel=False):
        super().__init__(reason)
        self.kernel = kernel


class Report:
    """One suite's outcome. Prints as it goes, so that a hang shows where it hangs."""

    def __init__(self, suite):
        self.suite = suite
        self.passed = self.failed = self.skipped = 0
        self.rows = []

    def check(self, name, action):
        """Runs one check; an exception is a failure and never ends the suite."""
        try:
            action()
        except Skipped as skip:
            self.skipped += 1
            print(f"SKIP{'(kernel)' if skip.kernel else ''}: {self.suite} {name}: {skip}", flush=True)
        except Exception as error:
            self.failed += 1
            print(f"FAILED  {self.suite} {name}: {describe(error)}", flush=True)
        else:
            self.passed += 1
            print(f"ok      {self.suite} {name}", flush=True)

    def fail(self, name, why):
        """Records a failure found outside a check."""
        self.failed += 1
        print(f"FAILED  {self.suite} {name}: {why}", flush=True)

    def add(self, suite, passed, failed, skipped):
        """Adds what another program counted."""
        self.rows.append((suite, passed, failed, skipped))
        self.passed += passed
        self.failed += failed
        self.skipped += skipped

    def finish(self):
        """Prints the table and the totals; returns the exit status."""
        if self.rows:
            width = max(len(row[0]) for row in self.rows)
            print(f"\n{'suite':<{width}}  passed  failed  skipped")
            for suite, passed, failed, skipped in self.rows:
                print(f"{suite:<{width}}  {passed:>6}  {failed:>6}  {skipped:>7}")
        print(f"\n{self.totals()}", flush=True)
        return 1 if self.failed or not (self.passed or self.skipped) else 0

    def totals(self):
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def describe(error):
    """The message, and where in the suite it was raised."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    text = str(error) or "assertion failed"
    return f"{type(error).__name__}: {text} ({frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}: {frame.line})"


def equal(actual, expected, what="value"):
    """Equality with both sides in the message."""
    if actual != expected:
        raise AssertionError(f"{what}: got {actual!r}, expected {expected!r}")


def matches(actual, pattern, what="text"):
    """The whole text matches the pattern."""
    if re.fullmatch(pattern, actual, re.DOTALL) is None:
        raise AssertionError(f"{what}: got {actual!r}, expected all of it to match {pattern!r}")


def read_totals(output):
    """(passed, failed, skipped) of the last line, or None for a program that died."""
    lines = [line for line in output.splitlines() if line.strip()]
    found = re.fullmatch(r"(\d+) passed, (\d+) failed, (\d+) skipped", lines[-1].strip()) if lines else None
    return tuple(int(number) for number in found.groups()) if found else None


def exit_with(report):
    sys.exit(report.finish())
