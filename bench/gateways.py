"""What a gateway adds to a stream, Belljar beside LiteLLM's proxy, in front of the same fake: `bench/gateways.py BELLJAR STREAM_LOAD`.

Both programs are release builds (`cargo build --release --bin belljar`, `cargo build --release -p belljar-model --example stream_load`).
Each contestant stands between the client and the fake of `stream_load`, or nothing does (`direct`), by turns, with 1, 50 and 200
streams at once: `burst` is 200 tokens as fast as they come, `paced` 50 tokens 20 ms apart. Memory is the proportional share
(PSS) of the gateway's process, and of that with all that it started (Belljar's interpreters and containers ahead of need: LiteLLM
runs no code), at rest and the most that was seen meanwhile. `copier` is a gateway of the same parts as Belljar (axum, hyper, reqwest) that
passes bytes on and reads none: less than it adds, no gateway of these parts can. One line of JSON each; the last ones hold how many times as much
LiteLLM adds, and how many times as much as the copier Belljar does.
"""

import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from harness import toolchain  # noqa: E402

STREAMS = (1, 50, 200)
# The model's name, its tokens, and the rounds for each number of streams.
LOADS = {"burst": ("load-200-0", 200, (100, 4, 2)), "paced": ("load-50-20", 50, (4, 2, 1))}
READY_S_MAX = 120


def main():
    belljar, stream_load = (str(Path(path).resolve()) for path in sys.argv[1:3])
    litellm = toolchain.python_with(HERE / "litellm.txt").parent / "litellm"
    say({
        "kernel": platform.release(), "cores": os.cpu_count(), "processor": processor(), "load_average": os.getloadavg()[0],
        "belljar": said([belljar, "--version"]), "litellm": said([litellm, "--version"]).splitlines()[-1],
    })
    with tempfile.TemporaryDirectory() as folder:
        fake = subprocess.Popen([stream_load, "fake"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        url = fake.stdout.readline().strip()
        gateways = [Copier(stream_load, url), Belljar(belljar, url, Path(folder)), Litellm(litellm, url, Path(folder))]
        try:
            for gateway in gateways:
                gateway.wait()
                say({"gateway": gateway.name, "rest_process_pss_kib": of_one(gateway.process.pid), "rest_pss_kib": pss_kib(gateway.process.pid)})
            rows = list(measured(stream_load, url, gateways))
        finally:
            for process in [fake, *(gateway.process for gateway in gateways)]:
                process.terminate()
                process.wait()
    for verdict in verdicts(rows):
        say(verdict)


def measured(stream_load, fake, gateways):
    """A row for each load, number of streams, dialect of the upstream and way there."""
    for load, (model, _tokens, rounds) in LOADS.items():
        for streams, rounds in zip(STREAMS, rounds, strict=True):
            ways = [("direct", "chat", fake, "chat", model, None), ("direct", "messages", fake, "messages", model, None)]
            for gateway in gateways:
                ways += [(gateway.name, *way, gateway) for way in gateway.ways(model)]
            for name, upstream, url, dialect, named, gateway in ways:
                peak = Peak(gateway.process.pid) if gateway else None
                command = [stream_load, "client", url, dialect, named, str(streams), str(rounds)]
                ran = subprocess.run(command, capture_output=True, text=True, timeout=600)
                row = {"gateway": name, "load": load, "upstream": upstream, "client": dialect, "streams": streams}
                row |= json.loads(ran.stdout) if ran.returncode == 0 else {"failed": ran.stderr.strip()[:500]}
                if peak:
                    row["peak_process_pss_kib"], row["peak_pss_kib"] = peak.end()
                say(row)
                if name == "direct" and "failed" in row:
                    raise RuntimeError(row["failed"])
                yield row


def verdicts(rows):
    """Belljar's share of LiteLLM's added time and memory; of LiteLLM's ways to the same upstream the one that adds less."""
    for load in LOADS:
        for streams in STREAMS:
            for upstream in ("chat", "messages"):
                those = [row for row in rows if (row["load"], row["streams"], row["upstream"]) == (load, streams, upstream) and "failed" not in row]
                direct = next(row for row in those if row["gateway"] == "direct")
                tokens = LOADS[load][1]

                def added(row):
                    # Of a burst the whole stream, by token; of a paced one what each token took on its way.
                    if load == "burst":
                        return (row["stream_ms"]["p50"] - direct["stream_ms"]["p50"]) * 1000 / tokens
                    return row["token_us"]["p50"] - direct["token_us"]["p50"]

                best = {name: min((row for row in those if row["gateway"] == name), key=added, default=None) for name in ("copier", "belljar", "litellm")}
                verdict = {"load": load, "streams": streams, "upstream": upstream, "direct_us_per_token": round(direct["stream_ms"]["p50"] * 1000 / tokens, 1)}
                if None in best.values():
                    yield verdict | {"unmeasured": [name for name, row in best.items() if row is None]}
                    continue
                floor, ours, theirs = (added(row) for row in best.values())
                yield verdict | {
                    "added_us_per_token": {"copier": round(floor, 1), "belljar": round(ours, 1), "litellm": round(theirs, 1)},
                    "litellm_over_belljar": round(theirs / max(ours, 0.1), 1), "belljar_over_copier": round(ours / max(floor, 0.1), 1),
                    "litellm_over_copier": round(theirs / max(floor, 0.1), 1),
                    "litellm_memory_over_belljar": {
                        of: round(best["litellm"][key] / best["belljar"][key], 1)
                        for of, key in (("the process", "peak_process_pss_kib"), ("with the sandbox that stands ready", "peak_pss_kib"))
                    },
                    "streams_per_s": {name: round(row["streams_per_s"], 1) for name, row in [("direct", direct), *best.items()]},
                }


class Gateway:
    def __init__(self, command, log, environment):
        self.log = log
        with open(log, "w") as out:
            self.process = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=os.environ | environment)

    def wait(self):
        """Until it answers anything."""
        end = time.monotonic() + READY_S_MAX
        while time.monotonic() < end and self.process.poll() is None:
            try:
                urllib.request.urlopen(self.url + self.health, timeout=5)
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        raise RuntimeError(f"{self.name} did not start: {self.log.read_text()[-2000:]}")


class Copier(Gateway):
    name = "copier"

    def __init__(self, stream_load, fake):
        self.process = subprocess.Popen([stream_load, "copier", fake], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().strip()

    def wait(self):
        """Its address was its first word."""

    def ways(self, model):
        return [("chat", self.url, "chat", model), ("messages", self.url, "messages", model)]


class Belljar(Gateway):
    name, health = "belljar", "/healthz"

    def __init__(self, binary, fake, folder):
        self.url = f"http://127.0.0.1:{free_port()}"
        tables = [
            f'[[upstream]]\nname = "{kind}"\nkind = "{kind}"\nbase_url = "{fake}{path}"\napi_key_env = "BENCH_KEY"\nmodels = ["{prefix}*"]\n'
            for kind, path, prefix in (("openai", "/v1", "load-"), ("anthropic", "", "hosted-load-"))
        ]
        # What is sent upstream is the fake's own name for its model.
        aliases = "\n".join(f'hosted-{model} = "{model}"' for model, _, _ in LOADS.values())
        tables[1] = tables[1].replace('models = ["hosted-load-*"]\n', f"models = []\n[upstream.aliases]\n{aliases}\n")
        config = folder / "belljar.toml"
        config.write_text(f'listen = "{self.url[7:]}"\ndata_dir = "{folder}/data"\n' + "\n".join(tables) + "\n[sandbox]\npool_containers = 1\n")
        super().__init__([binary, "serve", "--config", config], folder / "belljar.log", {"BENCH_KEY": "sk-bench", "BELLJAR_LOG": "warn"})

    def ways(self, model):
        return [("chat", self.url, "messages", model), ("messages", self.url, "messages", f"hosted-{model}")]


class Litellm(Gateway):
    name, health = "litellm", "/health/liveliness"

    def __init__(self, program, fake, folder):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        models = []
        for model, _, _ in LOADS.values():
            models.append({"model_name": model, "litellm_params": {"model": f"openai/{model}", "api_base": f"{fake}/v1", "api_key": "sk-bench"}})
            models.append({"model_name": f"hosted-{model}", "litellm_params": {"model": f"anthropic/{model}", "api_base": fake, "api_key": "sk-bench"}})
        config = folder / "litellm.yaml"
        # JSON is YAML.
        config.write_text(json.dumps({"model_list": models, "litellm_settings": {
            "telemetry": False, "num_retries": 0, "use_chat_completions_url_for_anthropic_messages": True,
        }}))
        # Neither asks for a key: what is compared is the way of a stream.
        environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true"}
        super().__init__([program, "--config", config, "--host", "127.0.0.1", "--port", port], folder / "litellm.log", environment)

    def ways(self, model):
        return [
            ("chat", self.url, "chat", model), ("chat", self.url, "messages", model),
            ("messages", self.url, "messages", f"hosted-{model}"),
        ]


class Peak:
    """The most memory that a process has meanwhile, alone and with all that it started."""

    def __init__(self, pid):
        self.pid, self.most, self.over = pid, (0, 0), threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()

    def _watch(self):
        while not self.over.is_set():
            self.most = tuple(map(max, self.most, (of_one(self.pid), pss_kib(self.pid))))
            self.over.wait(0.2)

    def end(self):
        self.over.set()
        self.thread.join()
        return self.most


def pss_kib(pid):
    return sum(of_one(process) for process in [pid, *below(pid)])


def of_one(pid):
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def below(pid):
    """All that descends from a process."""
    try:
        children = [child for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
    except OSError:
        return []
    return [each for child in children for each in [int(child), *below(int(child))]]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def processor():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def said(command):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout.strip()


def say(document):
    print(json.dumps(document), flush=True)


if __name__ == "__main__":
    main()
