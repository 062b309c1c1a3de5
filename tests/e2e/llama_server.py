"""llama.cpp's server, as its package has it, with two slots: llama_server.py FILE KEY CONTEXT.

Prints its address, and ends with its input. It is told to keep to one thread: the model is small, and other suites want the cores.
"""

import sys

import xllamacpp

SLOTS = 2


def main():
    file, key, context = sys.argv[1:]
    parameters = xllamacpp.CommonParams()
    parameters.model.path = file
    parameters.model_alias = {"toy"}
    parameters.api_keys = [key]
    parameters.n_ctx = int(context) * SLOTS
    parameters.n_parallel = SLOTS
    parameters.use_jinja = True
    parameters.warmup = False
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    for threads in (parameters.cpuparams, parameters.cpuparams_batch):
        threads.n_threads = 1
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)
    sys.stdin.read()
    # Its threads are still at their work, and ending each has nothing to show.
    sys.stdout.close()


if __name__ == "__main__":
    main()
