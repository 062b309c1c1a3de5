"""The server between a client and a Messages API: a strict fake upstream per case of `upstream/*.json`.

A case names its model, and its fake serves that model only, so one server takes them all. `server_tools` is its upstream's setting. `answers` are the fake's
(crates/model/tests/support/mod.rs); `files` are uploaded first, by the official SDK, and their ids are `file_$word`; `asks` are the client's requests (one without
`user` is the last one again), each with the whole reply that is expected;
`upstream` is every request that the fake is to see, whole but for the tools, of which the names are compared.
In expected texts `$word` stands for the random part of an id or for a time: any at first, and from then on the same.
"""

import json
import re
import subprocess
import tempfile
import time
from pathlib import Path

import batches_suite
from harness import http_client, server, toolchain
from harness.report import equal

HERE = Path(__file__).resolve().parent
KEY = "sk-upstream-7c1f0e-kept-secret"
# A client's own, for an MCP server: the vendor gets it and nobody else.
TOKEN = "token-of-the-client"
KEY_VARIABLE = "BELLJAR_TEST_UPSTREAM_KEY"
TOOL = {"type": "code_execution_20250825", "name": "code_execution"}
FAKE_STOP_S_MAX = 20
SDK_S_MAX = 120


def run(report, running, fake_binary):
    if not fake_binary.is_file():
        how = "cargo build -p belljar-model --example fake_upstream"
        return report.fail("starting", f"{fake_binary} is missing: {how}")
    texts = [path.read_text().replace("$UPSTREAM_KEY", KEY) for path in sorted((HERE / "upstream").glob("*.json"))]
    cases = [case for text in texts for case in json.loads(text)]
    settings = sorted({serving(case) for case in cases})
    for setting in settings:
        chosen = [case for case in cases if serving(case) == setting]
        try:
            serve(report, running.belljar, fake_binary, chosen, dict(setting))
        except (RuntimeError, OSError) as error:
            report.fail(f"starting a server with {setting}", error)


def serving(case):
    """The settings that the case's server has."""
    return tuple(sorted({"samplings_max": 10, "ping_interval_s": 60, **case.get("serving", {})}.items()))


def serve(report, belljar, fake_binary, cases, setting):
    """One server, one fake for each case."""
    fakes = {}
    try:
        for case in cases:
            fakes[case["model"]] = Fake(fake_binary, case["answers"])
        passed = {case["model"]: case.get("server_tools") for case in cases}
        tables = [upstream_table(model, fake.url, passed[model]) for model, fake in fakes.items()]
        with server.Server(
            belljar, serving=setting, upstreams=tables,
            environment={KEY_VARIABLE: KEY, "BELLJAR_LOG": "trace"},
        ) as between:
            replies = []
            for case in cases:
                fake = fakes[case["model"]]
                report.check(case["name"], lambda case=case, fake=fake: play(between.base_url, case, fake, replies))
            secrets = [KEY, TOKEN, *(fake.url.removeprefix("http://") for fake in fakes.values())]
            report.check("neither key nor address is in a reply", lambda: kept_from_clients(replies, secrets))
            report.check("the key is in no log and no data", lambda: key_kept(between))
            report.check("no thread panicked", between.no_panic)
    finally:
        for fake in fakes.values():
            fake.kill()


def upstream_table(model, url, server_tools):
    table = {"name": model, "kind": "anthropic", "base_url": url, "api_key_env": KEY_VARIABLE, "models": [model]}
    return {**table, "server_tools": server_tools} if server_tools is not None else table


class Fake:
    """A running fake upstream; it tells what it saw when it is finished."""

    def __init__(self, binary, answers):
        self.errors = tempfile.TemporaryFile("w+")
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(answers, file)
            file.flush()
            self.process = subprocess.Popen(
                [binary, file.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True,
            )
            self.url = self.process.stdout.readline().strip()
        if not self.url.startswith("http://"):
            raise RuntimeError(f"the fake upstream did not start: {self.said()}")

    def said(self):
        self.errors.seek(0)
        return self.errors.read()

    def finish(self):
        """Every request that it saw. Raises if one broke a rule."""
        out, _ = self.process.communicate(timeout=FAKE_STOP_S_MAX)
        equal((self.process.returncode, self.said()), (0, ""), "the fake upstream's exit status and broken rules")
        return [json.loads(line) for line in out.splitlines()]

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.errors):
            pipe.close()


class Matcher:
    """Compares with expected values that hold `$word`s, and remembers what each word stood for."""

    ID = r"01[1-9A-HJ-NP-Za-km-z]{22}"
    TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z"

    def __init__(self):
        self.words = {}

    def fill(self, value):
        """The value with every word replaced; each must be known."""
        if isinstance(value, str):
            return re.sub(r"\$(\w+)", lambda word: self.words[word[1]], value)
        if isinstance(value, list):
            return [self.fill(item) for item in value]
        if isinstance(value, dict):
            return {key: self.fill(item) for key, item in value.items()}
        return value

    def same(self, actual, expected, path):
        if isinstance(expected, dict) and isinstance(actual, dict):
            equal(sorted(actual), sorted(expected), f"keys of {path}")
            for key in expected:
                self.same(actual[key], expected[key], f"{path}.{key}")
        elif isinstance(expected, list) and isinstance(actual, list):
            for index, (ours, theirs) in enumerate(zip(actual, expected)):
                self.same(ours, theirs, f"{path}[{index}]")
            equal(len(actual), len(expected), f"length of {path}, which is {actual!r}")
        elif isinstance(expected, str) and isinstance(actual, str) and "$" in expected:
            self.text(actual, expected, path)
        else:
            equal((type(actual), actual), (type(expected), expected), path)

    def text(self, actual, expected, path):
        words = []

        def piece(part):
            if not part.startswith("$"):
                return re.escape(part)
            if part[1:] in self.words:
                return re.escape(self.words[part[1:]])
            words.append(part[1:])
            return f"({self.TIME if part.startswith('$time') else self.ID})"

        pattern = "".join(piece(part) for part in re.split(r"(\$\w+)", expected))
        found = re.fullmatch(pattern, actual)
        if found is None:
            raise AssertionError(f"{path}: got {actual!r}, expected {expected!r} with {self.words!r}")
        self.words.update(zip(words, found.groups()))


def play(base_url, case, fake, replies):
    """Asks for everything that the case asks, then compares what its fake saw."""
    matcher = Matcher()
    for word, file in case.get("files", {}).items():
        matcher.words[word] = uploaded(base_url, file).removeprefix("file_")
    history = list(case.get("history", []))
    headers = http_client.api_headers(anthropic_beta=case.get("betas", "code-execution-2025-08-25"))
    for number, ask in enumerate(case["asks"]):
        if "user" in ask:
            content = ask["user"] if isinstance(ask["user"], str) else matcher.fill(ask["user"])
            history.append({"role": "user", "content": content})
        body = {"model": case["model"], "max_tokens": 1024, "tools": [TOOL], **case.get("request", {})}
        body.update(matcher.fill(ask.get("more", {})), messages=history)
        started = time.monotonic()
        reply = WAYS[ask.get("by", "plain")](base_url, body, headers, replies)
        took = time.monotonic() - started
        equal(reply["status"], ask["expect"]["status"], f"status of {reply!r}")
        matcher.same(reply, ask["expect"], f"reply {number}")
        if took < ask.get("takes_s_min", 0):
            raise AssertionError(f"it took {took:.2f} s; expected at least {ask['takes_s_min']} s")
        if "content" in reply.get("reply", {}):
            history.append({"role": "assistant", "content": reply["reply"]["content"]})
    defaults = {"model": case["model"], "max_tokens": 1024, "stream": True}
    # A request that counts says less.
    expected = [{"model": case["model"], **body} if body.pop("counts", False) else {**defaults, **body} for body in case["upstream"]]
    matcher.same([lowered(request, case.get("upstream_betas")) for request in fake.finish()], expected, "upstream")


def lowered(request, betas):
    """A request as the fake saw it, with its tools by name. Credentials and betas have to be the server's."""
    headers, body = request["headers"], request["body"]
    found = [headers.get(name) for name in ("x-api-key", "authorization", "anthropic-beta")]
    equal(found, [KEY, None, betas], "credentials and betas upstream")
    return {**body, "tools": [told_upstream(tool) for tool in body.get("tools", [])]}


def told_upstream(tool):
    """A tool of the vendor's own is compared whole, any other by its name."""
    vendors = tool.get("type", "").startswith(("web_", "tool_search_", "mcp_"))
    return tool if vendors else tool["name"]



def plain(base_url, body, headers, replies):
    return told(http_client.post_json(base_url, "/v1/messages", body, headers), replies)


def stream(base_url, body, headers, replies):
    """Every event whole, but for pings and how texts are cut into deltas."""
    answer = http_client.stream(base_url, body, headers)
    if answer.status != 200:
        return told(answer, replies)
    replies.append(answer)
    return {"status": 200, "events": joined(answer.events)}


def told(answer, replies):
    """Status, document, and the headers that clients act on."""
    replies.append(answer)
    out = {"status": answer.status, "reply": answer.json()}
    for header in ("retry-after", "x-should-retry"):
        if header in answer.headers:
            out[header.replace("-", "_")] = answer.headers[header]
    return out


def joined(events):
    """The events without pings; neighbouring deltas of one kind are one."""
    out = []
    for _name, data in events:
        last = out[-1].get("delta", {}) if out else {}
        delta = data.get("delta", {})
        if data["type"] == "ping":
            continue
        if data["type"] == "content_block_delta" and last.get("type") == delta["type"]:
            key = next(key for key in delta if key != "type")
            last[key] += delta[key]
        else:
            out.append(data)
    return out


def sdk(base_url, body, _headers, _replies):
    """Streamed by the official SDK, which folds the events itself."""
    return {"status": 200, "reply": by_sdk(base_url, "ask", body)}


def uploaded(base_url, file):
    """The id of a file that the official SDK uploads."""
    return by_sdk(base_url, "upload", file)["id"]


def by_sdk(base_url, what, given):
    python = toolchain.python_with(HERE / "locks" / "anthropic-2.11.0.txt")
    ended = subprocess.run(
        [str(python), str(HERE / "upstream_sdk.py"), base_url, what], input=json.dumps(given), capture_output=True, text=True,
        timeout=SDK_S_MAX,
    )
    equal(ended.returncode, 0, ended.stderr)
    return json.loads(ended.stdout)


def counted(base_url, body, headers, replies):
    """How many tokens it would read, without the number."""
    asked = {key: value for key, value in body.items() if key != "max_tokens"}
    said = told(http_client.post_json(base_url, "/v1/messages/count_tokens", asked, headers), replies)
    if said["status"] == 200:
        equal(sorted(said.pop("reply")), ["input_tokens"])
    return said


def batched(base_url, body, _headers, _replies):
    """What comes of it as the only request of a batch."""
    batch = batches_suite.make(base_url, [{"custom_id": "only", "params": body}])
    return {"status": 200, "result": batches_suite.results(base_url, batches_suite.ended(base_url, batch["id"]))["only"]}


WAYS = {"plain": plain, "stream": stream, "sdk": sdk, "count": counted, "batch": batched}


def kept_from_clients(replies, secrets):
    if not replies:
        raise AssertionError("there was no reply")
    for answer in replies:
        whole = f"{answer.headers}\n{answer.text}"
        equal([secret for secret in secrets if secret in whole], [], f"secrets in {whole!r}")


def key_kept(between):
    kept = [between.log_path, *(path for path in between.data_dir.rglob("*") if path.is_file())]
    for secret in (KEY, TOKEN):
        equal([path.name for path in kept if secret.encode() in path.read_bytes()], [], f"files that hold {secret}")
    if "TRACE" not in between.log():
        raise AssertionError("the log is not at its fullest: it proves nothing")
