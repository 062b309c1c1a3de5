"""Drives one Jupyter kernel for `belljar bench`: each line of standard input is a JSON string of source to execute; each
line of standard output says, in microseconds, when the output and when the reply had come, and what the output was.

The round trip ends when both are here; the kernel's return to `idle` is awaited, not counted.
"""

import json
import sys
import time

from jupyter_client.manager import start_new_kernel


def round_trip(client, source):
    begun = time.perf_counter()
    request = client.execute(source)
    output = ""
    # A line may come in pieces.
    while not output.endswith("\n"):
        message = client.get_iopub_msg(timeout=60)
        if message["parent_header"].get("msg_id") == request and message["msg_type"] == "stream":
            output += message["content"]["text"]
    output_at = time.perf_counter()
    client.get_shell_msg(timeout=60)
    replied_at = time.perf_counter()
    idle = False
    while not idle:
        message = client.get_iopub_msg(timeout=60)
        ours = message["parent_header"].get("msg_id") == request
        idle = ours and message["content"].get("execution_state") == "idle"
    micros = lambda then: (then - begun) * 1e6
    return {"output_us": micros(output_at), "both_us": micros(max(output_at, replied_at)), "output": output}


def main():
    manager, client = start_new_kernel(kernel_name="python3", startup_timeout=120)
    try:
        print(json.dumps({"ready": True}), flush=True)
        for line in sys.stdin:
            print(json.dumps(round_trip(client, json.loads(line))), flush=True)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


main()
