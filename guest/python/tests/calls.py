"""Checks of calls of the client's tools from code, with this program as the host that answers."""

import json
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import host
from harness.report import equal, matches

QUERY = ["query_db", "Asks the database.", {
    "type": "object",
    "properties": {
        "sql": {"type": "string", "description": "The question.", "minLength": 1},
        "limit": {"type": "integer", "minimum": 1, "maximum": 10},
        "mode": {"enum": ["fast", "exact", 3]},
        "filters": {"type": "array", "items": {"type": "object", "properties": {"op": {"const": "eq"}},
                                               "required": ["op"], "additionalProperties": False}},
        "where": {"anyOf": [{"type": "string", "pattern": "^[a-z]+$"}, {"type": "null"}]},
        "tree": {"$ref": "#/$defs/tree"},
    },
    "required": ["sql"],
    "additionalProperties": False,
    "$defs": {"tree": {"type": "object", "properties": {"next": {"$ref": "#/$defs/tree"}}, "maxProperties": 1}},
}]
ANY = ["anything", "", {"type": "object"}]
TOOLS = [QUERY, ANY]


@contextmanager
def repl():
    with tempfile.TemporaryDirectory() as root, host.Repl(root) as started:
        yield started


def ended(outcome, stdout="", code=0, stderr=""):
    equal((outcome.stdout, outcome.code, outcome.stderr), (stdout, code, stderr), "the outcome")


def a_call_waits_for_its_answer():
    with repl() as one:
        running = one.start_cell("print('before')\nprint(await query_db({'sql': 'Ä 漢 🎈', 'limit': 2}))", tools=TOOLS)
        equal(running.called(), ([["query_db", {"sql": "Ä 漢 🎈", "limit": 2}]], 0), "the calls")
        running.wait_for(b"before\n")
        one.wait_asleep()
        running.answer((1, "text", "a result"))
        ended(running.finish(), "before\na result\n")
        ended(one.cell("print(1)"), "1\n")
        # Its source does not go in the frame.
        running = one.start_cell("print(await query_db({'sql': 'x'})) #" + "#" * host.SOURCE_BYTES_SAID_MAX, tools=TOOLS)
        equal(running.called(), ([["query_db", {"sql": "x"}]], 0), "the calls")
        running.answer((1, "text", "another"))
        ended(running.finish(), "another\n")


def calls_that_wait_together_are_told_together():
    with repl() as one:
        running = one.start_cell("""
import asyncio
async def late(n):
    await asyncio.sleep(0)
    return await anything({"n": n})
print(await asyncio.gather(*(late(n) for n in range(3)), anything({"n": 9})))
""", tools=TOOLS)
        calls, heard = running.called()
        equal((sorted(call[1]["n"] for call in calls), heard), ([0, 1, 2, 9], 0), "one pause")
        numbers = [call[1]["n"] for call in calls]
        running.answer(*((at + 1, "text", str(n)) for at, n in enumerate(numbers)))
        ended(running.finish(), "['0', '1', '2', '9']\n")


def calls_one_after_the_other_are_a_pause_each():
    with repl() as one:
        running = one.start_cell("for n in range(3):\n    print(await anything({'n': n}))", tools=TOOLS)
        for number in range(3):
            equal(running.called(), ([["anything", {"n": number}]], number), "the calls")
            running.answer((number + 1, "text", f"r{number}"))
        ended(running.finish(), "r0\nr1\nr2\n")


def a_timer_keeps_no_call_waiting():
    with repl() as one:
        running = one.start_cell("""
import asyncio
async def ticks():
    for n in range(3):
        await asyncio.sleep(0.02)
    return await anything({"n": "late"})
print(await asyncio.gather(anything({"n": "early"}), ticks()))
""", tools=TOOLS)
        equal(running.called(), ([["anything", {"n": "early"}]], 0), "before the timer")
        equal(running.called(), ([["anything", {"n": "late"}]], 0), "what the timer led to")
        running.answer((1, "text", "1"))
        equal(running.called(), ([], 1), "what it still waits for")
        running.answer((2, "text", "2"))
        ended(running.finish(), "['1', '2']\n")


def a_failed_tool_is_an_exception():
    with repl() as one:
        running = one.start_cell("await query_db({'sql': 'x'})", "/tmp/t/cell.py", tools=TOOLS)
        running.called()
        running.answer((1, "error", "no such table"))
        ended(running.finish(), code=1, stderr='Traceback (most recent call last):\n  File "/tmp/t/cell.py", line 1, in'
              " <module>\n    await query_db({'sql': 'x'})\nToolError: query_db: no such table\n")
        running = one.start_cell("try:\n    await query_db({'sql': 'x'})\nexcept ToolError as error:\n"
                                 "    print(error.tool, error.text, isinstance(error, RuntimeError))", tools=TOOLS)
        running.called()
        running.answer((1, "error", "gone"))
        ended(running.finish(), "query_db gone True\n")


LATE = "Calling tool ['query_db'] timed out (no response after 270s)."


def what_nobody_answers_is_a_timeout():
    with repl() as one:
        for source in ("await query_db({'sql': 'x'})", "import asyncio\nasyncio.run(query_db({'sql': 'x'}))",
                       "import asyncio\nawait asyncio.gather(query_db({'sql': 'x'}), anything({}))"):
            running = one.start_cell(source, tools=TOOLS)
            calls, _ = running.called()
            running.answer(*((at + 1, "timed_out", LATE) for at in range(len(calls))))
            ended(running.finish(), code=0, stderr=f"TimeoutError: {LATE}\n")
        running = one.start_cell("try:\n    await query_db({'sql': 'x'})\nexcept TimeoutError as error:\n"
                                 "    print(type(error) is TimeoutError, error)\nprint(await query_db({'sql': 'y'}))", tools=TOOLS)
        running.called()
        running.answer((1, "timed_out", LATE))
        equal(running.called(), ([["query_db", {"sql": "y"}]], 1), "the second try")
        running.answer((2, "text", "late but there"))
        ended(running.finish(), f"True {LATE}\nlate but there\n")
        running = one.start_cell("raise TimeoutError('of its own')", tools=TOOLS)
        equal(running.finish().code, 1, "another timeout")


ARGUMENTS = [
    ("", "TypeError: query_db() takes one argument, a dict, as in query_db({...}), not 0 arguments"),
    ("'x'", "TypeError: query_db() takes one argument, a dict, as in query_db({...}), not a value of type str"),
    ("{}, {}", "TypeError: query_db() takes one argument, a dict, as in query_db({...}), not 2 arguments"),
    ("sql='x'", 'TypeError: query_db() takes one argument, a dict, as in query_db({"sql": ...}), not keyword arguments'),
    ("{}", 'TypeError: query_db: "sql" is required'),
    ("{'sql': 5}", "TypeError: query_db: sql must be a string, not 5"),
    ("{'sql': ''}", "TypeError: query_db: sql must have at least 1 characters, not 0"),
    ("{'sql': 'x', 'sqll': 1}",
     'TypeError: query_db: unknown key "sqll" (known: sql, limit, mode, filters, where, tree)'),
    ("{'sql': 'x', 'limit': True}", "TypeError: query_db: limit must be an integer, not true"),
    ("{'sql': 'x', 'limit': 1.5}", "TypeError: query_db: limit must be an integer, not 1.5"),
    ("{'sql': 'x', 'limit': 11}", "TypeError: query_db: limit must be at most 10, not 11"),
    ("{'sql': 'x', 'mode': True}", 'TypeError: query_db: mode must be one of "fast", "exact", 3, not true'),
    ("{'sql': 'x', 'filters': [{'op': 'eq'}, {}]}", 'TypeError: query_db: filters[1]: "op" is required'),
    ("{'sql': 'x', 'filters': [{'op': 'lt'}]}", 'TypeError: query_db: filters[0].op must be "eq", not "lt"'),
    ("{'sql': 'x', 'where': 5}", "TypeError: query_db: where fits none of what is allowed: where must be a string, not"
     " 5; or where must be null (None), not 5"),
    ("{'sql': 'x', 'tree': {'next': {'next': 5}}}",
     "TypeError: query_db: tree.next.next must be an object (dict), not 5"),
    ("{'sql': b'x'}", "TypeError: query_db: a value of type bytes is not JSON; convert it first"),
    ("{'sql': {1: 2}}", "TypeError: query_db: keys must be strings, not a value of type int"),
    ("{'sql': float('nan')}", "ValueError: query_db: nan is no number that JSON has"),
    ("{'sql': -float('inf')}", "ValueError: query_db: -inf is no number that JSON has"),
    ("{'sql': 2**64}", "ValueError: query_db: an integer of more than 64 bits cannot be passed; pass it as a string"),
    ("{'sql': chr(0xd800)}", "ValueError: query_db: the argument holds half of a surrogate pair, which is no character"),
    ("cycle", "ValueError: query_db: the argument is nested deeper than 100 levels, or holds itself"),
    ("deep", "ValueError: query_db: the argument is nested deeper than 100 levels, or holds itself"),
    ("wide", "ValueError: query_db: the argument is longer than 1048576 bytes as JSON; pass less in one call"),
    ("{'sql': 'x' * 2**20}", "ValueError: query_db: the argument is longer than 1048576 bytes as JSON; pass less in one call"),
    ("{'sql': '\\\\' * 600_000}",
     "ValueError: query_db: the argument is longer than 1048576 bytes as JSON; pass less in one call"),
    ("{'sql': 'x' * 10**8}", "ValueError: query_db: the argument is longer than 1048576 bytes as JSON; pass less in one call"),
]


SCHEMAS = Path(__file__).resolve().parent / "schemas.json"
"""Of each schema the values that fit, and the others with what is said of them. The commands of bash are held against it, too."""


def schemas_are_understood():
    import importlib.util

    spec = importlib.util.spec_from_file_location("schema", host.DRIVER / "schema.py")
    schema = importlib.util.module_from_spec(spec)
    sys.modules["schema"] = schema
    spec.loader.exec_module(schema)
    for case in json.loads(SCHEMAS.read_text()):
        for value in case["fit"]:
            equal(schema.complaint(value, case["schema"]), None, f"{value} by {case['schema']}")
        for value in case["do_not"]:
            equal(schema.complaint(value["value"], case["schema"]), value["complaint"])


def wrong_arguments_are_told_and_never_sent():
    with repl() as one:
        one.cell("cycle = {}\ncycle['sql'] = cycle\ndeep = 1\nfor _ in range(10**4): deep = {'sql': deep}\n"
                 "wide = []\nfor _ in range(90): wide = [wide, wide]\nwide = {'sql': wide}")
        for argument, message in ARGUMENTS:
            outcome = one.cell(f"await query_db({argument})", tools=TOOLS)
            equal((outcome.code, outcome.stderr.splitlines()[-1]), (1, message), argument)


def good_arguments_arrive_as_they_are():
    good = [
        {"sql": "x" * (2**20 - 10)}, {"sql": "\U0001f388" * 200_000, "limit": 10}, {"sql": '\\"\u2028\x7f\x00' * 50_000},
        {"sql": "x", "where": None, "mode": 3, "filters": [{"op": "eq"}], "tree": {"next": {"next": {}}}},
    ]
    with repl() as one:
        for argument in good:
            running = one.start_cell(f"import json\nprint(await query_db(json.loads({json.dumps(argument)!r})))", tools=TOOLS)
            equal(running.called() == ([["query_db", argument]], 0), True, "the call")
            running.answer((1, "text", "ok"))
            ended(running.finish(), "ok\n")
        running = one.start_cell("await anything({'a': (1, True, -2**63, 2**64 - 1, 1e308, 0.1), 'b': {'c': []}})", tools=TOOLS)
        equal(running.called()[0], [["anything", {"a": [1, True, -2**63, 2**64 - 1, 1e308, 0.1], "b": {"c": []}}]], "the call")
        running.answer((1, "text", ""))
        ended(running.finish())


def as_many_calls_as_may_wait_and_no_more():
    with repl() as one:
        source = """
import asyncio
answers = await asyncio.gather(*(anything({"n": n}) for n in range(1030)), return_exceptions=True)
print(sum(int(answer) for answer in answers[:1024]), answers[1024:])
"""
        running = one.start_cell(source, tools=TOOLS)
        calls, _ = running.called()
        equal([call[1]["n"] for call in calls], list(range(1024)), "the calls")
        running.answer(*((number + 1, "text", "1") for number in range(1024)))
        refused = "RuntimeError('anything: 1024 calls are waiting already; await some of them first')"
        ended(running.finish(), f"1024 [{', '.join([refused] * 6)}]\n")
        source = """
answers = await asyncio.gather(*(anything({"n": "x" * 1_000_000}) for n in range(10)), return_exceptions=True)
print(answers)
"""
        running = one.start_cell(source, tools=TOOLS)
        calls, _ = running.called()
        equal(len(calls), 8, "the calls")
        running.answer(*((number + 1, "text", "1") for number in range(8)))
        refused = "ValueError('anything: the arguments of all waiting calls would be longer than 8388608 bytes')"
        ended(running.finish(), f"['1', '1', '1', '1', '1', '1', '1', '1', {refused}, {refused}]\n")


def results_are_data():
    texts = ["x" * 50_000_000, "é漢🎈\u2028\ufeff" * 1000, "\\ud800\\x00 \x00\r\n", "__import__('os')._exit(3)", "", '"]]}\n[[2,'] 
    with repl() as one:
        one.cell("import asyncio, hashlib")
        source = ("answers = await asyncio.gather(*(anything({}) for _ in range(6)))\n"
                  "print([hashlib.sha256(a.encode()).hexdigest() for a in answers] == digests, [type(a) for a in answers][0])")
        import hashlib

        one.cell(f"digests = {[hashlib.sha256(text.encode()).hexdigest() for text in texts]}")
        running = one.start_cell(source, tools=TOOLS)
        running.called()
        running.answer(*((at + 1, "text", text) for at, text in enumerate(texts)))
        ended(running.finish(), "True <class 'str'>\n")


def an_event_loop_of_the_codes_own():
    with repl() as one:
        source = "import asyncio\nasync def main():\n    return await anything({})\nfor _ in range(2):\n    print(asyncio.run(main()))"
        for _ in range(2):
            running = one.start_cell(source, tools=TOOLS)
            for number in (1, 2):
                equal(running.called(), ([["anything", {}]], number - 1), "the calls")
                running.answer((number, "text", f"r{number}"))
            ended(running.finish(), "r1\nr2\n")
        running = one.start_cell("loop = asyncio.new_event_loop()\nprint(loop.run_until_complete(anything({})))", tools=TOOLS)
        running.called()
        running.answer((1, "text", "r"))
        ended(running.finish(), "r\n")


def threads_call_through_the_main_threads_loop():
    with repl() as one:
        source = """
import asyncio, threading
loop = asyncio.get_running_loop()
def ask():
    return asyncio.run_coroutine_threadsafe(anything({"from": "thread"}), loop).result()
print(await asyncio.to_thread(ask))
try:
    await asyncio.to_thread(asyncio.run, anything({}))
except RuntimeError as error:
    print(error)
"""
        running = one.start_cell(source, tools=TOOLS)
        equal(running.called()[0], [["anything", {"from": "thread"}]], "the calls")
        running.answer((1, "text", "r"))
        ended(running.finish(), "r\nanything: tools can be called in the main thread only; from another one, by"
              " asyncio.run_coroutine_threadsafe(..., loop) with the main thread's running loop\n")


def a_forked_process_cannot_call():
    with repl() as one:
        source = """
import asyncio, os
waiting = asyncio.ensure_future(anything({"n": 1}))
await asyncio.sleep(0)
child = os.fork()
if child == 0:
    try:
        await anything({"n": 2})
    except RuntimeError as error:
        print(error, flush=True)
    os._exit(0)
print(os.waitpid(child, 0)[1], await waiting)
"""
        running = one.start_cell(source, tools=TOOLS)
        equal(running.called(), ([["anything", {"n": 1}]], 0), "the calls")
        running.answer((1, "text", "r"))
        ended(running.finish(), "anything: a forked process cannot call tools\n0 r\n")


def a_task_that_outlives_its_cell_cannot_call():
    with repl() as one:
        source = """
import asyncio
begin = asyncio.Event()
async def later():
    await begin.wait()
    try:
        return await anything({})
    except RuntimeError as error:
        return str(error)
task = asyncio.ensure_future(later())
"""
        ended(one.cell(source + "await asyncio.sleep(0)", tools=TOOLS))
        ended(one.cell("begin.set()\nprint(await task)", tools=TOOLS), "anything: the cell that started this task has ended\n")
        running = one.start_cell("task = asyncio.ensure_future(anything({}))\nawait asyncio.sleep(0.001)", tools=TOOLS)
        running.called()
        ended(running.finish())
        running.answer((1, "text", "too late"))
        ended(one.cell("try:\n    print(await task)\nexcept asyncio.CancelledError:\n    print('cancelled')"), "cancelled\n")


def definitions_are_those_of_the_running_cell():
    with repl() as one:
        running = one.start_cell("kept = query_db\nimport inspect\nprint(inspect.signature(query_db), query_db.__doc__, query_db)",
                                 tools=[["query_db", "Asks.", {"properties": {"sql": {"type": "string"}}}]])
        matches(running.finish().stdout, r"\(argument: dict, /\) -> str Asks\.\n\nKeys of the argument:\n    sql \(string\) "
                r"<function query_db at 0x[0-9a-f]+>\n", "the function")
        outcome = one.cell("await kept({})")
        equal(outcome.stderr.splitlines()[-1], "RuntimeError: query_db: no cell is running that was given tools", "no tools")
        outcome = one.cell("await kept({})", tools=[ANY])
        equal(outcome.stderr.splitlines()[-1], "RuntimeError: query_db is not offered to this cell", "another tool")
        outcome = one.cell("print(kept is query_db)\nawait kept({})", tools=[QUERY])
        equal((outcome.stdout, outcome.stderr.splitlines()[-1]), ("True\n", 'TypeError: query_db: "sql" is required'), "new schema")
        running = one.start_cell("query_db = 5\nprint(await anything({}))\nprint(await new_one({}))\nprint(query_db)", tools=TOOLS)
        running.called()
        running.answer((1, "text", "r"), tools=[ANY, QUERY, ["new_one", "", {}]])
        equal(running.called(), ([["new_one", {}]], 1), "a tool that came with the answer")
        running.answer((2, "text", "s"))
        ended(running.finish(), "r\ns\n5\n")
        ended(one.cell("print(callable(query_db))", tools=TOOLS), "True\n")
        ended(one.cell("import io, contextlib\nwith contextlib.redirect_stdout(io.StringIO()) as text:\n    help(anything)\n"
                       "print(text.getvalue().splitlines()[2])", tools=TOOLS), "async anything(argument: dict, /) -> str\n")


def an_interrupt_ends_a_waiting_cell():
    with repl() as one:
        for source in ("await anything({})", "import asyncio\nasyncio.run(anything({}))",
                       "import asyncio\nasyncio.new_event_loop().run_until_complete(anything({}))"):
            running = one.start_cell(source, tools=TOOLS)
            running.called()
            one.wait_asleep()
            one.interrupt()
            outcome = running.finish()
            equal((outcome.code, outcome.stderr.splitlines()[-1]), (130, "KeyboardInterrupt"), source)
            running.answer((1, "text", "too late"))
        ended(one.cell("print('fine')"), "fine\n")


def a_call_that_the_code_gave_up_is_answered_in_vain():
    with repl() as one:
        source = """
import asyncio
try:
    await asyncio.wait_for(anything({"n": 1}), 0.2)
except TimeoutError as error:
    print(repr(error))
print(await anything({"n": 2}))
task = asyncio.ensure_future(anything({"n": 3}))
await asyncio.sleep(0)
task.cancel()
print(await anything({"n": 4}))
"""
        running = one.start_cell(source, tools=TOOLS)
        equal(running.called(), ([["anything", {"n": 1}]], 0), "the first")
        equal(running.called(), ([["anything", {"n": 2}]], 0), "the second")
        running.answer((1, "text", "in vain"), (2, "text", "r"))
        equal(running.called(), ([["anything", {"n": 4}]], 1), "what was never sent needs no number")
        running.answer((3, "text", "s"))
        ended(running.finish(), "TimeoutError()\nr\ns\n")


def answers_arrive_where_no_descriptor_is_free():
    with repl() as one:
        source = """
import os, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (600, 600))
held = []
async def fill():
    try:
        while True:
            held.append(os.dup(0))
    except OSError:
        pass
    return await anything({})
first = await anything({})
print(first, await fill(), len(held) > 10)
[os.close(fd) for fd in held]
"""
        running = one.start_cell(source, tools=TOOLS)
        for number in (1, 2):
            running.called()
            running.answer((number, "text", "r"))
        ended(running.finish(), "r r True\n")


def nonsense_instead_of_answers_ends_it():
    with repl() as one:
        running = one.start_cell("await anything({})", tools=TOOLS)
        running.called()
        one.send({"answers": {"id": running.body["id"]}})
        try:
            equal(running.finish(), None, "an answer of a REPL that should be gone")
        except host.Gone:
            pass
        equal(one.process.wait(host.WAIT_S_MAX), 70, "its exit status")


CHECKS = [(f"calls: {check.__name__.replace('_', ' ')}", check) for check in (
    a_call_waits_for_its_answer, calls_that_wait_together_are_told_together, calls_one_after_the_other_are_a_pause_each,
    a_timer_keeps_no_call_waiting, a_failed_tool_is_an_exception, what_nobody_answers_is_a_timeout,
    schemas_are_understood, wrong_arguments_are_told_and_never_sent, good_arguments_arrive_as_they_are, as_many_calls_as_may_wait_and_no_more,
    results_are_data, an_event_loop_of_the_codes_own, threads_call_through_the_main_threads_loop,
    a_forked_process_cannot_call, a_task_that_outlives_its_cell_cannot_call, definitions_are_those_of_the_running_cell,
    an_interrupt_ends_a_waiting_cell, a_call_that_the_code_gave_up_is_answered_in_vain,
    answers_arrive_where_no_descriptor_is_free, nonsense_instead_of_answers_ends_it,
)]
