"""An interpreter for `belljar bench` with nothing around it: no wall, no limits, no files, no live output. Each line of standard input is
a JSON string of source to execute; each line of standard output is a JSON string of what that printed.
"""

import io
import json
import os
import sys


def main(names):
    requests = os.fdopen(0, "rb")
    for line in requests:
        printed = sys.stdout = io.StringIO()
        exec(compile(json.loads(line), "<cell>", "exec"), names)
        os.write(1, json.dumps(printed.getvalue()).encode() + b"\n")


main({"__name__": "__main__"})
