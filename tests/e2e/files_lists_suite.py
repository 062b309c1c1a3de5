"""Lists of files in each dialect (wire.md sections 9.3 and 9.6), and what is at single files: cases as data in `files_lists/`."""

import json
import re
import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path

from files_suite import delete, refused
from harness import http_client, server
from harness.report import equal

TABLE = Path(__file__).resolve().parent / "files_lists" / "cases.json"
BETAS = {"current": None, "old": "files-api-2025-04-14", "both": "managed-agents-2026-04-01"}
MEMBERS = {
    "current": ["data", "next_page"],
    "old": ["data", "first_id", "has_more", "last_id"],
    "both": ["data", "first_id", "has_more", "last_id", "next_page"],
}
UPLOADED = 7
DELETED = 4
EXPIRED = 6


def run(report, running):
    try:
        with server.Server(running.belljar, scripts=running.scripts) as own:
            files = {}
            report.check("seven files, of which one is deleted and one expires", lambda: prepare(own, files))
            for case in json.loads(TABLE.read_text())["cases"]:
                for dialect in case["dialects"]:
                    report.check(f"{dialect}: {case['name']}", lambda case=case, dialect=dialect: check(own.base_url, files, case, dialect))
            report.check("one file in each dialect", lambda: one_file(own.base_url, files))
            report.check("a file expires so many seconds after it was uploaded, which the old dialect does not say", lambda: expires(own.base_url))
            report.check("what is asked with HEAD says what GET would", lambda: head(own.base_url, files))
            report.check("a file is deleted once", lambda: deleted_once(own.base_url, files))
            report.check("an expired file can still be deleted", lambda: delete(own.base_url, files[EXPIRED]))
            report.check("it never panicked", own.no_panic)
    except RuntimeError as error:
        report.fail("starting a server for lists", error)


def prepare(own, files):
    for number in range(1, UPLOADED + 1):
        files[number] = upload(own.base_url, f"{number}.txt", "hello")["id"]
    delete(own.base_url, files[DELETED])
    own.stop()
    with closing(sqlite3.connect(own.data_dir / "belljar.sqlite")) as database, database:
        database.execute("UPDATE files SET expires_at_us = created_at_us + 1 WHERE id = ?", (files[EXPIRED],))
    own.restart()


def upload(base, name, data):
    content_type, body = http_client.multipart([{"name": "file", "filename": name, "content_type": "text/plain", "data": data}])
    answer = http_client.call(base, "POST", "/v1/files", http_client.api_headers(content_type=content_type), body)
    equal(answer.status, 200, answer.text)
    return answer.json()


def ask(base, method, path, dialect="current"):
    return http_client.call(base, method, path, http_client.api_headers(anthropic_beta=BETAS[dialect]))


def check(base, files, case, dialect):
    query = re.sub(r"\{(\d)\}", lambda found: files[int(found[1])], case["query"])
    query = re.sub(r"\{ids:(\d+)\}", lambda found: "&".join(f"ids[]=file_01a{number:03}" for number in range(1, int(found[1]) + 1)).replace("0", "z"), query)
    answer = ask(base, "GET", f"/v1/files?{query}", dialect)
    if "status" in case:
        refused(answer, case["status"], case["type"], case["message"], None)
        return
    equal(answer.status, 200, answer.text)
    page = answer.json()
    equal(sorted(page), MEMBERS[dialect], "members")
    ids = [files[number] for number in case["files"]]
    equal([file["id"] for file in page["data"]], ids, "the page")
    for file in page["data"]:
        equal("expires_at" in file, dialect != "old", file)
    if dialect != "current":
        ends = (ids[0], ids[-1]) if ids else (None, None)
        equal((page["first_id"], page["last_id"]), ends, "its ends")
        if "has_more" in case:
            equal(page["has_more"], case["has_more"], "has_more")
    if dialect != "old" and "next" in case:
        follows(base, files, page["next_page"], case["next"], dialect)


def follows(base, files, cursor, numbers, dialect):
    if numbers is None:
        equal(cursor, None, "next_page")
        return
    following = ask(base, "GET", f"/v1/files?page={cursor}", dialect)
    equal(following.status, 200, following.text)
    equal([file["id"] for file in following.json()["data"]], [files[number] for number in numbers], "behind the cursor")


def one_file(base, files):
    for dialect in BETAS:
        file = ask(base, "GET", f"/v1/files/{files[1]}", dialect).json()
        members = ["id", "type", "filename", "mime_type", "size_bytes", "created_at", "downloadable"]
        equal(list(file), members if dialect == "old" else [*members, "expires_at"], dialect)
        equal((file["type"], file["filename"], file["mime_type"], file["size_bytes"], file["downloadable"]), ("file", "1.txt", "text/plain", 5, False))
    equal(ask(base, "GET", f"/v1/files/{files[1]}?beta=true").status, 200)


def expires(base):
    for seconds in ("3600", "7776000"):
        parts = [{"name": "file", "filename": "a.txt", "content_type": "text/plain", "data": "hello"}, {"name": "expires_in_seconds", "data": seconds}]
        content_type, body = http_client.multipart(parts)
        for dialect, beta in BETAS.items():
            headers = http_client.api_headers(content_type=content_type, anthropic_beta=beta)
            file = http_client.call(base, "POST", "/v1/files", headers, body).json()
            if dialect == "old":
                equal("expires_at" in file, False, file)
                file = ask(base, "GET", f"/v1/files/{file['id']}").json()
            created, end = (datetime.fromisoformat(file[name]) for name in ("created_at", "expires_at"))
            # The second is taken when all of it is there.
            equal(0 <= (end - created).total_seconds() - int(seconds) < 5, True, file)
            delete(base, file["id"])


def head(base, files):
    for path in (f"/v1/files/{files[1]}", f"/v1/files/{files[1]}/content", "/v1/files", "/v1/files/file_011CVexampLe1111111111111"):
        got, headed = ask(base, "GET", path), ask(base, "HEAD", path)
        equal((headed.status, headed.body), (got.status, b""), path)
        # A refusal's body has the request's id, which has one length.
        equal(headed.headers["content-length"], got.headers["content-length"], path)


def deleted_once(base, files):
    path = f"/v1/files/{files[1]}"
    gone = ask(base, "DELETE", path)
    equal((gone.status, gone.json()), (200, {"id": files[1], "type": "file_deleted"}))
    for method, path in (("DELETE", path), ("GET", path), ("GET", f"{path}/content")):
        refused(ask(base, method, path), 404, "not_found_error", f"File `{files[1]}` not found.", None)
