"""The life of a container as requests for messages see it (wire.md sections 7 and 8.1): how it is named, how long it lives, what is put into
it, and who waits for whom."""

import sqlite3
import threading
import time
from contextlib import closing

from container_suite import cell, create, post, state, until
from files_suite import delete, refused
from files_lists_suite import upload
from harness import http_client, server
from harness.report import equal
from talk import seconds_left

TOOL = {"type": "code_execution_20250825", "name": "code_execution"}
HOUR_S = 3600
OTHER_IMAGE = "sha256:" + "0" * 64


def run(report, running):
    for check in (forms, rolls, one_name, long_name, deleted_file, waits):
        report.check(check.__doc__, lambda check=check: check(running.base_url))
    try:
        with server.Server(running.belljar, scripts=running.scripts, serving={"lease_wait_s_max": 1}) as own:
            for check in (listed, too_busy, expired_file, other_image):
                report.check(check.__doc__, lambda check=check: check(own))
            report.check("that server never panicked", own.no_panic)
    except RuntimeError as error:
        report.fail("starting a server of little patience", error)


def message(base, command, uploads=(), script=None, **body):
    """A turn that runs one command."""
    content = [{"type": "container_upload", "file_id": file} for file in uploads]
    content.append({"type": "text", "text": f"```bash\n{command}\n```"})
    request = {"model": "claude-opus-5-5", "max_tokens": 1000, "tools": [TOOL], "messages": [{"role": "user", "content": content}], **body}
    return http_client.post_json(base, "/v1/messages", request, http_client.api_headers(belljar_script=script))


def ran(answer):
    """(its standard output, the container that the reply names)."""
    equal(answer.status, 200, answer.text)
    results = [block["content"] for block in answer.json()["content"] if block["type"] == "bash_code_execution_tool_result"]
    equal(len(results), 1, answer.text)
    equal(results[0]["type"], "bash_code_execution_result", answer.text)
    return results[0]["stdout"], answer.json()["container"]


def forms(base):
    """both forms name a container, and null in either makes a new one"""
    _, container = ran(message(base, "echo kept > /tmp/kept"))
    name = container["id"]
    for form in (name, {"id": name}, {"id": name, "skills": None}, {"id": name, "skills": []}):
        out, again = ran(message(base, "cat /tmp/kept", container=form))
        equal((out, sorted(again), again["id"]), ("kept\n", ["expires_at", "id"], name), form)
    seen = {name}
    for form in (None, {}, {"id": None}, {"id": None, "skills": None}):
        out, fresh = ran(message(base, "ls /tmp | wc -l", container=form))
        equal(fresh["id"] in seen, False, f"{form}: {fresh}")
        seen.add(fresh["id"])


def rolls(base):
    """`expires_at` is an hour from each reply, in microseconds"""
    container, before = None, ""
    for _ in range(3):
        _, told = ran(message(base, "true", container=container))
        left = seconds_left(told["expires_at"])
        equal(HOUR_S - 30 < left <= HOUR_S, True, f"{left} s are left")
        equal((len(told["expires_at"]), told["expires_at"] > before), (len("2026-11-20T18:54:08.960841Z"), True), f"{told} after {before}")
        container, before = told["id"], told["expires_at"]


def one_name(base):
    """of uploads with one name the last one stays, in one turn and over turns"""
    one, two, three = (upload(base, "same.txt", text)["id"] for text in ("one", "two", "three"))
    show = 'cat "$INPUT_DIR"/same.txt; ls "$INPUT_DIR" | wc -l'
    out, container = ran(message(base, show, [one, two]))
    equal(out, "two1\n")
    out, _ = ran(message(base, show, [three], container=container["id"]))
    equal(out, "three1\n", "in the next turn")
    out, _ = ran(message(base, show, container=container["id"]))
    equal(out, "three1\n", "without an upload")


def long_name(base):
    """a name that is allowed, and longer than a directory can hold, is cut, and keeps its extension"""
    made = upload(base, "ä" * 251 + ".csv", "here")
    out, _ = ran(message(base, 'cat "$INPUT_DIR"/*; ls "$INPUT_DIR"', [made["id"]]))
    equal(out, "here" + "ä" * 125 + ".csv\n")


def deleted_file(base):
    """a deleted file is missing where it is named, stays where it was put, and stops no conversation that had it once"""
    file, other = upload(base, "gone.txt", "still here")["id"], upload(base, "other.txt", "other")["id"]
    show = 'cat "$INPUT_DIR"/gone.txt || ls "$INPUT_DIR"'
    _, container = ran(message(base, show, [file]))
    delete(base, file)
    refused(message(base, show, [file], container=container["id"]), 404, "not_found_error", f"File `{file}` not found.", None)
    refused(message(base, show, [file]), 404, "not_found_error", f"File `{file}` not found.", None)
    went_on = conversation([file, other], f"```bash\n{show}\n```")
    out, _ = ran(message(base, "", messages=went_on, container=container["id"]))
    equal(out, "still here", "in its container")
    out, fresh = ran(message(base, "", messages=went_on))
    equal((out, fresh["id"] == container["id"]), ("other.txt\n", False), "in a new one, where what is left of the earlier uploads is")


def conversation(uploads, text):
    blocks = [{"type": "container_upload", "file_id": file} for file in uploads]
    return [
        {"role": "user", "content": [*blocks, {"type": "text", "text": "Look at these."}]},
        {"role": "assistant", "content": [{"type": "text", "text": "I have."}]},
        {"role": "user", "content": text},
    ]


def listed(own):
    """containers and checkpoints are listed newest first, in pages that skip and repeat nothing; a bad query names its field"""
    base, path = own.base_url, "/belljar/v1/containers"
    made = [create(base) for _ in range(5)]
    http_client.call(base, "DELETE", f"{path}/{made.pop(2)}", http_client.api_headers())
    named = [post(base, f"{path}/{made[0]}/checkpoint", {}).json()["checkpoint_id"] for _ in range(3)]
    for place, key, ids in ((path, "id", made), (f"{path}/{made[0]}/checkpoints", "checkpoint_id", named)):
        get = lambda query: http_client.call(base, "GET", f"{place}?{query}", http_client.api_headers())
        seen, query = [], "limit=2"
        while query:
            page = get(query).json()
            equal(sorted(page), ["data", "next_page"])
            seen += [one[key] for one in page["data"]]
            query = page["next_page"] and f"limit=2&page={page['next_page']}"
        equal(seen, ids[::-1], place)
        equal([one[key] for one in get(f"limit={len(ids)}").json()["data"]], seen, "in one page")
        equal(get(f"limit={len(ids)}").json()["next_page"], None, "no empty page follows")
        for query, message in (
            ("limit=0", "limit: Input should be greater than or equal to 1"), ("limit=1001", "limit: Input should be less than or equal to 1000"),
            ("limit=many", "limit: Input should be a valid integer"), ("page=nonsense", "page: Input should be a cursor of an earlier page"),
            ("colour=red", "colour: Extra inputs are not permitted"),
        ):
            refused(get(query), 400, "invalid_request_error", message, None)


class Holder:
    """A turn of some seconds in a container, while this is entered."""

    def __init__(self, base, container):
        self.base, self.container = base, container

    def __enter__(self):
        self.turn = threading.Thread(target=self.hold)
        self.turn.start()
        until(lambda: state(self.base, self.container) == "leased", "the turn runs")
        return self

    def hold(self):
        self.answer = message(self.base, "", script="sleeps", container=self.container)
        self.ended = time.monotonic()

    def __exit__(self, *_exception):
        self.turn.join()


def waits(base):
    """a second turn in a container waits for the first, and neither knows of the other"""
    container = create(base)
    with Holder(base, container) as first:
        out, told = ran(message(base, "echo second", container=container))
        ended = time.monotonic()
    equal((out, told["id"]), ("second\n", container))
    equal(ran(first.answer)[0], "rested\n")
    equal(ended >= first.ended - 0.5, True, "the second ended after the first")


def too_busy(own):
    """a second turn that has waited long enough is refused, and the SDKs do not ask again"""
    base, container = own.base_url, create(own.base_url)
    with Holder(base, container) as first:
        answer = message(base, "echo second", container=container)
        by_cell = post(base, f"/belljar/v1/containers/{container}/cells", {"language": "bash", "source": "true"})
    for told in (answer, by_cell):
        refused(told, 409, "conflict_error", f"Container {container} is in use by another request", None)
        equal(told.headers["x-should-retry"], "false")
    equal(ran(first.answer)[0], "rested\n", "the first")
    equal(ran(message(base, "echo third", container=container))[0], "third\n", "afterwards")


def change(own, statement, *parameters):
    """Changes a row while the server is down, which can come to pass only in months, or by another program."""
    own.stop()
    with closing(sqlite3.connect(own.data_dir / "belljar.sqlite")) as database, database:
        equal(database.execute(statement, parameters).rowcount > 0, True, statement)
    own.restart()


def expired_file(own):
    """a file that has expired is refused where it is named, and stops no conversation that had it once"""
    file = upload(own.base_url, "old.txt", "old")["id"]
    change(own, "UPDATE files SET expires_at_us = created_at_us + 1 WHERE id = ?", file)
    show = 'ls "$INPUT_DIR" | wc -l'
    refused(message(own.base_url, show, [file]), 400, "invalid_request_error", f"File `{file}` has expired.", None)
    out, _ = ran(message(own.base_url, "", messages=conversation([file], f"```bash\n{show}\n```")))
    equal(out, "0\n")


def other_image(own):
    """a container that was put away over another image is refused in so many words, wherever it is named, and comes back with its image"""
    container = create(own.base_url)
    cell(own.base_url, container, "bash", "echo kept > /work/kept")
    equal(post(own.base_url, f"/belljar/v1/containers/{container}/checkpoint", {"put_away": True}).status, 200)
    with closing(sqlite3.connect(own.data_dir / "belljar.sqlite")) as database:
        (present,) = database.execute("SELECT image FROM checkpoints WHERE container = ?", (container,)).fetchone()
    change(own, "UPDATE checkpoints SET image = ? WHERE container = ?", OTHER_IMAGE, container)
    base, path = own.base_url, f"/belljar/v1/containers/{container}"
    text = f"container: it was made from the image {OTHER_IMAGE}, and this server has {present}; it comes back when the server has that image again"
    put = http_client.call(base, "PUT", f"{path}/files/work/new", http_client.api_headers(), b"new")
    cells = post(base, f"{path}/cells", {"language": "bash", "source": "true"})
    for answer in (message(base, "true", container=container), cells, put, post(base, f"{path}/restore", {})):
        refused(answer, 400, "invalid_request_error", text, None)
    equal(state(base, container), "checkpointed", "it is there")
    change(own, "UPDATE checkpoints SET image = ? WHERE container = ?", present, container)
    equal(cell(own.base_url, container, "bash", "cat /work/kept")["stdout"], "kept\n")
