"""What workspaces may hold and use: exactly as much passes as may, however many ask at once, and the rest is told what to do."""

import re
from concurrent.futures import ThreadPoolExecutor

from harness import http_client, server
from harness.report import equal
from keys_suite import command
from talk import CODE, until
from tenants_suite import Caller, good

AT_ONCE = 12
WORKSPACES = [
    {"name": "files", "files_max": 4},
    {"name": "bytes", "files_bytes_max": 1000},
    {"name": "containers", "containers_max": 3},
    {"name": "copies", "containers_max": 1},
    {"name": "executions", "executions_per_day_max": 5},
    {"name": "tokens", "tokens_per_day_max": 500},
    {"name": "requests", "requests_per_minute_max": 3},
    {"name": "input", "input_tokens_per_minute_max": 200},
    {"name": "output", "output_tokens_per_minute_max": 10},
]


def run(report, running):
    def make_keys(own):
        own.keys = {table["name"]: command(own, "create", "--workspace", table["name"], "--scope", "per-user")["key"] for table in WORKSPACES}
        own.keys["free"] = command(own, "create", "--workspace", "free")["key"]

    try:
        with server.Server(running.belljar, scripts=running.scripts, workspaces=WORKSPACES, prepare=make_keys) as own:
            for check in CHECKS:
                report.check(check.__doc__, lambda check=check: check(own))
            report.check("it never panicked", own.no_panic)
    except RuntimeError as error:
        report.fail("starting a server with limits", error)


def users(own, name):
    """End users of a workspace, who share what it may have."""
    return [Caller(f"user {n}", own.base_url, own.keys[name], f"user {n}") for n in range(3)]


def at_once(own, name, ask):
    """Answers to as many requests at the same time, by different end users."""
    callers = users(own, name)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda n: ask(callers[n % len(callers)], n), range(AT_ONCE)))


def passed(answers, expected, status, kind):
    """So many passed; the others were told the same."""
    equal(sorted(answer.status for answer in answers), sorted([200] * expected + [status] * (len(answers) - expected)))
    refused = [answer for answer in answers if answer.status != 200]
    equal({answer.json()["error"]["type"] for answer in refused}, {kind})
    return refused


def files(own):
    """of uploads at once as many pass as there may be files"""
    answers = at_once(own, "files", lambda by, n: by.upload(name=f"{n}.txt"))
    for answer in passed(answers, 4, 400, "invalid_request_error"):
        equal(answer.json()["error"]["details"], {"error_code": "storage_quota_exceeded"})
    made = next((n, answer) for n, answer in enumerate(answers) if answer.status == 200)
    owner = users(own, "files")[made[0] % 3]
    good(owner.call("DELETE", f"/v1/files/{made[1].json()['id']}"))
    equal(users(own, "files")[0].upload().status, 200, "in the place of a deleted one")


def bytes_of_files(own):
    """bytes are the workspace's, whoever of its end users uploads them"""
    one, other, _ = users(own, "bytes")
    equal(one.upload(b"x" * 600).status, 200)
    refused = other.upload(b"x" * 600)
    equal((refused.status, refused.json()["error"]["details"]["error_code"]), (400, "storage_quota_exceeded"))
    equal(other.upload(b"x" * 400).status, 200)


def containers(own):
    """of containers at once as many are made as may live, and an idle one goes to disk for the next"""
    answers = at_once(own, "containers", lambda by, n: by.call("POST", "/belljar/v1/containers", {}))
    for answer in passed(answers, 3, 429, "rate_limit_error"):
        equal(answer.headers["retry-after"], "5")
    first = next((n, answer.json()["id"]) for n, answer in enumerate(answers) if answer.status == 200)
    by = users(own, "containers")[first[0] % 3]
    until(lambda: by.call("POST", "/belljar/v1/containers", {}).status == 200, "one is idle")
    listed = [state for user in users(own, "containers") for state in states(user)]
    equal(sorted(listed), ["checkpointed", "ready", "ready", "ready"])


def states(user):
    return sorted(entry["state"] for entry in good(user.call("GET", "/belljar/v1/containers"))["data"])


def copies(own):
    """forks, imports and ways back to a checkpoint live within the same number, and are their end user's"""
    one, other, _ = users(own, "copies")
    path = f"/belljar/v1/containers/{good(one.call('POST', '/belljar/v1/containers', {}))['id']}"
    checkpoint = {"checkpoint_id": good(one.call("POST", f"{path}/checkpoint"))["checkpoint_id"]}
    archive = one.call("GET", f"{path}/export").body
    headers = other.headers(content_type="application/x-tar")
    take_in = lambda: http_client.call(own.base_url, "POST", "/belljar/v1/containers/import", headers, archive)
    for refused in (take_in(), one.call("POST", f"{path}/fork")):
        equal((refused.status, refused.headers["retry-after"]), (429, "5"), refused.text)
    equal((states(one), states(other)), (["ready"], []), "nothing is left of what was refused")
    until(lambda: take_in().status == 200, "the first is idle")
    equal((states(one), states(other)), (["checkpointed"], ["ready"]))
    equal(good(one.call("POST", f"{path}/fork", checkpoint))["state"], "checkpointed")
    equal(one.call("POST", f"{path}/restore", checkpoint).status, 429)
    until(lambda: one.call("POST", f"{path}/restore", checkpoint).status == 200, "what was imported is idle")
    equal((states(one), states(other)), (["checkpointed", "ready"], ["checkpointed"]))


def executions(own):
    """of cells at once as many run as the day has left, and a killed server forgets none"""
    callers = users(own, "executions")
    made = [good(by.call("POST", "/belljar/v1/containers", {}))["id"] for by in callers]
    cell = {"language": "bash", "source": "true"}
    ask = lambda by, n: by.call("POST", f"/belljar/v1/containers/{made[n % 3]}/cells", cell)
    for answer in passed(at_once(own, "executions", ask), 5, 429, "rate_limit_error"):
        used_up(answer, "5 executions")
    own.crash()
    by = users(own, "executions")[0]
    container = good(by.call("POST", "/belljar/v1/containers", {}))["id"]
    used_up(by.call("POST", f"/belljar/v1/containers/{container}/cells", cell), "5 executions")
    reply = good(by.message("bash", tools=[CODE]))
    told = [block["content"] for block in reply["content"] if block["type"] == "bash_code_execution_tool_result"]
    equal([(block["type"], block["error_code"]) for block in told], [("bash_code_execution_tool_result_error", "too_many_requests")])
    today = [row["today"]["executions"] for row in command(own, "usage")["data"] if row["workspace"] == "executions" and row["today"]]
    equal(today, [5])


def used_up(answer, what):
    """Nothing that a client tries again by itself: it would for hours."""
    equal((answer.status, answer.json()["error"]["type"]), (429, "rate_limit_error"), answer.text)
    equal((answer.headers.get("retry-after"), answer.headers.get("x-should-retry")), (None, "false"))
    if not re.search(rf"quota of {what} per day. It is whole again at \d{{4}}-\d\d-\d\dT00:00:00.000000Z\.", answer.text):
        raise AssertionError(answer.text)


def tokens(own):
    """a day's tokens are those that replies tell of"""
    by, spent = users(own, "tokens")[0], 0
    while True:
        answer = by.message("plain")
        if answer.status != 200:
            break
        usage = answer.json()["usage"]
        spent += usage["input_tokens"] + usage["output_tokens"]
        today = [row["today"]["tokens"] for row in command(own, "usage")["data"] if row["workspace"] == "tokens" and row["today"]]
        equal(today, [spent])
    used_up(answer, "500 tokens")
    if not 250 < spent < 1000:
        raise AssertionError(f"refused after {spent} tokens")


def requests(own):
    """of requests at once as many pass as the minute has, and headers tell what is left"""
    answers = at_once(own, "requests", lambda by, n: by.message("plain"))
    for answer in passed(answers, 3, 429, "rate_limit_error"):
        if not 1 <= int(answer.headers["retry-after"]) <= 20:
            raise AssertionError(answer.headers["retry-after"])
        equal(answer.headers.get("x-should-retry"), None)
    for answer in answers:
        equal(answer.headers["anthropic-ratelimit-requests-limit"], "3")
        reset = answer.headers["anthropic-ratelimit-requests-reset"]
        if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", reset):
            raise AssertionError(reset)
    equal(min(int(answer.headers["anthropic-ratelimit-requests-remaining"]) for answer in answers), 0)
    other = [name for name in answers[0].headers if name.startswith("anthropic-ratelimit") and "requests" not in name]
    equal(other, [], "headers of what is not limited")


def batches(own):
    """a batch is one request, and those in it wait for no minute"""
    by = users(own, "requests")[0]
    items = [{"custom_id": f"n{n}", "params": {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}} for n in range(8)]
    made = []

    def take():
        answer = by.call("POST", "/v1/messages/batches", {"requests": items})
        made.append(answer)
        return answer.status == 200

    until(take, "the minute has room for one request")
    batch = made[-1].json()["id"]
    until(lambda: good(by.call("GET", f"/v1/messages/batches/{batch}"))["processing_status"] == "ended", "the batch ends")
    equal(good(by.call("GET", f"/v1/messages/batches/{batch}"))["request_counts"]["succeeded"], 8)


def input_tokens(own):
    """more input than the minute has left is refused until it has"""
    by = users(own, "input")[0]
    equal(by.message("plain", content="word " * 200).status, 200)
    refused = by.message("plain", content="word " * 200)
    equal((refused.status, refused.json()["error"]["type"]), (429, "rate_limit_error"), refused.text)
    if int(refused.headers["retry-after"]) < 1 or "200 input tokens per minute" not in refused.text:
        raise AssertionError(f"{refused.headers} {refused.text}")
    equal(refused.headers["anthropic-ratelimit-input-tokens-limit"], "200")
    equal(refused.headers["anthropic-ratelimit-tokens-limit"], "200")


def output_tokens(own):
    """what was written counts once it is, and refuses what comes next"""
    by = users(own, "output")[0]
    first = by.message("bash", tools=[CODE])
    equal(first.status, 200, first.text)
    refused = by.message("plain")
    equal(refused.status, 429, refused.text)
    if "10 output tokens per minute" not in refused.text:
        raise AssertionError(refused.text)


def free(own):
    """a workspace without limits has neither refusals nor headers"""
    by = Caller("free", own.base_url, own.keys["free"])
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda _: by.message("plain"), range(AT_ONCE)))
    equal({answer.status for answer in answers}, {200})
    equal([name for answer in answers for name in answer.headers if name.startswith("anthropic-ratelimit")], [])


CHECKS = [files, bytes_of_files, requests, containers, copies, tokens, input_tokens, output_tokens, free, executions, batches]
