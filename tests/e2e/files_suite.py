"""Files that may not be had any more, or not any more of: expiry, size, quota (wire.md section 19, rows 24 to 26)."""

import base64
import hashlib
import sqlite3
from contextlib import closing

from harness import http_client, server
from harness.report import equal

FILE_BYTES_MAX = 200_000
WORKSPACE_BYTES_MAX = 300_000
TOOL = {"type": "code_execution_20250825", "name": "code_execution"}


def run(report, running):
    serving = {"file_bytes_max": FILE_BYTES_MAX, "workspace_bytes_max": WORKSPACE_BYTES_MAX}
    try:
        with server.Server(running.belljar, scripts=running.scripts, serving=serving) as own:
            report.check("an uploaded file cannot be downloaded", lambda: not_downloadable(own.base_url))
            report.check("a file of the greatest size is taken", lambda: upload(own.base_url, FILE_BYTES_MAX, 200))
            report.check("a larger one is not", lambda: too_large(own.base_url, chunked=False))
            report.check("nor one whose size is not said", lambda: too_large(own.base_url, chunked=True))
            report.check("a workspace holds so much and no more", lambda: quota(own.base_url))
            report.check("expired files are told apart from unknown ones", lambda: expiry(own))
            report.check("it never panicked", own.no_panic)
    except RuntimeError as error:
        report.fail("starting a server with small files", error)
    try:
        with server.Server(running.belljar, serving={"uploads_downloadable": True}) as open_handed:
            report.check("where the operator says so it can, also in parts", lambda: parts(open_handed.base_url))
    except RuntimeError as error:
        report.fail("starting a server that gives uploads out", error)
    report.check("both dialects of the list at once", lambda: both_dialects(running.base_url))


def send(base, size, chunked=False):
    content_type, body = http_client.multipart([{"name": "file", "filename": "a.bin", "content_type": "application/octet-stream", "data": b"x" * size}])
    if chunked:
        body = http_client.in_pieces(body, 65536)
    return http_client.call(base, "POST", "/v1/files", http_client.api_headers(content_type=content_type), body)


def upload(base, size, status):
    """Uploads, and deletes what was taken."""
    answer = send(base, size)
    equal(answer.status, status, answer.text)
    if status == 200:
        delete(base, answer.json()["id"])


def delete(base, file_id):
    equal(http_client.call(base, "DELETE", f"/v1/files/{file_id}", http_client.api_headers()).status, 200)


def refused(answer, status, kind, message, code):
    equal(answer.status, status, answer.text)
    error = answer.json()["error"]
    equal((error["type"], error["message"], error.get("details", {}).get("error_code")), (kind, message, code))


def not_downloadable(base):
    made = send(base, 10).json()
    answer = http_client.call(base, "GET", f"/v1/files/{made['id']}/content", http_client.api_headers())
    message = f"File `{made['id']}` is not downloadable: only files that code made can be downloaded."
    refused(answer, 400, "invalid_request_error", message, "file_not_downloadable")
    delete(base, made["id"])


def too_large(base, chunked):
    answer = send(base, FILE_BYTES_MAX + 1, chunked)
    refused(answer, 413, "request_too_large", f"File exceeds the maximum size of {FILE_BYTES_MAX} bytes.", None)


def quota(base):
    first = send(base, FILE_BYTES_MAX)
    equal(first.status, 200, first.text)
    message = f"Storage quota of {WORKSPACE_BYTES_MAX} bytes exceeded. Delete files to free space."
    beyond = WORKSPACE_BYTES_MAX - FILE_BYTES_MAX + 1
    refused(send(base, beyond), 400, "invalid_request_error", message, "storage_quota_exceeded")
    upload(base, beyond - 1, 200)
    delete(base, first.json()["id"])
    upload(base, beyond, 200)


def expiry(own):
    """No test waits an hour: the server is down while its files grow old."""
    base = own.base_url
    uploaded = send(base, 10).json()["id"]
    made = ask(base, "generate", []).json()["content"]
    generated = next(block["content"]["content"][0]["file_id"] for block in made if block["type"] == "bash_code_execution_tool_result")
    equal(http_client.call(base, "GET", f"/v1/files/{generated}/content", http_client.api_headers()).status, 200)
    own.stop()
    with closing(sqlite3.connect(own.data_dir / "belljar.sqlite")) as database, database:
        database.execute("UPDATE files SET expires_at_us = created_at_us + 1")
    own.restart()
    base = own.base_url
    for file_id in (uploaded, generated):
        upload_block = {"type": "container_upload", "file_id": file_id}
        refused(ask(base, "plain", [upload_block]), 400, "invalid_request_error", f"File `{file_id}` has expired.", None)
    content = http_client.call(base, "GET", f"/v1/files/{generated}/content", http_client.api_headers())
    refused(content, 404, "not_found_error", f"File `{generated}` has expired.", "file_expired")
    metadata = http_client.call(base, "GET", f"/v1/files/{generated}", http_client.api_headers())
    equal((metadata.status, metadata.json()["filename"]), (200, "table.csv"))
    unknown = "file_011CVexampLe1111111111111"
    refused(ask(base, "plain", [{"type": "container_upload", "file_id": unknown}]), 404, "not_found_error", f"File `{unknown}` not found.", None)


def ask(base, script, blocks):
    body = {
        "model": "claude-opus-5-5", "max_tokens": 100, "tools": [TOOL],
        "messages": [{"role": "user", "content": [*blocks, {"type": "text", "text": "Go on."}]}],
    }
    return http_client.post_json(base, "/v1/messages", body, http_client.api_headers(belljar_script=script))


def parts(base):
    content = bytes(range(256)) * 10
    content_type, body = http_client.multipart([{"name": "file", "filename": "a.bin", "content_type": "application/x-thing", "data": content}])
    made = http_client.call(base, "POST", "/v1/files", http_client.api_headers(content_type=content_type), body).json()
    equal(made["downloadable"], True, "it says so")
    get = lambda **headers: http_client.call(base, "GET", f"/v1/files/{made['id']}/content", http_client.api_headers(**headers))
    whole = get()
    digest = hashlib.sha256(content)
    equal((whole.status, whole.body, whole.headers["accept-ranges"]), (200, content, "bytes"), whole.headers)
    tag = f'"{digest.hexdigest()}"'
    equal((whole.headers["etag"], whole.headers["repr-digest"]), (tag, f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"), "its digest")
    cases = [("bytes=0-9", 0, 9), ("bytes=2550-", 2550, 2559), ("bytes=-1", 2559, 2559), ("bytes=100-999999", 100, 2559)]
    for asked, first, last in cases:
        part = get(range=asked)
        told = (part.status, part.body, part.headers["content-range"], part.headers["content-length"], part.headers["etag"])
        equal(told, (206, content[first:last + 1], f"bytes {first}-{last}/2560", str(last + 1 - first), tag), asked)
    beyond = get(range="bytes=2560-")
    equal((beyond.status, beyond.headers["content-range"], beyond.json()["error"]["type"]), (416, "bytes */2560", "invalid_request_error"), beyond.text)
    for headers in ({"range": "bytes=0-1,5-6"}, {"range": "lines=1-2"}, {"range": "bytes=0-1", "if_range": '"other"'}):
        equal((get(**headers).status, get(**headers).body), (200, content), headers)
    equal(get(range="bytes=0-1", if_range=tag).status, 206, "the same content")


def both_dialects(base):
    made = [send(base, 10).json()["id"] for _ in range(3)]
    get = lambda query: http_client.call(base, "GET", f"/v1/files{query}", http_client.api_headers(anthropic_beta="managed-agents-2026-04-01")).json()
    first = get("?limit=2")
    equal(sorted(first), ["data", "first_id", "has_more", "last_id", "next_page"], "its members")
    equal(([one["id"] for one in first["data"]], first["has_more"], first["last_id"]), (made[:0:-1], True, made[1]), "the first page")
    equal("expires_at" in first["data"][0], True, "an entry")
    for query in (f"?limit=1&after_id={made[1]}", f"?limit=1&page={first['next_page']}"):
        equal([one["id"] for one in get(query)["data"]], [made[0]], query)
    for file_id in made:
        delete(base, file_id)
