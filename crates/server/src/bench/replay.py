"""Runs a cell as servers do that keep no interpreter: from its start, with the results that are known, up to the first call that has
none. Told the cell as the argument and the results on standard input, a line each; prints what the cell prints, or the call.

Nothing is imported that a bare interpreter has not: no replay is quicker.
"""

import sys

TOP_LEVEL_AWAIT = 0x2000
known = sys.stdin.read().splitlines()[::-1]


async def step(argument):
    if known:
        return known.pop()
    print("call", argument["to"])
    sys.exit()


running = eval(compile(sys.argv[1], "cell", "exec", TOP_LEVEL_AWAIT), {"step": step})
try:
    running.send(None)
except StopIteration:
    pass
