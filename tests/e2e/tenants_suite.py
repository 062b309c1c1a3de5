"""Tenants: every identifier of one, tried at every endpoint by everybody else. It is as if it had never been."""

import json
import os
import re
import string
from pathlib import Path

from harness import http_client, server
from harness.report import equal
from keys_suite import command
from talk import CODE, LOOKUP, Talk, outcome, until

ROUTES = Path(__file__).resolve().parents[2] / "crates" / "server" / "src" / "routes"
# Endpoints that name nothing of anybody's.
NAMELESS = {
    "GET /healthz", "GET /readyz", "GET /v1/models", "GET /v1/models/{id}", "POST /v1/files", "POST /belljar/v1/containers",
    "GET /belljar/v1/containers", "POST /belljar/v1/containers/import", "POST /belljar/v1/scopes",
}
MATRIX = Path(__file__).resolve().parents[2] / "docs" / "tenancy-matrix.md"
KEPT = b"kept by its owner\n"


def run(report, running):
    keys = {}
    try:
        with server.Server(running.belljar, scripts=running.scripts, prepare=lambda own: make_keys(own, keys)) as own:
            report.check("the table has every endpoint of the router", covered)
            matrix(report, own, keys)
            report.check("it never panicked", own.no_panic)
        with server.Server(running.belljar, scripts=running.scripts) as own:
            for check in BY_ITSELF:
                report.check(check.__doc__, lambda check=check: check(own))
    except RuntimeError as error:
        report.fail("starting a server with keys", error)


def make_keys(own, keys):
    for name, *arguments in (
        ("first", "--workspace", "first"), ("second", "--workspace", "second"), ("revoked", "--workspace", "first"),
        ("shared", "--workspace", "shared", "--scope", "per-user"), ("whole", "--workspace", "shared"),
        ("other", "--workspace", "second", "--scope", "per-user"),
        ("expired", "--workspace", "first", "--expires-in", "1s"), ("gone", "--workspace", "shared", "--scope", "per-user"),
    ):
        keys[name] = command(own, "create", *arguments)


class Caller:
    """Somebody who asks: a key, and how the end user is named."""

    def __init__(self, name, base, key, user=None, by="header"):
        self.name, self.base, self.user, self.by = name, base, user, by
        self.key = signed(base, key, user) if by == "token" else key

    def headers(self, **more):
        named = self.user if self.by in ("header", "metadata") else None
        return http_client.api_headers(key=self.key, belljar_user=named, **more)

    def call(self, method, path, document=None, **more):
        body = None if document is None else json.dumps(document).encode()
        return http_client.call(self.base, method, path, self.headers(**more), body)

    def message(self, script="plain", **body):
        headers = self.headers(belljar_script=script)
        if self.by == "metadata":
            del headers["belljar-user"]
            body["metadata"] = {"user_id": self.user}
        return http_client.post_json(self.base, "/v1/messages", request(**body), headers)

    def upload(self, data=b"hello", name="a.txt"):
        kind, body = http_client.multipart([{"name": "file", "filename": name, "content_type": "text/plain", "data": data}])
        return http_client.call(self.base, "POST", "/v1/files", self.headers(content_type=kind), body)

    def batch(self, **params):
        """What a batch of one request comes to."""
        made = self.call("POST", "/v1/messages/batches", {"requests": [{"custom_id": "one", "params": request(**params)}]})
        if made.status != 200:
            return made
        batch = made.json()["id"]
        until(lambda: self.call("GET", f"/v1/messages/batches/{batch}").json().get("processing_status") == "ended", "the batch ends")
        return self.call("GET", f"/v1/messages/batches/{batch}/results")


def request(content="hi", **more):
    return {"model": "claude-opus-5-5", "max_tokens": 99, "messages": [{"role": "user", "content": content}], **more}


def signed(base, key, user, seconds=600):
    answer = http_client.post_json(base, "/belljar/v1/scopes", {"user_id": user, "expires_in_s": seconds}, http_client.api_headers(key=key))
    equal(answer.status, 200, answer.text)
    return answer.json()["token"]


class Things:
    """One of everything that has an identifier, of one owner."""

    def __init__(self, owner):
        self.owner = owner
        self.file = good(owner.upload())["id"]
        self.container = good(owner.call("POST", "/belljar/v1/containers", {}))["id"]
        put = http_client.call(
            owner.base, "PUT", f"/belljar/v1/containers/{self.container}/files/work/kept", owner.headers(content_length=str(len(KEPT))), KEPT,
        )
        equal(put.status, 200, put.text)
        cell = good(owner.call(
            "POST", f"/belljar/v1/containers/{self.container}/cells", {"language": "bash", "source": "echo made > $OUTPUT_DIR/made.txt"},
        ))
        self.made = cell["files"][0]["file_id"]
        self.checkpoint = good(owner.call("POST", f"/belljar/v1/containers/{self.container}/checkpoint"))["checkpoint_id"]
        self.batch = good(owner.call("POST", "/v1/messages/batches", {"requests": [{"custom_id": "one", "params": request()}]}))["id"]
        until(lambda: self.batch_object()["processing_status"] == "ended", "the owner's batch ends")
        self.talk = Talk(owner.base, "code_single")
        self.talk.headers = owner.headers(belljar_script="code_single")
        self.paused = self.talk.ask()
        self.before = self.seen()

    def batch_object(self):
        return good(self.owner.call("GET", f"/v1/messages/batches/{self.batch}"))

    def ids(self):
        """By the words of the table."""
        use = next(block for block in self.paused["content"] if block["type"] == "server_tool_use")
        return {
            "file": self.file, "made": self.made, "container": self.container, "batch": self.batch,
            "checkpoint": f"{self.container}/checkpoints/{self.checkpoint}",
            "parked": self.talk.container, "call": use["id"],
        }

    def seen(self):
        """Everything of it that its owner can see."""
        ask = self.owner.call
        listed = [
            [entry["id"] for entry in good(ask("GET", path))["data"]]
            for path in ("/v1/files", "/belljar/v1/containers", "/v1/messages/batches")
        ]
        bytes_kept = ask("GET", f"/belljar/v1/containers/{self.container}/files/work/kept").body
        shown = [good(ask("GET", f"/v1/files/{file}")) for file in (self.file, self.made)]
        state = good(ask("GET", f"/belljar/v1/containers/{self.container}"))["state"]
        parked = good(ask("GET", f"/belljar/v1/containers/{self.talk.container}"))["state"]
        results = ask("GET", f"/v1/messages/batches/{self.batch}/results").body
        content = ask("GET", f"/v1/files/{self.made}/content").body
        checkpoints = good(ask("GET", f"/belljar/v1/containers/{self.container}/checkpoints"))
        return listed, bytes_kept, shown, state, parked, self.batch_object(), results, content, checkpoints

    def unchanged(self):
        equal(self.seen(), self.before, "what the owner sees")
        self.talk.answer(self.paused, lambda given: "42")
        equal(outcome(self.talk.ask())["stdout"], "got 42\n", "the code that had waited")


def good(answer):
    equal(answer.status, 200, answer.text)
    return answer.json()


def shown(kind, file):
    return [{"type": kind, "source": {"type": "file", "file_id": file}}]


def uploaded(file):
    return {"content": [{"type": "container_upload", "file_id": file}], "tools": [CODE]}


def continued(by, container, call):
    """A continuation of code, as somebody writes it who has seen the owner's conversation."""
    use = {"type": "server_tool_use", "id": call, "name": "code_execution", "input": {"code": "x"}, "caller": {"type": "direct"}}
    tool = {"type": "tool_use", "id": "toolu_01AAAAAAAAAAAAAAAAAAAAAA", "name": "lookup", "input": {"key": "a"},
            "caller": {"type": "code_execution_20260120", "tool_id": call}}
    messages = [
        {"role": "user", "content": "Go on."}, {"role": "assistant", "content": [use, tool]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": tool["id"], "content": "1"}]},
    ]
    return by.message("code_single", messages=messages, tools=[CODE, LOOKUP], container=container)


def put(by, container):
    path = f"/belljar/v1/containers/{container}/files/work/kept"
    return http_client.call(by.base, "PUT", path, by.headers(content_length="4"), b"evil")


CELL = {"language": "bash", "source": "echo evil > /work/kept; echo $?"}
OLD = {"anthropic_beta": "files-api-2025-04-14"}
C, B = "/belljar/v1/containers/{id}", "/v1/messages/batches/{id}"

# Endpoint, what its identifier is of (before a comma: which of the owner's), and how it is asked for.
TABLE = [
    ("GET /v1/files/{id}", "file", lambda by, id: by.call("GET", f"/v1/files/{id}")),
    ("GET /v1/files/{id}", "made", lambda by, id: by.call("GET", f"/v1/files/{id}")),
    ("GET /v1/files/{id}/content", "file", lambda by, id: by.call("GET", f"/v1/files/{id}/content")),
    ("GET /v1/files/{id}/content", "made", lambda by, id: by.call("GET", f"/v1/files/{id}/content")),
    ("DELETE /v1/files/{id}", "file", lambda by, id: by.call("DELETE", f"/v1/files/{id}")),
    ("DELETE /v1/files/{id}", "made", lambda by, id: by.call("DELETE", f"/v1/files/{id}")),
    ("GET /v1/files", "file, by id", lambda by, id: by.call("GET", f"/v1/files?ids[]={id}")),
    ("GET /v1/files", "file, behind it", lambda by, id: by.call("GET", f"/v1/files?after_id={id}", **OLD)),
    ("GET /v1/files", "made, before it", lambda by, id: by.call("GET", f"/v1/files?before_id={id}", **OLD)),
    ("POST /v1/messages", "file, in a document", lambda by, id: by.message(content=shown("document", id))),
    ("POST /v1/messages", "made, in an image", lambda by, id: by.message(content=shown("image", id))),
    ("POST /v1/messages", "file, as an upload", lambda by, id: by.message("read_upload", **uploaded(id))),
    ("POST /v1/messages", "container", lambda by, id: by.message("bash", tools=[CODE], container=id)),
    ("POST /v1/messages", "parked, for a turn", lambda by, id: by.message("bash", tools=[CODE], container=id)),
    ("POST /v1/messages", "parked, to go on", lambda by, id: continued(by, id, "srvtoolu_01AAAAAAAAAAAAAAAAAAAAAA")),
    ("POST /v1/messages/count_tokens", "file", lambda by, id: by.call(
        "POST", "/v1/messages/count_tokens", {"model": "m", "messages": [{"role": "user", "content": shown("document", id)}]})),
    ("POST /v1/messages/batches", "file", lambda by, id: by.batch(content=shown("document", id))),
    ("POST /v1/messages/batches", "container", lambda by, id: by.batch(tools=[CODE], container=id)),
    (f"GET {B}", "batch", lambda by, id: by.call("GET", f"/v1/messages/batches/{id}")),
    (f"GET {B}/results", "batch", lambda by, id: by.call("GET", f"/v1/messages/batches/{id}/results")),
    (f"POST {B}/cancel", "batch", lambda by, id: by.call("POST", f"/v1/messages/batches/{id}/cancel")),
    (f"DELETE {B}", "batch", lambda by, id: by.call("DELETE", f"/v1/messages/batches/{id}")),
    ("GET /v1/messages/batches", "batch, behind it", lambda by, id: by.call("GET", f"/v1/messages/batches?after_id={id}")),
    ("GET /v1/messages/batches", "batch, before it", lambda by, id: by.call("GET", f"/v1/messages/batches?before_id={id}")),
    (f"GET {C}", "container", lambda by, id: by.call("GET", f"/belljar/v1/containers/{id}")),
    (f"DELETE {C}", "container", lambda by, id: by.call("DELETE", f"/belljar/v1/containers/{id}")),
    (f"DELETE {C}", "parked", lambda by, id: by.call("DELETE", f"/belljar/v1/containers/{id}")),
    (f"POST {C}/cells", "container", lambda by, id: by.call("POST", f"/belljar/v1/containers/{id}/cells", CELL)),
    (f"POST {C}/cells", "container, live", lambda by, id: by.call(
        "POST", f"/belljar/v1/containers/{id}/cells", CELL, accept="text/event-stream")),
    (f"POST {C}/interrupt", "parked", lambda by, id: by.call("POST", f"/belljar/v1/containers/{id}/interrupt")),
    (f"POST {C}/checkpoint", "container", lambda by, id: by.call("POST", f"/belljar/v1/containers/{id}/checkpoint")),
    (f"POST {C}/checkpoint", "container, put away", lambda by, id: by.call("POST", f"/belljar/v1/containers/{id}/checkpoint", {"put_away": True})),
    (f"GET {C}/checkpoints", "container", lambda by, id: by.call("GET", f"/belljar/v1/containers/{id}/checkpoints")),
    (f"DELETE {C}/checkpoints/{{checkpoint_id}}", "checkpoint", lambda by, id: by.call("DELETE", f"/belljar/v1/containers/{id}")),
    (f"POST {C}/restore", "container", lambda by, id: by.call("POST", f"/belljar/v1/containers/{id}/restore")),
    (f"POST {C}/fork", "container", lambda by, id: by.call("POST", f"/belljar/v1/containers/{id}/fork")),
    (f"GET {C}/export", "container", lambda by, id: by.call("GET", f"/belljar/v1/containers/{id}/export")),
    (f"GET {C}/files/{{*path}}", "container", lambda by, id: by.call("GET", f"/belljar/v1/containers/{id}/files/work/kept")),
    (f"PUT {C}/files/{{*path}}", "container", put),
]


def endpoints():
    """Method and path of every route, as the router's source has them."""
    found, calls = set(), 0
    for source in sorted(ROUTES.rglob("*.rs")):
        text = re.sub(r"^\s*//.*$", "", source.read_text(), flags=re.MULTILINE)
        # `app.router.route(...)` asks which upstream serves a model.
        calls += len(re.findall(r"(?<!router)\.route\(", text))
        for path, handlers in re.findall(r'\.route\(\s*"([^"]+)",\s*((?:[^()]|\([^()]*\))*)\)', text):
            methods = re.findall(r"\b(get|post|put|delete|patch|head|options|any)\(", handlers)
            if not methods:
                raise AssertionError(f"the methods of {path} cannot be read from {source.name}")
            found |= {f"{method.upper()} {path}" for method in methods}
            calls -= 1
    equal(calls, 0, "routes that could not be read")
    return found


def covered():
    known = {endpoint for endpoint, _, _ in TABLE} | NAMELESS
    routed = endpoints()
    equal((sorted(routed - known), sorted(known - routed)), ([], []), "endpoints without a row, and rows without an endpoint")


def matrix(report, own, keys):
    base, key = own.base_url, {name: made["key"] for name, made in keys.items()}
    tokens = {"gone": signed(base, key["gone"], "ann"), "short": signed(base, key["shared"], "ann", 1)}
    owners = [
        (Caller("first", base, key["first"]), [
            Caller("foreign", base, key["second"]), Caller("foreign user", base, key["other"], "ann"),
        ]),
        (Caller("ann", base, key["shared"], "ann"), [
            Caller("bob", base, key["shared"], "bob"), Caller("bob, body", base, key["shared"], "bob", "metadata"),
            Caller("bob, signed", base, key["shared"], "bob", "token"), Caller("whole", base, key["whole"]),
            Caller("foreign ann", base, key["other"], "ann"), Caller("foreign", base, key["second"]),
        ]),
    ]
    command(own, "revoke", keys["revoked"]["id"])
    command(own, "revoke", keys["gone"]["id"])
    ended = [
        Caller("revoked", base, key["revoked"]), Caller("expired", base, key["expired"]),
        Caller("its key revoked", base, tokens["gone"]), Caller("signed, expired", base, tokens["short"]),
    ]
    for caller in ended:
        until(lambda caller=caller: caller.call("GET", "/v1/models").status == 401, f"{caller.name} ends")
    pages = []
    for owner, intruders in owners:
        things = Things(owner)
        rows = []
        for endpoint, kind, ask in TABLE:
            def check(endpoint=endpoint, kind=kind, ask=ask):
                id = things.ids()[kind.partition(",")[0]]
                told = [as_unknown(ask, by, id) for by in intruders] + [as_no_key(ask, by, id) for by in ended]
                rows.append((endpoint, kind, told))
            report.check(f"{owner.name}'s {kind}: {endpoint}", check)
        report.check(f"{owner.name}'s call, in a container of one's own", lambda: [call_unknown(by, things, rows) for by in intruders])
        report.check(f"{owner.name}'s checkpoint, for a container of one's own", lambda: [checkpoint_unknown(by, things) for by in intruders])
        report.check(f"{owner.name}'s things are as they were", things.unchanged)
        report.check(f"{owner.name}'s identifiers mean something to their owner, at every endpoint", lambda: meant(owner, things))
        names = [by.name for by in intruders + ended]
        show(owner, names, rows)
        pages.append(page(owner, names, rows))
    report.check("docs/tenancy-matrix.md shows what was found", lambda: shown_in_docs(pages))


def as_unknown(ask, by, id):
    """The same answer as for an identifier that nobody ever had."""
    unknown = like(id)
    mine, theirs = ask(by, unknown), ask(by, id)
    equal(neutral(theirs, id), neutral(mine, unknown), by.name)
    if theirs.status == 200 and "evil" in theirs.text:
        raise AssertionError(f"{by.name}: {theirs.text}")
    return theirs.status


def meant(owner, things):
    """What the table asks for is there for who owns it: else any server would pass. What removes comes last, of that what is within another first."""
    for endpoint, kind, ask in sorted(TABLE, key=lambda row: (row[0].startswith("DELETE"), -row[0].count("/"))):
        id = things.ids()[kind.partition(",")[0]]
        unknown = like(id)
        mine, nobodys = neutral(ask(owner, id), id), neutral(ask(owner, unknown), unknown)
        if mine == nobodys:
            raise AssertionError(f"{endpoint} ({kind}) answers its owner as it answers an unknown one: {mine}")


def as_no_key(ask, by, id):
    stranger = Caller("no key", by.base, "bj_" + "x" * 43)
    theirs, nobody = ask(by, id), ask(stranger, id)
    equal((theirs.status, nobody.status), (401, 401), by.name)
    equal(neutral(theirs, id), neutral(nobody, id), by.name)
    return theirs.status


def call_unknown(by, things, rows):
    """A call of somebody else's code, answered in a container that the caller may name."""
    container, call = good(by.call("POST", "/belljar/v1/containers", {}))["id"], things.ids()["call"]
    unknown = like(call)
    theirs, mine = continued(by, container, call), continued(by, container, unknown)
    equal(neutral(theirs, call), neutral(mine, unknown), by.name)
    good(by.call("DELETE", f"/belljar/v1/containers/{container}"))


def checkpoint_unknown(by, things):
    """Somebody else's checkpoint, named for a container that the caller may name."""
    container, unknown = good(by.call("POST", "/belljar/v1/containers", {}))["id"], like(things.checkpoint)
    good(by.call("POST", f"/belljar/v1/containers/{container}/checkpoint"))
    own = f"/belljar/v1/containers/{container}"
    for method, path, body in (
        ("POST", f"{own}/restore", {"checkpoint_id": "ID"}), ("POST", f"{own}/fork", {"checkpoint_id": "ID"}), ("DELETE", f"{own}/checkpoints/ID", None),
    ):
        named = lambda id: by.call(method, path.replace("ID", id), body and {"checkpoint_id": id})
        theirs, mine = named(things.checkpoint), named(unknown)
        equal((theirs.status, neutral(theirs, things.checkpoint)), (404, neutral(mine, unknown)), f"{by.name}: {path}")
    good(by.call("DELETE", own))


def like(id):
    """Another identifier of the same shape."""
    letters = string.digits[1:]
    return id[:-8] + "".join(letters[(ord(letter) + 1) % len(letters)] for letter in id[-8:])


def neutral(answer, id):
    """An answer without what is of this request alone."""
    text = answer.text.replace(id, "<id>")
    text = re.sub(r"(req|msgbatch|msg|file|srvtoolu|container)_[A-Za-z0-9]+", r"<\1>", text)
    headers = {name: value for name, value in answer.headers.items() if name not in ("date", "request-id")}
    return answer.status, headers, text


def show(owner, names, rows):
    rows = [(f"{endpoint}  ({kind})", told) for endpoint, kind, told in rows]
    width = max(len(name) for name, _ in rows)
    print(f"\nwhat {owner.name}'s identifiers are to others ({' | '.join(names)})")
    for name, told in rows:
        print(f"  {name:<{width}}  {'  '.join(str(status) for status in told)}")
    print(flush=True)


def page(owner, names, rows):
    """The same for a reader: identifiers by endpoint, others by column, statuses."""
    table = [f"| `{endpoint}` | {kind} | {' | '.join(map(str, told))} |" for endpoint, kind, told in rows]
    head = [f"| endpoint | identifier | {' | '.join(names)} |", f"|---|---|{'---|' * len(names)}"]
    return "\n".join([f"## What {owner.name}'s identifiers are to others\n", *head, *table])


def shown_in_docs(pages):
    text = "\n\n".join([MATRIX.read_text().partition("\n## ")[0].rstrip(), *pages]) + "\n"
    if os.environ.get("BELLJAR_WRITE_DOCS"):
        MATRIX.write_text(text)
    equal(MATRIX.read_text(), text)


def first_key_closes(own):
    """a first key closes an open server at once, without a restart"""
    base = own.base_url
    anybody = http_client.api_headers(key="whatever")
    equal(http_client.call(base, "GET", "/v1/models", anybody).status, 200)
    own.made = command(own, "create", "--workspace", "first", "--models", "claude-haiku-*", "--models", "claude-opus-5-5")
    equal(http_client.call(base, "GET", "/v1/models", anybody).status, 401)
    equal(http_client.call(base, "GET", "/v1/models", http_client.api_headers(key=own.made["key"])).status, 200)


def models_of_a_key(own):
    """a key names the models that it may, is told of those, and of no other"""
    by = Caller("first", own.base_url, own.made["key"])
    equal([model["id"] for model in good(by.call("GET", "/v1/models"))["data"]], ["claude-opus-5-5"])
    equal(by.call("GET", "/v1/models/claude-haiku-4-5").status, 200)
    equal(by.message(model="claude-haiku-4-5").status, 200)
    body = request(model="claude-sonnet-5-5")
    counted = {key: body[key] for key in ("model", "messages")}
    for answer in (
        by.message(model="claude-sonnet-5-5"), by.call("GET", "/v1/models/claude-sonnet-5-5"),
        by.call("POST", "/v1/messages/count_tokens", counted),
    ):
        equal((answer.status, answer.json()["error"]), (404, {"type": "not_found_error", "message": "model: claude-sonnet-5-5"}))
    line = json.loads(by.batch(model="claude-sonnet-5-5").text)
    equal(line["result"]["error"]["error"], {"type": "not_found_error", "message": "model: claude-sonnet-5-5"})


def revoked_at_once(own):
    """a key that is revoked beside a running server opens nothing from its next request on, and the log says which"""
    made = command(own, "create", "--workspace", "first")
    by = Caller("short", own.base_url, made["key"])
    equal(by.call("GET", "/v1/files").status, 200)
    command(own, "revoke", made["id"])
    refused = by.call("GET", "/v1/files")
    equal((refused.status, refused.json()["error"]["message"]), (401, "invalid x-api-key"))
    expiring = command(own, "create", "--workspace", "first", "--expires-in", "1s")
    by = Caller("expiring", own.base_url, expiring["key"])
    until(lambda: by.call("GET", "/v1/files").status == 401, "the key expires")
    for made, why in ((made, "this key was revoked"), (expiring, "this key has expired")):
        lines = [line for line in own.log().splitlines() if made["id"] in line and why in line]
        if not lines:
            raise AssertionError(f"no line of the log says of {made['id']}: {why}")
    listed = {row["id"]: row for row in command(own, "list")["data"]}
    equal((listed[expiring["id"]]["is_expired"], listed[expiring["id"]]["revoked_at"]), (True, None))


def user_is_needed(own):
    """a key of each end user opens nothing until one is named, and says how"""
    key = command(own, "create", "--workspace", "shared", "--scope", "per-user")["key"]
    nobody = http_client.api_headers(key=key)
    answer = http_client.post_json(own.base_url, "/v1/messages", request(), {**nobody, "belljar-script": "plain"})
    equal((answer.status, answer.json()["error"]["type"]), (400, "invalid_request_error"))
    for answer in (answer, http_client.call(own.base_url, "GET", "/v1/files", nobody)):
        equal(answer.status, 400)
        if "metadata.user_id" not in answer.text:
            raise AssertionError(answer.text)
    equal(http_client.call(own.base_url, "GET", "/v1/models", nobody).status, 200)
    for bad in ("", "x" * 257):
        equal(http_client.call(own.base_url, "GET", "/v1/files", {**nobody, "belljar-user": bad}).status, 400, repr(bad))
    plain = http_client.api_headers(key=own.made["key"], belljar_user="ann")
    refused = http_client.call(own.base_url, "GET", "/v1/files", plain)
    equal(refused.status, 400, refused.text)


def ways_to_one_user(own):
    """body, header and signature name the same end user, whose things outlive the server's restarts"""
    key = command(own, "create", "--workspace", "shared", "--scope", "per-user")["key"]
    ways = [Caller(by, own.base_url, key, "Zoë", by) for by in ("metadata", "token")]
    header = Caller("header", own.base_url, key, "Zoë".encode().decode("latin-1"))
    file = good(header.upload())["id"]
    for by in ways:
        answer = by.message(content=shown("document", file))
        equal(answer.status, 200, f"{by.name}: {answer.text}")
    container = good(ways[0].message("bash", tools=[CODE]))["container"]["id"]
    run_in = lambda: header.call("POST", f"/belljar/v1/containers/{container}/cells", {"language": "bash", "source": "echo still"})
    equal(good(run_in())["stdout"], "still\n")
    own.restart_in_place()
    equal(good(run_in())["stdout"], "still\n", "after a restart in place")
    good(header.call("POST", f"/belljar/v1/containers/{container}/checkpoint", {"put_away": True}))
    own.restart()
    for by in (header, *ways):
        by.base = own.base_url
    equal(good(run_in())["stdout"], "still\n", "after a stop")
    equal(good(ways[1].call("GET", f"/v1/files/{file}"))["id"], file, "by a signature from before the stop")
    whose = [row for row in command(own, "usage")["data"] if row["user_id"] == "Zoë"]
    equal([(row["workspace"], row["files"], row["containers"]) for row in whose], [("shared", 1, 1)])


def waits_over_a_restart(own):
    """code of one end user that waits goes on after a restart in place, for that end user alone"""
    key = command(own, "create", "--workspace", "shared", "--scope", "per-user")["key"]
    ann, bob = (Caller(user, own.base_url, key, user) for user in ("ann", "bob"))
    talk = Talk(own.base_url, "code_single")
    talk.headers = ann.headers(belljar_script="code_single")
    paused = talk.ask()
    own.restart_in_place()
    talk.answer(paused, lambda given: "42")
    others = {**talk.headers, "belljar-user": "bob"}
    refused = http_client.post_json(own.base_url, "/v1/messages", talk.body(), others)
    equal((refused.status, refused.json()["error"]["message"]), (404, f"Container not found: {talk.container}"))
    equal(bob.call("POST", f"/belljar/v1/containers/{talk.container}/interrupt").status, 404)
    equal(outcome(talk.ask())["stdout"], "got 42\n")


def one_users_batch(own):
    """a batch is one end user's, and so is every request in it"""
    key = command(own, "create", "--workspace", "shared", "--scope", "per-user")["key"]
    ann = Caller("ann", own.base_url, key, "ann")
    file = good(ann.upload())["id"]
    equal(json.loads(ann.batch(content=shown("document", file)).text)["result"]["type"], "succeeded")
    equal(json.loads(ann.batch(metadata={"user_id": "ann"}).text)["result"]["type"], "succeeded")
    line = json.loads(ann.batch(metadata={"user_id": "bob"}).text)
    equal(line["result"]["error"]["error"]["message"], "metadata.user_id: this is not the end user that the batch was made for")


def signatures(own):
    """a signature is for one end user alone, and signs nothing itself"""
    key = command(own, "create", "--workspace", "shared", "--scope", "per-user")["key"]
    token = signed(own.base_url, key, "ann")
    ask = {"user_id": "bob", "expires_in_s": 60}
    tries = [
        (http_client.api_headers(key=token), ask, 403), (http_client.api_headers(key=own.made["key"]), ask, 403),
        (http_client.api_headers(key=key, belljar_user="ann"), ask, 400),
        (http_client.api_headers(key=key), {"user_id": "bob", "expires_in_s": 86401}, 400),
        (http_client.api_headers(key=key), {"expires_in_s": 60}, 400),
    ]
    for headers, body, status in tries:
        answer = http_client.post_json(own.base_url, "/belljar/v1/scopes", body, headers)
        equal(answer.status, status, answer.text)
    as_bob = http_client.call(own.base_url, "GET", "/v1/files", http_client.api_headers(key=token, belljar_user="bob"))
    equal(as_bob.status, 400, as_bob.text)
    said, signature = token.removeprefix("bjs_").split(".")
    for forged in (f"bjs_{said}.{signature[::-1]}", f"bjs_{said[::-1]}.{signature}", f"bjs_{said}", "bjs_", "bjs_."):
        refused = http_client.call(own.base_url, "GET", "/v1/files", http_client.api_headers(key=forged))
        equal((refused.status, refused.json()["error"]["message"]), (401, "invalid x-api-key"), forged)
    for path in own.data_dir.rglob("*"):
        if path.is_file() and token.encode() in path.read_bytes():
            raise AssertionError(f"a signed scope stands in {path.name}")


BY_ITSELF = [first_key_closes, models_of_a_key, revoked_at_once, user_is_needed, ways_to_one_user, waits_over_a_restart,
             one_users_batch, signatures]
