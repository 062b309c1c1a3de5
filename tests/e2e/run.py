"""The end-to-end suite: one server, every official client, and plain HTTP. `run.py --belljar PATH [--only WORD]`."""

import argparse
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent
sys.path.insert(0, str(TESTS))
sys.path.insert(0, str(HERE))

import admin_suite  # noqa: E402
import bad_input_suite  # noqa: E402
import batches_suite  # noqa: E402
import checkpoint_suite  # noqa: E402
import clouds_suite  # noqa: E402
import compare_suite  # noqa: E402
import container_suite  # noqa: E402
import crash_suite  # noqa: E402
import descriptor_suite  # noqa: E402
import divergence_suite  # noqa: E402
import examples_suite  # noqa: E402
import fault_suite  # noqa: E402
import files_lists_suite  # noqa: E402
import files_suite  # noqa: E402
import hang_up_suite  # noqa: E402
import host_tools_suite  # noqa: E402
import hostile_suite  # noqa: E402
import keys_suite  # noqa: E402
import life_suite  # noqa: E402
import limits_suite  # noqa: E402
import llama_suite  # noqa: E402
import openai_suite  # noqa: E402
import ptc_replays  # noqa: E402
import ptc_suite  # noqa: E402
import read_only_suite  # noqa: E402
import recorded_turns_suite  # noqa: E402
import recording_suite  # noqa: E402
import restart_suite  # noqa: E402
import room_suite  # noqa: E402
import shown_files_suite  # noqa: E402
import stop_suite  # noqa: E402
import stores_suite  # noqa: E402
import stream_suite  # noqa: E402
import tenants_suite  # noqa: E402
import transfer_suite  # noqa: E402
import upstream_suite  # noqa: E402
from harness import report, server, toolchain  # noqa: E402

SUITE_S_MAX = 600
# Each takes seconds to import what it tries before it asks for anything.
CLIENTS_AT_ONCE = os.cpu_count() or 1


def clients(base_url):
    """(name, tool it needs, function that makes its command and environment)."""
    def python(lock, program, *more, since=(3, 10)):
        if sys.version_info < since:
            raise report.Skipped(f"it needs Python {since[0]}.{since[1]}")
        interpreter = toolchain.python_with(HERE / "locks" / lock)
        return [interpreter, HERE / program, base_url, *more], {"PYTHONPATH": str(TESTS)}

    def node(project, program):
        modules = toolchain.node_modules(HERE / project)
        return ["node", HERE / program, base_url], {"NODE_MODULES": str(modules)}

    def claude_code():
        modules = toolchain.node_modules(HERE / "node_claude_code")
        environment = {"PYTHONPATH": str(TESTS), "NODE_MODULES": str(modules)}
        return [sys.executable, HERE / "claude_code_client.py", base_url], environment

    for lock in ("anthropic-2.11.0.txt", "anthropic-1.17.0.txt", "anthropic-0.125.0.txt", "anthropic-0.84.0.txt"):
        for mode in ("sync", "async"):
            yield f"{lock[:-4]} {mode}", "python3", lambda lock=lock, mode=mode: python(lock, "python_sdk.py", mode)
    yield "node 1.11.0", "npm", lambda: node("node", "node_sdk.mjs")
    yield "ai 6.0.326", "npm", lambda: node("node_ai", "ai_sdk.mjs")
    yield "claude-code 2.1.332", "npm", claude_code
    for lock, program, since in (
        ("langchain-anthropic-1.7.10", "langchain_client.py", (3, 10)),
        ("pydantic-ai-slim-2.68.0", "pydantic_ai_client.py", (3, 11)),
        ("litellm-1.110.2", "litellm_client.py", (3, 10)),
        ("llm-0.36", "llm_client.py", (3, 10)),
    ):
        yield lock, "python3", lambda args=(f"{lock}.txt", program), since=since: python(*args, since=since)


def run_client(name, needs, make):
    """Runs one client program: what it prints, what it has counted, and why it has not."""
    if shutil.which(needs) is None:
        return [f"SKIP: {name}: {needs} is not installed"], (0, 0, 1), None
    try:
        command, environment = make()
        ended = subprocess.run(
            [str(part) for part in command], env={**os.environ, **environment},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SUITE_S_MAX,
        )
    except report.Skipped as why:
        return [f"SKIP: {name}: {why}"], (0, 0, 1), None
    except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
        return [], (0, 0, 0), error
    counts = report.read_totals(ended.stdout)
    lines = ended.stdout.strip().splitlines()
    if counts is None:
        return lines, (0, 0, 0), f"it ended with {ended.returncode} before it had counted its checks"
    return lines[:-1], counts, None


def run_clients(total, chosen):
    """Runs client programs side by side, which share nothing but the server; tells of each in order."""
    with ThreadPoolExecutor(CLIENTS_AT_ONCE) as pool:
        running = [(name, pool.submit(run_client, name, needs, make)) for name, needs, make in chosen]
        for name, ended in running:
            lines, counts, why = ended.result()
            print("\n".join(lines).strip(), flush=True)
            if why is not None:
                total.fail(name, why)
            total.add(name, *counts)


def run_inside(total, name, suite, *arguments):
    """Runs one suite of this process."""
    inner = report.Report(name)
    suite.run(inner, *arguments)
    total.add(name, inner.passed, inner.failed, inner.skipped)


def fake_upstream(arguments):
    """The fake's binary: as told, or where cargo puts it beside the server's."""
    return Path(arguments.fake_upstream or Path(arguments.belljar).parent / "examples" / "fake_upstream").resolve()


def run(arguments):
    total = report.Report("e2e")
    server.build_image(arguments.belljar)
    with server.Server(arguments.belljar, scripts=HERE / "scripts", serving={"ping_interval_s": 1}) as running:
        run_clients(total, [client for client in clients(running.base_url) if arguments.only in client[0]])
        suites = (
            ("bad input", bad_input_suite), ("container", container_suite), ("life of a container", life_suite), ("checkpoints", checkpoint_suite), ("transfer", transfer_suite), ("stream", stream_suite),
            ("hang-up", hang_up_suite), ("descriptors", descriptor_suite), ("keys", keys_suite), ("tenants", tenants_suite), ("limits", limits_suite), ("files", files_suite), ("files, listed", files_lists_suite),
            ("files that blocks show", shown_files_suite), ("room", room_suite),
            ("stop", stop_suite), ("restart", restart_suite), ("crash", crash_suite), ("stores", stores_suite), ("admin", admin_suite),
            ("faults", fault_suite), ("faults, read-only", read_only_suite), ("hostile", hostile_suite),
            ("programmatic", ptc_suite), ("programmatic, replayed", ptc_replays), ("host tools", host_tools_suite), ("batches", batches_suite),
            ("clouds", clouds_suite), ("llama", llama_suite), ("recorded turns", recorded_turns_suite), ("examples", examples_suite), ("divergence", divergence_suite), ("compare", compare_suite),
        )
        for name, suite in suites:
            if arguments.only in name:
                run_inside(total, name, suite, running)
        if arguments.only in "upstream":
            run_inside(total, "upstream", upstream_suite, running, fake_upstream(arguments))
        if arguments.only in "openai":
            run_inside(total, "openai", openai_suite, running, fake_upstream(arguments))
        if arguments.only in "recordings":
            run_inside(total, "recordings", recording_suite, running, fake_upstream(arguments))
        total.check("the server is healthy after all of it", running.healthy)
        total.check("no thread of the server panicked", running.no_panic)
        total.check("the server ends when asked", lambda: report.equal(running.stop(), 0, "exit status"))
        if total.failed and arguments.log:
            shutil.copy(running.log_path, arguments.log)
    return total


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--belljar", required=True, help="the server's binary")
    parser.add_argument("--fake-upstream", help="the binary of crates/model/examples/fake_upstream.rs")
    parser.add_argument("--only", default="", help="only suites whose name contains this")
    parser.add_argument("--log", help="where to copy the server's log when something failed")
    arguments = parser.parse_args()
    try:
        total = run(arguments)
    except RuntimeError as error:
        total = report.Report("e2e")
        total.fail("setting up", error)
    except server.MachineCannot as why:
        total = report.Report("e2e")
        total.skip("all of it", why)
    report.exit_with(total)


if __name__ == "__main__":
    main()
