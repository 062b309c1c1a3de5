"""A server whose metadata is in a PostgreSQL and whose contents are in an S3-compatible object store, both real: kept over kill -9 and
restart, refused in so many words while one of them is gone, and well again when it is back."""

import hashlib
import json
import os
import subprocess

from container_suite import cell, create, post
from harness import http_client, server
from harness.report import equal
from harness.stores import ACCESS_KEY, BUCKET, PASSWORD, SECRET_KEY, Missing, Stores

TOOL = {"type": "code_execution_20250825", "name": "code_execution"}


def run(report, running):
    try:
        with Stores() as stores, server.Server(running.belljar, scripts=running.scripts, store=choice(stores), environment=secrets()) as own:
            report.check("files and what code makes are kept over kill -9", lambda: kept(own, stores))
            report.check("a container put away comes back", lambda: put_away(own))
            report.check("a checkpoint with an id is gone back to and forked after kill -9", lambda: gone_back_to(own))
            report.check("a restart in place takes hold of both again, with containers as they are", lambda: in_place(own))
            report.check("doctor says what is reachable", lambda: doctor(running.belljar, own, stores))
            report.check("another server is refused the database", lambda: refused(running.belljar, own, stores))
            report.check("without the object store uploads are refused, and taken again after", lambda: no_objects(own, stores))
            report.check("without the database too", lambda: no_database(own, stores))
            report.check("a first key, made beside the server, closes it", lambda: keys(running.belljar, own))
            report.check("no secret is in the log", lambda: no_secrets(own))
            report.check("it never panicked", own.no_panic)
    except Missing as missing:
        report.skip("all of it", missing)
    except RuntimeError as error:
        report.fail("starting a server with stores elsewhere", error)


def choice(stores):
    return {
        "database": stores.postgres_url_without_password,
        "database_password_env": "E2E_DATABASE_PASSWORD",
        "blobs": f"s3://{BUCKET}/e2e",
        "endpoint": stores.s3_url,
        "allow_http": True,
    }


def secrets():
    return {"E2E_DATABASE_PASSWORD": PASSWORD, "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}


def send(base, data):
    content_type, body = http_client.multipart([{"name": "file", "filename": "a.bin", "content_type": "application/octet-stream", "data": data}])
    return http_client.call(base, "POST", "/v1/files", http_client.api_headers(content_type=content_type), body)


def listed(base):
    answer = http_client.call(base, "GET", "/v1/files?limit=1000", http_client.api_headers())
    equal(answer.status, 200, answer.text)
    return {file["id"]: file["size_bytes"] for file in answer.json()["data"]}


def get(base, path):
    return http_client.call(base, "GET", path, http_client.api_headers())


def kept(own, stores):
    big = os.urandom(20 * 1024 * 1024)
    sizes = {}
    for data in (b"", b"small", big):
        answer = send(own.base_url, data)
        equal(answer.status, 200, answer.text)
        sizes[answer.json()["id"]] = len(data)
    big_id = next(name for name, size in sizes.items() if size == len(big))
    # Into a container, and out of it as a file that code made.
    message = post(own.base_url, "/v1/messages", {
        "model": "claude-opus-5-5", "max_tokens": 1000, "tools": [TOOL],
        "messages": [{"role": "user", "content": [
            {"type": "container_upload", "file_id": big_id},
            {"type": "text", "text": "```bash\nsha256sum \"$INPUT_DIR\"/a.bin; tac \"$INPUT_DIR\"/a.bin | head -c 9000000 > \"$OUTPUT_DIR\"/made.bin; sha256sum \"$OUTPUT_DIR\"/made.bin\n```"},
        ]}],
    })
    equal(message.status, 200, message.text)
    if hashlib.sha256(big).hexdigest() not in message.text:
        raise AssertionError(f"the container has other bytes: {message.text[:2000]}")
    made = made_file(message.json())
    before = listed(own.base_url)
    equal({name: before[name] for name in sizes}, sizes, "the sizes listed")
    content = get(own.base_url, f"/v1/files/{made}/content")
    equal((content.status, len(content.body)), (200, 9_000_000), "what code made")
    part = http_client.call(own.base_url, "GET", f"/v1/files/{made}/content", http_client.api_headers(range="bytes=8388600-8388699"))
    equal((part.status, part.body), (206, content.body[8388600:8388700]), "a part of it")
    own.crash()
    equal(listed(own.base_url), before, "the list after kill -9")
    again = get(own.base_url, f"/v1/files/{made}/content")
    equal(again.body, content.body, "what code made, after kill -9")
    own.restart()
    equal(get(own.base_url, f"/v1/files/{made}/content").body, content.body, "and after a restart")
    for name in [*sizes, made]:
        equal(http_client.call(own.base_url, "DELETE", f"/v1/files/{name}", http_client.api_headers()).status, 200, name)
    equal(listed(own.base_url), {}, "the list after all were deleted")
    own.restart()
    objects = [path for path in (stores.s3_root / BUCKET / "e2e" / "contents").rglob("*") if path.is_file()]
    equal(objects, [], "objects that nobody refers to")
    local = [path for path in own.data_dir.rglob("*") if path.is_file() and path.name not in ("lock", "blobs.owner")]
    equal([path for path in local if path.name.endswith(".sqlite") or "blobs" in path.parts], [], "state on this disk")


def made_file(message):
    found = [
        part["file_id"]
        for block in message["content"] if block["type"].endswith("tool_result") and isinstance(block["content"], dict)
        for part in block["content"].get("content", [])
    ]
    equal(len(found), 1, f"files in {json.dumps(message)[:2000]}")
    return found[0]


def put_away(own):
    container = create(own.base_url)
    equal(cell(own.base_url, container, "bash", "head -c 10000000 /dev/urandom > /tmp/kept; sha256sum /tmp/kept > /tmp/sum")["return_code"], 0, "making files")
    equal(post(own.base_url, f"/belljar/v1/containers/{container}/checkpoint", {"put_away": True}).status, 200, "the checkpoint")
    own.crash()
    equal(cell(own.base_url, container, "bash", "sha256sum --check --status /tmp/sum")["return_code"], 0, "the files, back")


def belljar(path, own, command, *arguments):
    command = [str(path), command, "--config", str(own.directory / "belljar.toml"), *arguments]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env={**os.environ, **own.environment}, timeout=120)


def in_place(own):
    container = create(own.base_url)
    cell(own.base_url, container, "python", "x = 42")
    file = send(own.base_url, b"kept").json()["id"]
    own.restart_in_place()
    equal(cell(own.base_url, container, "python", "print(x)")["stdout"], "42\n")
    equal(listed(own.base_url).get(file), 4)
    http_client.call(own.base_url, "DELETE", f"/v1/files/{file}", http_client.api_headers())


def gone_back_to(own):
    base = own.base_url
    container = create(base)
    path = f"/belljar/v1/containers/{container}"
    cell(base, container, language="bash", source="echo then > /work/f")
    named = post(base, f"{path}/checkpoint", {}).json()["checkpoint_id"]
    cell(base, container, language="bash", source="echo now > /work/f")
    own.crash()
    base = own.base_url
    fork = post(base, f"{path}/fork", {"checkpoint_id": named})
    equal(fork.status, 200, fork.text)
    back = post(base, f"{path}/restore", {"checkpoint_id": named})
    equal(back.status, 200, back.text)
    for there in (container, fork.json()["id"]):
        equal(cell(base, there, language="bash", source="cat /work/f")["stdout"], "then\n")
    gone = http_client.call(base, "DELETE", f"{path}/checkpoints/{named}", http_client.api_headers())
    equal(gone.status, 200, gone.text)


def doctor(path, own, stores):
    def findings():
        told = json.loads(belljar(path, own, "doctor", "--json").stdout)
        return {finding["name"]: (finding["status"], finding["found"]) for finding in told["findings"]}

    here = findings()
    equal((here["database"][0], here["contents"][0]), ("ok", "ok"), here)
    if not here["database"][1].startswith(f"PostgreSQL at 127.0.0.1:{stores.postgres_port}/belljar ("):
        raise AssertionError(here["database"])
    stores.stop_objects()
    gone = findings()
    stores.start_objects()
    equal((gone["database"][0], gone["contents"][0]), ("ok", "refused"), gone)


def refused(path, own, stores):
    """With a data directory of its own, so that it is the database that refuses."""
    second = own.directory / "second"
    started = belljar(path, own, "serve", "--listen", f"127.0.0.1:{server.free_port()}", "--data-dir", str(second))
    equal(started.returncode, 1, started.stderr)
    if f"the database 127.0.0.1:{stores.postgres_port}/belljar is in use by another Belljar" not in started.stderr:
        raise AssertionError(started.stderr)


def keys(path, own):
    listed(own.base_url)
    made = belljar(path, own, "keys", "create", "--workspace", "other", "--label", "e2e")
    equal(made.returncode, 0, made.stderr)
    equal(get(own.base_url, "/v1/files").status, 401, "without that key")
    by_key = http_client.call(own.base_url, "GET", "/v1/files", http_client.api_headers(key=made.stdout.strip()))
    equal(by_key.status, 200, by_key.text)
    told = belljar(path, own, "keys", "list", "--json")
    equal(told.returncode, 0, told.stderr)
    if "e2e" not in told.stdout:
        raise AssertionError(told.stdout)


def overloaded(answer):
    equal(answer.status, 529, answer.text)
    error = answer.json()["error"]
    equal((error["type"], error["message"]), ("overloaded_error", "The server's storage cannot be reached. Try again."))
    equal(answer.headers.get("retry-after"), "2", "when to try again")


def no_objects(own, stores):
    taken = send(own.base_url, b"before")
    equal(taken.status, 200, taken.text)
    stores.stop_objects()
    try:
        overloaded(send(own.base_url, b"meanwhile"))
        equal(set(listed(own.base_url)), {taken.json()["id"]}, "listed meanwhile")
    finally:
        stores.start_objects()
    again = send(own.base_url, b"after")
    equal(again.status, 200, again.text)


def no_database(own, stores):
    before = listed(own.base_url)
    live, away = create(own.base_url), create(own.base_url)
    equal(post(own.base_url, f"/belljar/v1/containers/{away}/checkpoint", {"put_away": True}).status, 200)
    stores.stop_postgres()
    try:
        for ask in without_database(own.base_url, next(iter(before)), live, away):
            overloaded(ask())
        own.healthy()
    finally:
        stores.start_postgres()
    for container in (live, away):
        equal(cell(own.base_url, container, "bash", "echo on")["stdout"], "on\n", "a container afterwards")
    equal(listed(own.base_url), before, "the list after")
    again = send(own.base_url, b"after")
    equal(again.status, 200, again.text)


def without_database(base, file, live, away):
    """Everything that cannot be done without it, each of which says so; first what finds the connection gone."""
    delete = lambda path: http_client.call(base, "DELETE", path, http_client.api_headers())
    message = {"model": "claude-opus-5-5", "max_tokens": 1000, "tools": [TOOL]}
    asking = {**message, "messages": [{"role": "user", "content": "Hello."}]}
    upload = {**message, "messages": [{"role": "user", "content": [{"type": "container_upload", "file_id": file}]}]}
    own = "/belljar/v1/containers"
    return [
        lambda: post(base, "/v1/messages/batches", {"requests": [{"custom_id": "one", "params": asking}]}),
        lambda: send(base, b"meanwhile"),
        lambda: get(base, "/v1/files"),
        lambda: get(base, f"/v1/files/{file}"),
        lambda: delete(f"/v1/files/{file}"),
        lambda: post(base, "/v1/messages", upload),
        lambda: post(base, "/v1/messages", {**asking, "container": live}),
        lambda: post(base, "/v1/messages", {**asking, "container": away}),
        lambda: get(base, "/v1/messages/batches"),
        lambda: post(base, own, {}),
        lambda: get(base, own),
        lambda: get(base, f"{own}/{live}"),
        lambda: post(base, f"{own}/{live}/cells", {"language": "bash", "source": "true"}),
        lambda: post(base, f"{own}/{away}/restore", {}),
        lambda: post(base, f"{own}/{live}/checkpoint", {}),
        lambda: post(base, f"{own}/{live}/fork", {}),
        lambda: delete(f"{own}/{live}"),
    ]


def no_secrets(own):
    for secret in (PASSWORD, SECRET_KEY):
        if secret in own.log():
            raise AssertionError("a secret is in the log")
