"""The server between a client and chat completions, or responses: the strict fake upstream per case of `openai/cases.json` and `openai/responses.json`.

As `upstream_suite.py`, whose fakes and matchers these are. `table` is what the case's upstream is told beside its address; `next` are the
answers of a second upstream for the same name. Of a reply, `expect` holds the status and either the content, why it stopped,
`[input, cached, output]` tokens (or `estimated`) and the container where it is named, or the error.
"""

import json
import subprocess
from pathlib import Path

import upstream_suite
from harness import http_client, server, toolchain
from harness.report import equal
from upstream_suite import KEY, KEY_VARIABLE, TOOL, Fake, Matcher

HERE = Path(__file__).resolve().parent
SDK_S_MAX = 120
SDK_MODEL = "openai_sdk"
NEXT = "_next"
# Of each API, what every body has unless its case says otherwise.
DEFAULTS = {
    "chat": {"model": "sent-upstream", "max_tokens": 1024, "stream": True, "stream_options": {"include_usage": True}},
    "responses": {"model": "sent-upstream", "max_output_tokens": 1024, "stream": True, "store": False},
}


def run(report, running, fake_binary):
    if not fake_binary.is_file():
        how = "cargo build -p belljar-model --example fake_upstream"
        return report.fail("starting", f"{fake_binary} is missing: {how}")
    texts = [(HERE / "openai" / name).read_text() for name in ("cases.json", "responses.json")]
    cases = [case for text in texts for case in json.loads(text.replace("$UPSTREAM_KEY", KEY))]
    answers = json.loads((HERE / "openai" / "sdk_answers.json").read_text())
    fakes = {}
    try:
        for case in cases:
            fakes[case["model"]] = Fake(fake_binary, case["answers"])
            if "next" in case:
                fakes[next_of(case)] = Fake(fake_binary, case["next"])
        fakes[SDK_MODEL] = Fake(fake_binary, answers)
        given = {case["model"]: case.get("table", {}) for case in cases}
        tables = [upstream_table(model, fake.url, given.get(model, {})) for model, fake in fakes.items()]
        with server.Server(
            running.belljar, serving={"ping_interval_s": 60}, upstreams=tables,
            environment={KEY_VARIABLE: KEY, "BELLJAR_LOG": "trace"},
        ) as between:
            replies = []
            for case in cases:
                fake = fakes[case["model"]]
                report.check(case["name"], lambda case=case, fake=fake: play(between.base_url, case, fake, replies))
            report.check("the official SDK, a file in and a file out", lambda: sdk(between.base_url, fakes[SDK_MODEL]))
            secrets = [KEY, *(fake.url.removeprefix("http://") for fake in fakes.values())]
            report.check("what is configured of a model is listed", lambda: listed(between.base_url, given))
            report.check("neither key nor address is in a reply", lambda: upstream_suite.kept_from_clients(replies, secrets))
            report.check("the key is in no log and no data", lambda: upstream_suite.key_kept(between))
            report.check("no thread panicked", between.no_panic)
    finally:
        for fake in fakes.values():
            fake.kill()


def listed(base_url, given):
    """Limits and capabilities of every model, as far as its table has them."""
    said = 0
    for model, table in given.items():
        info = http_client.call(base_url, "GET", f"/v1/models/{model}", headers=http_client.api_headers()).json()
        capabilities = info["capabilities"]
        found = [info["max_input_tokens"], info["max_tokens"], capabilities.get("image_input"), capabilities["server_tools"]["code_execution"]]
        vision = table.get("vision")
        expected = [
            table.get("context_tokens_max"), table.get("output_tokens_max"), None if vision is None else {"supported": vision},
            {"supported": table.get("tools", True)},
        ]
        equal(found, expected, f"what is listed of {model}")
        said += sum(value is not None for value in expected[:3])
    if said == 0:
        raise AssertionError("no case configures anything: it proves nothing")


def next_of(case):
    """The name of the upstream that is asked when the case's own fails."""
    return f"{case['model']}{NEXT}"


def upstream_table(model, url, given):
    return {
        "name": model, "kind": "openai", "base_url": f"{url}/v1", "api_key_env": KEY_VARIABLE, "models": [model.removesuffix(NEXT)],
        "model": "sent-upstream", "tool_texts": "hosted", **given,
    }


def play(base_url, case, fake, replies):
    """Asks for everything that the case asks, then compares what its fake saw."""
    matcher, history = Matcher(), []
    headers = http_client.api_headers(anthropic_beta="code-execution-2025-08-25")
    for number, ask in enumerate(case["asks"]):
        history.append({"role": "user", "content": matcher.fill(ask["user"])})
        body = {"model": case["model"], "max_tokens": 1024, "tools": [TOOL], **case.get("request", {})}
        body.update(matcher.fill(ask.get("more", {})), messages=history)
        reply = WAYS[ask.get("by", "plain")](base_url, body, headers, replies)
        matcher.same(short(reply, ask["expect"]), ask["expect"], f"reply {number}")
        if "content" in reply:
            history.append({"role": "assistant", "content": reply["content"]})
    expected = [{**DEFAULTS[case.get("table", {}).get("api", "chat")], **body} for body in case["upstream"]]
    for body in expected:
        for key in [key for key, value in body.items() if value is None]:
            del body[key]
    matcher.same([lowered(request) for request in fake.finish()], expected, "upstream")


def short(reply, expected):
    """A reply in the form of the cases. Of an estimate of tokens only the form is fixed: it grows with our tools' texts."""
    if reply["status"] != 200 or "error" in reply:
        return {"status": reply["status"], "error": [reply["error"]["type"], reply["error"]["message"]], **reply.get("headers", {})}
    usage = reply["usage"]
    tokens = [usage["input_tokens"], usage["cache_read_input_tokens"], usage["output_tokens"]]
    if expected.get("usage") == "estimated" and tokens[0] > 0 and tokens[1] == 0 and tokens[2] > 0:
        tokens = "estimated"
    out = {"status": 200, "content": reply["content"], "stop_reason": reply["stop_reason"], "usage": tokens}
    return {**out, "container": reply["container"]["id"]} if "container" in expected else out


def plain(base_url, body, headers, replies):
    answer = http_client.post_json(base_url, "/v1/messages", body, headers)
    replies.append(answer)
    kept = {name: answer.headers[name] for name in ("retry-after",) if name in answer.headers}
    return {**answer.json(), "status": answer.status, **({"headers": kept} if kept else {})}


def stream(base_url, body, headers, replies):
    """The events, folded; an error event ends them."""
    answer = http_client.stream(base_url, body, headers)
    replies.append(answer)
    if answer.status != 200:
        return {**answer.json(), "status": answer.status}
    content, out = [], {}
    for name, data in answer.events:
        if name == "error":
            return {"status": 200, "error": data["error"]}
        fold(name, data, content, out)
    return {"status": 200, "content": content, **out}


def fold(name, data, content, out):
    if name == "content_block_start":
        content.append(dict(data["content_block"]))
    elif name == "content_block_delta":
        delta, block = data["delta"], content[data["index"]]
        key = next(key for key in delta if key != "type")
        if delta["type"] == "input_json_delta":
            block["_json"] = block.get("_json", "") + delta[key]
        else:
            block[key] = block.get(key, "") + delta[key]
    elif name == "content_block_stop" and content[data["index"]].get("_json"):
        content[data["index"]]["input"] = json.loads(content[data["index"]]["_json"])
    elif name == "message_delta":
        out.update(stop_reason=data["delta"]["stop_reason"], usage=data["usage"], container=data["delta"].get("container"))
    for block in content if name == "content_block_stop" else []:
        block.pop("_json", None)


WAYS = {"plain": plain, "stream": stream}


def lowered(request):
    """A request as the fake saw it, with its tools by name. Credentials have to be the server's."""
    headers, body = request["headers"], request["body"]
    found = [headers.get(name) for name in ("authorization", "x-api-key", "anthropic-beta", "anthropic-version")]
    equal(found, [f"Bearer {KEY}", None, None, None], "credentials upstream")
    return {**body, "tools": [tool.get("function", tool)["name"] for tool in body.get("tools", [])]}


def sdk(base_url, fake):
    """`openai_sdk.py`, and what its two turns asked of the upstream."""
    python = toolchain.python_with(HERE / "locks" / "anthropic-2.11.0.txt")
    ended = subprocess.run(
        [str(python), str(HERE / "openai_sdk.py"), base_url, SDK_MODEL], capture_output=True, text=True, timeout=SDK_S_MAX,
    )
    equal(ended.returncode, 0, ended.stdout + ended.stderr)
    seen = [request["body"] for request in fake.finish()]
    equal(len(seen), 3, "requests upstream")
    upload = '[The user uploaded a file named "in.csv"; it is in $INPUT_DIR.]'
    equal(seen[0]["messages"], [{"role": "user", "content": f"{upload}\n\nSum it up."}], "the first request")
    results = [message for message in seen[2]["messages"] if message["role"] == "tool"]
    equal([(result["tool_call_id"], result["content"]) for result in results], [("call00000", "6\n")], "results upstream")
    equal([message["role"] for message in seen[2]["messages"]], ["user", "assistant", "tool", "assistant", "user"], "roles")
