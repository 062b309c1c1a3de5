"""Images and documents that name a file (wire.md section 9.5): which files they show, and what is said of the others."""

import sqlite3
from contextlib import closing

from batches_suite import ended, make, results
from harness import http_client, server
from harness.report import equal
from talk import Talk, error, outcome

REQUEST_BYTES_MAX = 100_000
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c63f8cfc0f01f0005000180"
    "5d2b3c120000000049454e44ae426082"
)
PDF = b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
IMAGES = "image/jpeg, image/png, image/gif, image/webp"
DOCUMENTS = "application/pdf, text/plain"
UNKNOWN = "file_011CVexampLe1111111111111"


def run(report, running):
    try:
        serving = {"request_bytes_max": REQUEST_BYTES_MAX}
        with server.Server(running.belljar, scripts=running.scripts, serving=serving) as own:
            report.check("each kind of file is taken by its block", lambda: taken(own.base_url))
            report.check("a file of another kind is refused", lambda: other_kinds(own.base_url))
            report.check("a file that is not there is not found", lambda: unknown(own.base_url))
            report.check("text has to be text", lambda: not_text(own.base_url))
            report.check("files may be as large as a request, together", lambda: too_large(own.base_url))
            report.check("a file in a tool's result counts", lambda: in_a_result(own.base_url))
            report.check("code that waits does so until its files are there", lambda: with_waiting_code(own.base_url))
            report.check("an expired file is refused", lambda: expired(own))
            report.check("it never panicked", own.no_panic)
    except RuntimeError as error:
        report.fail("starting a server with small requests", error)


def upload(base, media_type, data, filename="a"):
    part = {"name": "file", "filename": filename, "content_type": media_type, "data": data}
    content_type, body = http_client.multipart([part])
    made = http_client.call(base, "POST", "/v1/files", http_client.api_headers(content_type=content_type), body)
    equal(made.status, 200, made.text)
    return made.json()["id"]


def shows(tag, file_id):
    return {"type": tag, "source": {"type": "file", "file_id": file_id}}


def body_of(blocks):
    content = [*blocks, {"type": "text", "text": "What is this?"}]
    return {"model": "claude-opus-5-5", "messages": [{"role": "user", "content": content}]}


def ways(base, body):
    """The same request, asked for a reply and for a count."""
    headers = http_client.api_headers(belljar_script="plain")
    yield http_client.post_json(base, "/v1/messages", {**body, "max_tokens": 100}, headers)
    yield http_client.post_json(base, "/v1/messages/count_tokens", body, headers)


def refused(base, blocks, status, message):
    kind = {400: "invalid_request_error", 404: "not_found_error"}[status]
    for answer in ways(base, body_of(blocks)):
        equal(answer.status, status, answer.text)
        equal(answer.json()["error"], {"type": kind, "message": message})


def taken(base):
    blocks = [
        shows("image", upload(base, "image/png", PNG)),
        shows("document", upload(base, "application/pdf", PDF)),
        shows("document", upload(base, "text/plain; charset=utf-8", "ä\n".encode())),
        shows("document", upload(base, "Text/Plain", b"")),
    ]
    listed = {"type": "document", "source": {"type": "content", "content": [blocks[0]]}}
    for answer in ways(base, body_of([*blocks, listed])):
        equal(answer.status, 200, answer.text)
    batch = make(base, [{"custom_id": "shown", "params": {**body_of(blocks), "max_tokens": 100}}])
    equal(results(base, ended(base, batch["id"]))["shown"]["type"], "succeeded")


def other_kinds(base):
    for tag, media_type, takes in (
        ("image", "application/pdf", IMAGES), ("image", "text/plain", IMAGES), ("image", "image/svg+xml", IMAGES),
        ("document", "image/png", DOCUMENTS), ("document", "text/csv", DOCUMENTS),
    ):
        file_id = upload(base, media_type, b"x,y\n")
        message = (
            f"messages.0.content.0: File `{file_id}` is `{media_type}`, which no `{tag}` block shows: that takes {takes}. "
            "A `container_upload` block takes any file."
        )
        refused(base, [shows(tag, file_id)], 400, message)


def unknown(base):
    made = upload(base, "image/png", PNG)
    equal(http_client.call(base, "DELETE", f"/v1/files/{made}", http_client.api_headers()).status, 200)
    for file_id in (UNKNOWN, made, "../../etc/passwd", ""):
        refused(base, [shows("image", file_id)], 404, f"File `{file_id}` not found.")


def not_text(base):
    file_id = upload(base, "text/plain", b"\xff\xfe")
    refused(base, [shows("document", file_id)], 400, f"File `{file_id}` is not text in UTF-8.")


def too_large(base):
    half = upload(base, "text/plain", b"x" * (REQUEST_BYTES_MAX // 2 * 3 // 4))
    for answer in ways(base, body_of([shows("document", half)] * 2)):
        equal(answer.status, 200, answer.text)
    message = (
        f"messages.0.content.2: File `{half}` is too large: in base64, the images and documents of a request may have "
        f"{REQUEST_BYTES_MAX} bytes."
    )
    refused(base, [shows("document", half)] * 3, 400, message)


def in_a_result(base):
    call = {"type": "tool_use", "id": "toolu_01a", "name": "look", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "toolu_01a", "content": [shows("image", UNKNOWN)]}
    body = {
        "model": "claude-opus-5-5", "tools": [{"name": "look", "input_schema": {"type": "object"}}],
        "messages": [
            {"role": "user", "content": "Look."}, {"role": "assistant", "content": [call]},
            {"role": "user", "content": [result]},
        ],
    }
    for answer in ways(base, body):
        equal((answer.status, answer.json()["error"]["message"]), (404, f"File `{UNKNOWN}` not found."))
    result["content"] = [shows("image", upload(base, "image/png", PNG))]
    for answer in ways(base, body):
        equal(answer.status, 200, answer.text)


def with_waiting_code(base):
    """A continuation that names no file of ours has not reached the code yet: mended, it does."""
    talk = Talk(base, "code_single")
    talk.messages = body_of([shows("image", upload(base, "image/png", PNG))])["messages"]
    talk.answer(talk.ask(), lambda given: "42")
    block = talk.messages[0]["content"][0]
    found, block["source"] = block["source"], shows("image", UNKNOWN)["source"]
    equal(error(talk.post(), 404, "not_found_error"), f"File `{UNKNOWN}` not found.")
    block["source"] = found
    equal(outcome(talk.ask())["stdout"], "got 42\n")


def expired(own):
    """No test waits an hour: the server is down while its files grow old."""
    file_id = upload(own.base_url, "image/png", PNG)
    own.stop()
    with closing(sqlite3.connect(own.data_dir / "belljar.sqlite")) as database, database:
        database.execute("UPDATE files SET expires_at_us = created_at_us + 1")
    own.restart()
    refused(own.base_url, [shows("image", file_id)], 400, f"File `{file_id}` has expired.")
