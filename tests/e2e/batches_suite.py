"""Message batches: requests that run unattended, through restarts, with files in and out (wire.md section 17.3)."""

import json
import signal
import time

from harness import http_client, server
from harness.report import equal, matches
from talk import until

PATH = "/v1/messages/batches"
TOOL = {"type": "code_execution_20250825", "name": "code_execution"}


def run(report, running):
    base = running.base_url
    report.check("each request comes to its own result, whatever the others do", lambda: mixed(base))
    report.check("until it has ended, a batch counts nothing and has no results", lambda: counts_nothing(base))
    report.check("files go in and come out", lambda: files(base))
    report.check("a canceled batch ends what runs and begins nothing more", lambda: canceled(base))
    report.check("what fails for the moment is tried until the batch is canceled", lambda: tried_again(base))
    report.check("only what has ended is deleted", lambda: deleted(base))
    report.check("batches are listed newest first, page by page", lambda: listed(base))
    for name, status, call in refusals(base):
        report.check(f"refused: {name}", lambda status=status, call=call: refused(call, status))
    try:
        with server.Server(running.belljar, scripts=running.scripts, serving={"batch_turns_max": 2}) as fresh:
            report.check("a small batch does not wait for a large one", lambda: fair(fresh.base_url))
            report.check("a restart goes on with what has not ended", lambda: survives(fresh, signal.SIGTERM))
            report.check("so does a server that was killed", lambda: survives(fresh, signal.SIGKILL))
    except RuntimeError as error:
        report.fail("starting a server for batches", error)


def bash(custom_id, command, **more):
    """A request whose code the scripted model runs without a script."""
    text = f"Go.\n```bash\n{command}\n```"
    params = {"model": "m", "max_tokens": 512, "tools": [TOOL], "messages": [{"role": "user", "content": text}], **more}
    return {"custom_id": custom_id, "params": params}


def post(base, requests, **headers):
    return http_client.post_json(base, PATH, {"requests": requests}, http_client.api_headers(**headers))


def make(base, requests, **headers):
    made = post(base, requests, **headers)
    equal(made.status, 200, made.text)
    return made.json()


def look(base, batch_id):
    return http_client.call(base, "GET", f"{PATH}/{batch_id}", http_client.api_headers()).json()


def ended(base, batch_id):
    until(lambda: look(base, batch_id)["processing_status"] == "ended", f"the end of {batch_id}")
    return look(base, batch_id)


def results(base, batch):
    """The results by custom id, from where the batch says they are."""
    matches(batch["results_url"], rf"{base}{PATH}/{batch['id']}/results")
    answer = http_client.call(base, "GET", f"{PATH}/{batch['id']}/results", http_client.api_headers(accept="application/binary"))
    equal((answer.status, answer.headers["content-type"]), (200, "application/x-jsonl"))
    lines = [json.loads(line) for line in answer.text.splitlines()]
    names = [line["custom_id"] for line in lines]
    equal(len(set(names)), len(names), "each once")
    return {line["custom_id"]: line["result"] for line in lines}


def cells(result):
    blocks = result["message"]["content"]
    return [block["content"] for block in blocks if block["type"] == "bash_code_execution_tool_result"]


def mixed(base):
    batch = make(base, [
        bash("hello", "echo hello"),
        bash("fails", "echo no >&2; exit 3"),
        bash("streams", "true", stream=True),
        {"custom_id": "short", "params": {"model": "m"}},
        bash("nowhere", "true", container="container_011111111111111111111111"),
    ])
    equal(list(batch), [
        "id", "type", "processing_status", "request_counts", "ended_at", "created_at", "expires_at", "archived_at",
        "cancel_initiated_at", "results_url",
    ])
    batch = ended(base, batch["id"])
    equal(batch["request_counts"], {"processing": 0, "succeeded": 2, "errored": 3, "canceled": 0, "expired": 0})
    told = results(base, batch)
    equal(list(told), ["hello", "fails", "streams", "short", "nowhere"])
    equal((cells(told["hello"])[0]["stdout"], cells(told["fails"])[0]["return_code"]), ("hello\n", 3))
    equal(told["hello"]["message"]["stop_reason"], "end_turn")
    errors = {name: told[name]["error"]["error"] for name in ("streams", "short", "nowhere")}
    equal(errors["streams"]["message"], "stream: Streaming is not supported in message batches")
    equal(errors["short"], {"type": "invalid_request_error", "message": "max_tokens: Field required"})
    equal(errors["nowhere"]["type"], "not_found_error")
    matches(told["short"]["error"]["request_id"], r"req_01[1-9A-HJ-NP-Za-km-z]{22}")


def counts_nothing(base):
    batch = make(base, [bash("now", "true"), bash("later", "sleep 2")])
    equal((batch["type"], batch["processing_status"], batch["ended_at"], batch["results_url"]), ("message_batch", "in_progress", None, None))
    equal(batch["request_counts"], {"processing": 2, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0})
    early = http_client.call(base, "GET", f"{PATH}/{batch['id']}/results", http_client.api_headers())
    equal((early.status, early.json()["error"]["type"]), (404, "not_found_error"))
    equal(look(base, batch["id"])["request_counts"]["succeeded"], 0)
    equal(ended(base, batch["id"])["request_counts"]["succeeded"], 2)


def files(base):
    content_type, body = http_client.multipart([{"name": "file", "filename": "in.csv", "content_type": "text/csv", "data": "1,2\n"}])
    uploaded = http_client.call(base, "POST", "/v1/files", http_client.api_headers(content_type=content_type), body).json()
    text = "Go.\n```bash\nsed s/1/9/ $INPUT_DIR/in.csv > $OUTPUT_DIR/out.csv\n```"
    content = [{"type": "container_upload", "file_id": uploaded["id"]}, {"type": "text", "text": text}]
    batch = make(base, [bash("files", "", messages=[{"role": "user", "content": content}])])
    told = results(base, ended(base, batch["id"]))["files"]
    made = cells(told)[0]["content"][0]["file_id"]
    content = http_client.call(base, "GET", f"/v1/files/{made}/content", http_client.api_headers())
    equal((content.status, content.text), (200, "9,2\n"))


def canceled(base):
    began = time.monotonic()
    batch = make(base, [bash(f"long-{n}", "sleep 300") for n in range(20)])
    answer = http_client.call(base, "POST", f"{PATH}/{batch['id']}/cancel", http_client.api_headers())
    equal((answer.status, answer.json()["processing_status"]), (200, "canceling"), answer.text)
    batch = ended(base, batch["id"])
    equal(batch["request_counts"], {"processing": 0, "succeeded": 0, "errored": 0, "canceled": 20, "expired": 0})
    equal({result["type"] for result in results(base, batch).values()}, {"canceled"})
    if batch["cancel_initiated_at"] is None or time.monotonic() - began > 30:
        raise AssertionError(f"it took {time.monotonic() - began:.0f} s: {batch}")
    again = http_client.call(base, "POST", f"{PATH}/{batch['id']}/cancel", http_client.api_headers())
    equal((again.status, again.json()["error"]["type"]), (400, "invalid_request_error"))


def tried_again(base):
    batch = make(base, [bash("busy", "true")], belljar_script="fault_before")
    equal(look(base, batch["id"])["processing_status"], "in_progress")
    http_client.call(base, "POST", f"{PATH}/{batch['id']}/cancel", http_client.api_headers())
    equal(ended(base, batch["id"])["request_counts"]["canceled"], 1)


def deleted(base):
    batch = make(base, [bash("long", "sleep 300")])
    path = f"{PATH}/{batch['id']}"
    early = http_client.call(base, "DELETE", path, http_client.api_headers())
    equal((early.status, early.json()["error"]["type"]), (400, "invalid_request_error"))
    http_client.call(base, "POST", f"{path}/cancel", http_client.api_headers())
    ended(base, batch["id"])
    gone = http_client.call(base, "DELETE", path, http_client.api_headers())
    equal((gone.status, gone.json()), (200, {"id": batch["id"], "type": "message_batch_deleted"}))
    for method, tail in (("GET", ""), ("GET", "/results"), ("POST", "/cancel"), ("DELETE", "")):
        answer = http_client.call(base, method, path + tail, http_client.api_headers())
        equal((answer.status, answer.json()["error"]["message"]), (404, f"Message batch `{batch['id']}` not found."))


def listed(base):
    made = [make(base, [bash("one", "true")])["id"] for _ in range(3)]
    page = lambda query: http_client.call(base, "GET", f"{PATH}?{query}", http_client.api_headers()).json()
    first = page("limit=2&beta=true")
    equal((list(first), [batch["id"] for batch in first["data"]]), (["data", "has_more", "first_id", "last_id"], [made[2], made[1]]))
    equal((first["first_id"], first["last_id"], first["has_more"]), (made[2], made[1], True))
    equal(page(f"limit=1&after_id={made[1]}")["data"][0]["id"], made[0])
    equal([batch["id"] for batch in page(f"before_id={made[0]}")["data"]], [made[2], made[1]])
    for batch_id in made:
        ended(base, batch_id)
    # As a program does that deletes while it lists: the next page begins behind what is gone.
    equal(http_client.call(base, "DELETE", f"{PATH}/{made[1]}", http_client.api_headers()).status, 200)
    equal(page(f"limit=1&after_id={made[1]}")["data"][0]["id"], made[0])


def refusals(base):
    good = bash("a", "true")
    return [
        ("no requests", 400, lambda: post(base, [])),
        ("a name twice", 400, lambda: post(base, [good, good])),
        ("no version", 400, lambda: post(base, [good], anthropic_version=None)),
        ("an unknown beta", 400, lambda: post(base, [good], anthropic_beta="nonsense")),
        ("no credentials", 401, lambda: post(base, [good], authorization=None)),
        ("a body that is no JSON", 400, lambda: http_client.call(base, "POST", PATH, http_client.api_headers(), b"{")),
        ("a body beyond the limit", 413, lambda: http_client.call(
            base, "POST", PATH, http_client.api_headers(content_length=str(256 * 1024 * 1024 + 1)), b"{")),
        ("an id that is none", 404, lambda: http_client.call(base, "GET", f"{PATH}/x", http_client.api_headers())),
        ("a list from a batch that is not there", 404, lambda: http_client.call(
            base, "GET", f"{PATH}?after_id=msgbatch_011111111111111111111111", http_client.api_headers())),
    ]


def refused(call, status):
    answer = call()
    equal((answer.status, answer.json()["type"]), (status, "error"), answer.text)


def fair(base):
    large = make(base, [bash(f"n-{n}", "sleep 0.3") for n in range(100)])
    small = make(base, [bash("only", "echo soon")])
    equal(ended(base, small["id"])["request_counts"]["succeeded"], 1)
    equal(look(base, large["id"])["processing_status"], "in_progress")
    http_client.call(base, "POST", f"{PATH}/{large['id']}/cancel", http_client.api_headers())
    ended(base, large["id"])


def survives(fresh, how):
    """Ends the server three times in the middle of a batch; every request has exactly one result, and its file is there."""
    batch = make(fresh.base_url, [bash(f"n-{n}", f"sleep 0.2; echo {n} > $OUTPUT_DIR/{n}.txt") for n in range(24)])
    for _round in range(3):
        # Some have ended since the last time, some have not.
        begun = lambda: fresh.log().count("request of a batch runs")
        before = begun()
        until(lambda: begun() >= before + 4, "four more requests")
        fresh.process.send_signal(how)
        fresh.process.wait(server.STOP_S_MAX)
        fresh.restart()
    batch = ended(fresh.base_url, batch["id"])
    equal(batch["request_counts"], {"processing": 0, "succeeded": 24, "errored": 0, "canceled": 0, "expired": 0})
    told = results(fresh.base_url, batch)
    equal(list(told), [f"n-{n}" for n in range(24)])
    for n in range(24):
        made = cells(told[f"n-{n}"])[0]["content"][0]["file_id"]
        content = http_client.call(fresh.base_url, "GET", f"/v1/files/{made}/content", http_client.api_headers())
        equal((content.status, content.text), (200, f"{n}\n"))
