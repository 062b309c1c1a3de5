"""The driver's fifth part: the client's tools, as functions that code awaits.

A call goes out when the event loop has nothing else to run, with all others that wait by then; so the loop's own look for
something to do is where calls are sent. Answers come in as the loop comes in to anything.
"""

import json
import sys
from functools import partial

import _thread

from _belljar_channel import content, leave
from _belljar_schema import complaint
from _belljar_streams import is_strange

sys.modules["_belljar_tools"] = sys.modules[__name__]

ARGUMENT_BYTES_MAX = 1024 * 1024
"""Of one call, as JSON."""
WAITING_BYTES_MAX = 8 * 1024 * 1024
"""Of all calls that wait."""
WAITING_MAX = 1024
ARGUMENT_DEPTH_MAX = 100
INTEGER_MIN, INTEGER_MAX = -(2**63), 2**64 - 1
PIECE_CHARS = 15_000
"""Of a frame: a character is at most four bytes, escaped or not."""

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")).encode
_get_ident, _loads_text = _thread.get_ident, json.loads


class ToolError(RuntimeError):
    """A tool failed, and says so: `tool` is its name, `text` what it said."""

    __module__ = "builtins"  # As tracebacks and people name it.

    def __init__(self, tool, text):
        super().__init__(f"{tool}: {text}")
        self.tool, self.text = tool, text


class Tools:
    """What the code of the running cell can call, and the calls that wait. `sheltered` keeps interrupts out of a call."""

    def __init__(self, channel, reserve, names, sheltered):
        self._channel, self._reserve, self._names, self._sheltered = channel, reserve, names, sheltered
        self._main_thread = _get_ident()
        self._cell = None
        self._text, self._offered, self._functions = b"", {}, {}
        self._forget()

    def _forget(self):
        self._unsent, self._waiting, self._waiting_bytes = [], {}, 0
        self._made = self._heard = 0
        self._woken = False
        self._loops, self._timeouts = [], []

    def open(self, cell, text):
        """A cell begins that can call tools."""
        self._cell = cell
        self._learn(text)
        for function in self._offered:
            self._names[function] = self._functions[function]
        self._names.setdefault("ToolError", ToolError)

    def close(self):
        """It has ended: nobody answers its calls any more."""
        if self._cell is None:
            return
        self._cell = None
        for loop in self._loops:
            _quietly(loop.remove_reader, self._channel.fileno())
        for future in [future for future, *_ in (*self._unsent, *self._waiting.values())]:
            _quietly(future.cancel)
        self._forget()

    def abandon(self):
        """In a forked process: the calls are the parent's, and so is what its loops look at."""
        self._cell = None
        self._forget()

    def gave_up(self, error):
        """Whether this is what a call that nobody answered raises."""
        return any(error is timeout for timeout in self._timeouts)

    def _learn(self, text):
        if text == self._text:
            return
        before = self._offered
        self._offered = {function: (description, schema) for function, description, schema in _loads_text(text)}
        self._text = text
        for function, (description, schema) in self._offered.items():
            if function not in self._functions:
                self._functions[function] = _function(function, self._call)
            self._functions[function].__doc__ = _manual(description, schema)
            if function not in before:
                self._names[function] = self._functions[function]

    async def _call(self, function, arguments, named):
        self._check_caller(function)
        if function not in self._offered:
            raise RuntimeError(f"{function} is not offered to this cell")
        text = _argument(function, arguments, named, self._offered[function][1])
        waiting = len(self._unsent) + len(self._waiting)
        if waiting >= WAITING_MAX:
            raise RuntimeError(f"{function}: {waiting} calls are waiting already; await some of them first")
        size = len(text.encode())
        if self._waiting_bytes + size > WAITING_BYTES_MAX:
            raise ValueError(f"{function}: the arguments of all waiting calls would be longer than {WAITING_BYTES_MAX} bytes")
        from asyncio import get_running_loop

        loop = get_running_loop()
        self._attach(function, loop)
        future = loop.create_future()
        self._unsent.append((future, size, function, text))
        self._waiting_bytes += size
        return await future

    def _check_caller(self, function):
        if self._channel.fileno() < 0:
            raise RuntimeError(f"{function}: a forked process cannot call tools")
        if is_strange():
            raise RuntimeError(f"{function}: the cell that started this task has ended")
        if self._cell is None:
            raise RuntimeError(f"{function}: no cell is running that was given tools")
        if _get_ident() != self._main_thread:
            raise RuntimeError(
                f"{function}: tools can be called in the main thread only; from another one, by"
                " asyncio.run_coroutine_threadsafe(..., loop) with the main thread's running loop")

    def _attach(self, function, loop):
        """Has the loop send calls before it goes to sleep, and wake up for answers."""
        if loop in self._loops:
            return
        selector = getattr(loop, "_selector", None)
        if not hasattr(selector, "select"):
            raise RuntimeError(f"{function}: tools can be called in asyncio's own event loop only, not in {loop!r}")
        if not isinstance(vars(selector).get("select"), _Look):
            selector.select = _Look(self._look, selector.select)
        loop.add_reader(self._channel.fileno(), self._hear)
        self._loops.append(loop)

    def _look(self, select, timeout=None):
        """A selector's `select`."""
        sleeps = timeout is None or timeout > 0
        if sleeps and (self._unsent or self._woken) and self._cell is not None and _get_ident() == self._main_thread:
            events = select(0)
            if events:
                return events
            self._sheltered(self._send)
        return select(timeout)

    def _send(self):
        unsent, self._unsent, self._woken = self._unsent, [], False
        calls = []
        for future, size, function, text in unsent:
            if future.done():
                self._waiting_bytes -= size
                continue
            self._made += 1
            self._waiting[self._made] = (future, size, function)
            calls.append(f'["{function}",{text}]')
        if all(future.done() for future, *_ in self._waiting.values()):
            return
        text = f"[{','.join(calls)}]"
        head = f'{{"called":{{"id":{self._cell.id},"nonce":"{self._cell.nonce}","heard":{self._heard},"calls":'
        for at in range(0, len(text), PIECE_CHARS):
            part = "last" if at + PIECE_CHARS >= len(text) else "more"
            self._channel.send(f'{head}{_encode(text[at:at + PIECE_CHARS])},"part":"{part}"}}}}')

    def _hear(self):
        if self._cell is None or _get_ident() != self._main_thread:
            return
        try:
            self._sheltered(self._receive)
        except Exception as error:  # The loop would tell the user's code, and go on.
            leave(error)

    def _receive(self):
        self._reserve.give()
        answers, *tools = self._channel.receive_answers(self._cell.id)
        data = content(answers)
        if tools:
            self._learn(content(tools[0]))
        self._reserve.refill()
        self._heard += 1
        self._woken = True
        at = data.index(b"\n")
        heads, view = _loads_text(data[:at]), memoryview(data)[at + 1:]
        for number, kind, size in heads:
            self._answer(number, kind, str(view[:size], "utf-8"))
            view = view[size:]

    def _answer(self, number, kind, text):
        future, size, function = self._waiting.pop(number)
        self._waiting_bytes -= size
        if future.done():
            return
        if kind == "text":
            _quietly(future.set_result, text)
            return
        error = ToolError(function, text) if kind == "error" else TimeoutError(text)
        if kind == "timed_out":
            self._timeouts.append(error)
        _quietly(future.set_exception, error)


class _Look(partial):
    """By which a selector is known to have been attended to."""


def _function(name, call):
    import inspect

    async def tool(*arguments, **named):
        return await call(name, arguments, named)

    tool.__name__ = tool.__qualname__ = name
    tool.__module__ = "__main__"
    argument = inspect.Parameter("argument", inspect.Parameter.POSITIONAL_ONLY, annotation=dict)
    tool.__signature__ = inspect.Signature([argument], return_annotation=str)
    return tool


def _manual(description, schema):
    """What `help` shows."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict) or not properties:
        return description
    required = schema.get("required")
    lines = [description, "", "Keys of the argument:"] if description else ["Keys of the argument:"]
    for name, of in properties.items():
        of = of if isinstance(of, dict) else {}
        kind = of.get("type", "any")
        words = [" or ".join(kind) if isinstance(kind, list) and all(isinstance(k, str) for k in kind) else str(kind)]
        words += ["required"] if isinstance(required, list) and name in required else []
        said = of.get("description")
        lines.append(f"    {name} ({', '.join(words)})" + (f": {said}" if isinstance(said, str) else ""))
    return "\n".join(lines)


def _argument(function, arguments, named, schema):
    """The one argument, as JSON that any reader of JSON takes."""
    if named or len(arguments) != 1 or not isinstance(arguments[0], dict):
        keys = ", ".join(f'"{key}": ...' for key in named) or "..."
        given = "keyword arguments" if named else f"{len(arguments)} arguments" if len(arguments) != 1 else \
            _kind(arguments[0])
        raise TypeError(f"{function}() takes one argument, a dict, as in {function}({{{keys}}}), not {given}")
    _Plain(function).check(arguments[0], 0)
    text = _encode(arguments[0])
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{function}: the argument holds half of a surrogate pair, which is no character") from None
    if size > ARGUMENT_BYTES_MAX:
        raise _too_long(function)
    found = complaint(arguments[0], schema)
    if found is not None:
        raise TypeError(f"{function}: {found}")
    return text


def _too_long(function):
    return ValueError(f"{function}: the argument is longer than {ARGUMENT_BYTES_MAX} bytes as JSON; pass less in one call")


class _Plain:
    """Whether a value is JSON all through, and not too much of it to find out."""

    def __init__(self, function):
        self._function, self._size = function, 0

    def check(self, value, depth):
        """Raises what the author of the code understands."""
        self._size += 1 + (len(value) if isinstance(value, str) else 0)
        if self._size > ARGUMENT_BYTES_MAX:
            raise _too_long(self._function)
        if depth > ARGUMENT_DEPTH_MAX:
            raise ValueError(
                f"{self._function}: the argument is nested deeper than {ARGUMENT_DEPTH_MAX} levels, or holds itself")
        if value is None or isinstance(value, (str, bool)):
            return
        if isinstance(value, dict):
            for key in value:
                if not isinstance(key, str):
                    raise TypeError(f"{self._function}: keys must be strings, not {_kind(key)}")
                self._size += len(key)
            for part in value.values():
                self.check(part, depth + 1)
        elif isinstance(value, (list, tuple)):
            for part in value:
                self.check(part, depth + 1)
        elif isinstance(value, int):
            if not INTEGER_MIN <= value <= INTEGER_MAX:
                raise ValueError(f"{self._function}: an integer of more than 64 bits cannot be passed; pass it as a string")
        elif isinstance(value, float):
            if value - value != 0:  # Infinity or not a number.
                raise ValueError(f"{self._function}: {value} is no number that JSON has")
        else:
            raise TypeError(f"{self._function}: {_kind(value)} is not JSON; convert it first")


def _kind(value):
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return f"a value of type {name}"


def _quietly(function, *arguments):
    """For what belongs to a loop that may be closed by now."""
    try:
        function(*arguments)
    except RuntimeError:
        pass
