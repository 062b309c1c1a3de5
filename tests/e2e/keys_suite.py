"""A server with keys: who is let in, and that one workspace's things do not exist for another."""

import json
import subprocess
import threading
import time

from harness import http_client, server
from harness.report import equal


def run(report, running):
    keys = {}

    def make_keys(fresh):
        for name, workspace in (("one", "first"), ("two", "second"), ("old", "first")):
            keys[name] = command(fresh, "create", "--workspace", workspace)

    try:
        with server.Server(running.belljar, scripts=running.scripts, prepare=make_keys) as closed:
            base = closed.base_url
            command(closed, "revoke", keys["old"]["id"])
            report.check("without a key", lambda: refused(base, None, "x-api-key header is required"))
            report.check("with a wrong key", lambda: refused(base, "bj_wrong", "invalid x-api-key"))
            report.check("with a revoked key", lambda: refused(base, keys["old"]["key"], "invalid x-api-key"))
            report.check("with a key, in either header", lambda: let_in(base, keys["one"]["key"]))
            report.check("files are their workspace's", lambda: files_apart(base, keys))
            report.check("containers are their workspace's", lambda: containers_apart(base, keys))
            report.check("batches are their workspace's", lambda: batches_apart(base, keys))
            report.check("a turn ends with its key, before it asks its model again", lambda: turns_end(closed, keys))
            report.check("no key stands in the log or the data", lambda: no_key_kept(closed, keys))
    except RuntimeError as error:
        report.fail("starting a server with keys", error)


def command(place, *arguments):
    config = place.directory / "keys.toml"
    config.write_text(f"data_dir = {json.dumps(str(place.data_dir))}\n")
    ended = subprocess.run(
        [place.belljar, "keys", "--config", str(config), "--json", *arguments],
        stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )
    if ended.returncode != 0:
        raise RuntimeError(f"`belljar keys {' '.join(arguments)}` ended with {ended.returncode}: {ended.stderr}")
    return json.loads(ended.stdout)


def refused(base, key, message):
    headers = http_client.api_headers(key=key) if key else http_client.api_headers(authorization=None)
    for path in ("/v1/models", "/v1/files", "/belljar/v1/containers"):
        answer = http_client.call(base, "GET", path, headers)
        equal((answer.status, answer.json()["error"]), (401, {"type": "authentication_error", "message": message}), path)


def let_in(base, key):
    equal(http_client.call(base, "GET", "/v1/models", http_client.api_headers(key=key)).status, 200)
    old = http_client.api_headers(authorization=None, x_api_key=key, anthropic_version="2023-06-01")
    equal(http_client.call(base, "GET", "/v1/models", old).status, 200)


def files_apart(base, keys):
    content_type, body = http_client.multipart([{"name": "file", "filename": "a.txt", "content_type": "text/plain", "data": "hi"}])
    headers = http_client.api_headers(key=keys["one"]["key"], content_type=content_type)
    made = http_client.call(base, "POST", "/v1/files", headers, body)
    equal(made.status, 200, made.text)
    file_id = made.json()["id"]
    other = http_client.api_headers(key=keys["two"]["key"])
    for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        answer = http_client.call(base, method, f"/v1/files/{file_id}{path}", other)
        equal((answer.status, answer.json()["error"]["message"]), (404, f"File `{file_id}` not found."), f"{method} {path}")
    equal(http_client.call(base, "GET", "/v1/files", other).json()["data"], [])
    shown = {"type": "document", "source": {"type": "file", "file_id": file_id}}
    asked = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": [shown]}]}
    answer = http_client.post_json(base, "/v1/messages", asked, other)
    equal((answer.status, answer.json()["error"]["message"]), (404, f"File `{file_id}` not found."))
    mine = http_client.call(base, "GET", f"/v1/files/{file_id}", http_client.api_headers(key=keys["one"]["key"]))
    equal(mine.status, 200)


def containers_apart(base, keys):
    made = http_client.post_json(base, "/belljar/v1/containers", {}, http_client.api_headers(key=keys["one"]["key"]))
    equal(made.status, 200, made.text)
    container = made.json()["id"]
    other = http_client.api_headers(key=keys["two"]["key"])
    gone = (404, f"Container not found: {container}")
    cell = {"language": "bash", "source": "true"}
    tries = [
        http_client.call(base, "GET", f"/belljar/v1/containers/{container}", other),
        http_client.call(base, "DELETE", f"/belljar/v1/containers/{container}", other),
        http_client.post_json(base, f"/belljar/v1/containers/{container}/cells", cell, other),
        http_client.post_json(base, "/v1/messages", {
            "model": "m", "max_tokens": 9, "container": container, "messages": [{"role": "user", "content": "hi"}],
            "tools": [{"type": "code_execution_20250825", "name": "code_execution"}],
        }, {**other, "belljar-script": "bash"}),
    ]
    for answer in tries:
        equal((answer.status, answer.json()["error"]["message"]), gone)
    equal(http_client.call(base, "GET", "/belljar/v1/containers", other).json()["data"], [])


def batches_apart(base, keys):
    params = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    body = {"requests": [{"custom_id": "one", "params": params}]}
    made = http_client.post_json(base, "/v1/messages/batches", body, http_client.api_headers(key=keys["one"]["key"]))
    equal(made.status, 200, made.text)
    batch = made.json()["id"]
    other = http_client.api_headers(key=keys["two"]["key"])
    for method, path in (("GET", ""), ("GET", "/results"), ("POST", "/cancel"), ("DELETE", "")):
        answer = http_client.call(base, method, f"/v1/messages/batches/{batch}{path}", other)
        equal((answer.status, answer.json()["error"]["message"]), (404, f"Message batch `{batch}` not found."), f"{method} {path}")
    equal(http_client.call(base, "GET", "/v1/messages/batches", other).json()["data"], [])
    beside = http_client.call(base, "GET", f"/v1/messages/batches?after_id={batch}", other)
    equal(beside.status, 404)


def turns_end(closed, keys):
    """One key is revoked while its turns run, one runs out; a third of the same workspace goes on."""
    base, ended = closed.base_url, {}
    made = {"revoked": command(closed, "create", "--workspace", "first"), "kept": keys["one"]}
    made["expired"] = command(closed, "create", "--workspace", "first", "--expires-in", "2s")
    request = {
        "model": "m", "max_tokens": 99, "messages": [{"role": "user", "content": "Rest."}],
        "tools": [{"type": "code_execution_20250825", "name": "code_execution"}],
    }

    def turn(name, is_stream):
        headers = http_client.api_headers(key=made[name]["key"], belljar_script="sleeps")
        ask = http_client.stream if is_stream else lambda *more: http_client.post_json(more[0], "/v1/messages", *more[1:])
        ended[name, is_stream] = ask(base, request, headers)

    turns = [threading.Thread(target=turn, args=(name, is_stream)) for name in made for is_stream in (False, True)]
    for one in turns:
        one.start()
    listed = lambda: http_client.call(base, "GET", "/belljar/v1/containers", http_client.api_headers(key=keys["one"]["key"])).json()["data"]
    try:
        deadline = time.monotonic() + 60
        while sum(one["state"] == "leased" for one in listed()) < len(turns):
            equal(time.monotonic() < deadline, True, "the turns run")
            time.sleep(0.05)
        command(closed, "revoke", made["revoked"]["id"])
    finally:
        for one in turns:
            one.join()
    error = {"type": "authentication_error", "message": "invalid x-api-key"}
    for name in ("revoked", "expired"):
        plain, streamed = ended[name, False], ended[name, True]
        equal((plain.status, plain.json().get("error")), (401, error), name)
        equal((streamed.status, streamed.events[-1][0], streamed.events[-1][1]["error"]), (200, "error", error), name)
        results = [data["content_block"]["content"] for _, data in streamed.events if data.get("content_block", {}).get("type") == "bash_code_execution_tool_result"]
        equal([result["stdout"] for result in results], ["rested\n"], "what it was doing has come to its end")
    equal((ended["kept", False].status, ended["kept", True].events[-1][0]), (200, "message_stop"), "of the other key")


def no_key_kept(closed, keys):
    kept = [closed.log_path, *(path for path in closed.data_dir.rglob("*") if path.is_file())]
    for path in kept:
        content = path.read_bytes()
        for name, made in keys.items():
            if made["key"].encode() in content:
                raise AssertionError(f"key {name} stands in {path.name}")
