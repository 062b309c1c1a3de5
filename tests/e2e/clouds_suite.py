"""A whole turn of the server with Claude in Amazon Bedrock and in Vertex AI: the model's call is run in a container, and its result goes
up. The fakes are written here, from the clouds' documentation: Bedrock's makes each signature again and frames its events, Vertex's hands
out the access token that it then asks for.
"""

import base64
import hashlib
import hmac
import json
import struct
import tempfile
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from harness import http_client, server
from harness.report import equal

ROOT = Path(__file__).resolve().parents[2]
ACCESS_KEY_ID, SECRET, SESSION_TOKEN = "AKIDEXAMPLE", "wJalrXUtnFEMI-kept-secret", "session-kept-secret"
ACCESS_TOKEN = "ya29.kept-secret"
REGION, PROJECT = "us-east-1", "my-project-1"
BEDROCK_MODEL = "us.anthropic.claude-haiku-4-5-20251001-v1:0"
VERTEX_MODEL = "claude-haiku-4-5@20251001"
PATHS = {
    "bedrock": "/model/us.anthropic.claude-haiku-4-5-20251001-v1%3A0/invoke-with-response-stream",
    "vertex": f"/v1/projects/{PROJECT}/locations/{REGION}/publishers/anthropic/models/{VERTEX_MODEL}:streamRawPredict",
}
CALL = {"type": "tool_use", "id": "toolu_a", "name": "bash_code_execution", "input": {"command": "echo $((6 * 7))"}}
TEXT = {"type": "text", "text": "Größe: 42."}
SECRETS = (SECRET, SESSION_TOKEN, ACCESS_TOKEN, "BEGIN PRIVATE KEY")


def run(report, running):
    with Cloud() as cloud, tempfile.TemporaryDirectory(prefix="belljar-test-clouds-") as folder:
        account = Path(folder) / "account.json"
        account.write_text(json.dumps(service_account(cloud.url)))
        environment = {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": SESSION_TOKEN,
            "GOOGLE_APPLICATION_CREDENTIALS": str(account), "BELLJAR_LOG": "trace",
        }
        try:
            with server.Server(running.belljar, upstreams=tables(cloud.url), environment=environment) as between:
                replies = []
                for way in PATHS:
                    report.check(f"{way}: a call is run and its result goes up", lambda way=way: turn(between, cloud, way, replies))
                report.check("bedrock: an exception in place of a reply is the client's 429", lambda: throttled(between, cloud, replies))
                report.check("no secret is in a reply", lambda: kept_from_clients(replies))
                report.check("no secret is in a log or in the data", lambda: kept(between))
                report.check("no thread panicked", between.no_panic)
        except (RuntimeError, OSError) as error:
            report.fail("starting a server", error)
        report.check("`record` with `via` is refused at start", lambda: refused(running.belljar, cloud, environment))


def tables(url):
    common = {"kind": "anthropic", "base_url": url, "region": REGION, "retries_max": 0}
    return [
        {**common, "name": "bedrock", "via": "bedrock", "models": ["bedrock"], "model": BEDROCK_MODEL},
        {**common, "name": "vertex", "via": "vertex", "project": PROJECT, "models": ["vertex"], "model": VERTEX_MODEL},
    ]


def ask(between, model, replies):
    tool = {"type": "code_execution_20250825", "name": "code_execution"}
    body = {"model": model, "max_tokens": 512, "tools": [tool], "messages": [{"role": "user", "content": "go"}]}
    betas = "code-execution-2025-08-25,interleaved-thinking-2025-05-14"
    answer = http_client.post_json(between.base_url, "/v1/messages", body, http_client.api_headers(anthropic_beta=betas))
    replies.append(answer)
    return answer


def turn(between, cloud, way, replies):
    seen = cloud.will_say([[CALL], [TEXT]])
    answer = ask(between, way, replies)
    equal(answer.status, 200, f"status of {answer.text}")
    content = answer.json()["content"]
    kinds = ["server_tool_use", "bash_code_execution_tool_result", "text"]
    equal([block["type"] for block in content], kinds, "blocks")
    equal((content[1]["content"]["stdout"], content[2]["text"]), ("42\n", TEXT["text"]), "what was said")
    equal(cloud.violations, [], "broken rules")
    equal([path for path, _ in seen], [PATHS[way]] * 2, "paths")
    result = seen[1][1]["messages"][-1]["content"][0]
    equal((result["type"], "42" in json.dumps(result["content"])), ("tool_result", True), "what went up")


def throttled(between, cloud, replies):
    seen = cloud.will_say([{"exception": "throttlingException"}])
    answer = ask(between, "bedrock", replies)
    equal((answer.status, answer.json()["error"]["type"]), (429, "rate_limit_error"), "the error")
    equal(len(seen), 1, "requests")


def kept_from_clients(replies):
    equal(len(replies), 3, "replies")
    for answer in replies:
        whole = f"{answer.headers}\n{answer.text}"
        equal([secret for secret in SECRETS if secret in whole], [], f"secrets in {whole!r}")


def kept(between):
    files = [between.log_path, *(path for path in between.data_dir.rglob("*") if path.is_file())]
    found = [(path.name, secret) for path in files for secret in SECRETS if secret.encode() in path.read_bytes()]
    equal(found, [], "files that hold a secret")
    if "TRACE" not in between.log():
        raise AssertionError("the log is not at its fullest: it proves nothing")


def refused(belljar, cloud, environment):
    for table in tables(cloud.url):
        try:
            with server.Server(belljar, upstreams=[{**table, "record": True}], environment=environment):
                raise AssertionError("it started")
        except RuntimeError as error:
            wanted = f'upstream "{table["name"]}": record is not for upstreams with `via`'
            equal(wanted in str(error), True, f"`{wanted}` in {error}")


def service_account(url):
    key = (ROOT / "crates/model/tests/clouds/service-account.pem").read_text()
    return {
        "type": "service_account", "project_id": PROJECT, "private_key_id": "k", "private_key": key, "token_uri": f"{url}/token",
        "client_email": "robot@my-project-1.iam.gserviceaccount.com",
    }


class Cloud:
    """Both clouds on one port."""

    def __init__(self):
        self.says, self.seen, self.violations = [], [], []
        cloud = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                status, kind, answer = cloud.answer(self.path, self.headers, body)
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_arguments):
                pass

        self.listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.listening.server_address[1]}"

    def __enter__(self):
        self.thread = threading.Thread(target=self.listening.serve_forever)
        self.thread.start()
        return self

    def __exit__(self, *_exception):
        self.listening.shutdown()
        self.thread.join()
        self.listening.server_close()

    def will_say(self, says):
        """Sets the next answers; returns the list that requests are added to."""
        self.says, self.seen, self.violations = list(says), [], []
        return self.seen

    def answer(self, path, headers, body):
        if path == "/token":
            token = {"access_token": ACCESS_TOKEN, "expires_in": 3600, "token_type": "Bearer"}
            return 200, "application/json", json.dumps(token).encode()
        bedrock = path.startswith("/model/")
        document = json.loads(body)
        self.seen.append((path, document))
        wanted = signature(path, headers, body) if bedrock else f"Bearer {ACCESS_TOKEN}"
        version = "bedrock-2023-05-31" if bedrock else "vertex-2023-10-16"
        betas = document.get("anthropic_beta") if bedrock else (headers["anthropic-beta"] or "").split(",")
        for what, found, expected in (
            ("authorization", headers["authorization"], wanted), ("anthropic_version", document.get("anthropic_version"), version),
            ("betas", betas, ["interleaved-thinking-2025-05-14"]), ("model", document.get("model"), None),
            ("stream", document.get("stream"), None if bedrock else True),
            ("x-api-key", headers["x-api-key"], None),
        ):
            if found != expected:
                self.violations.append(f"{path}: {what}: {found!r}, not {expected!r}")
        if self.violations or not self.says:
            return 400, "application/json", json.dumps({"message": f"{self.violations}"}).encode()
        said = self.says.pop(0)
        if bedrock:
            return 200, "application/vnd.amazon.eventstream", framed(said)
        events = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events_of(said)]
        return 200, "text/event-stream", "".join(events).encode()


def signature(path, headers, body):
    """AWS's Signature Version 4, as its documentation has it; the path is escaped once more than it was sent."""
    names = ["content-type", "host", "x-amz-date", "x-amz-security-token"]
    if headers["x-amz-security-token"] != SESSION_TOKEN:
        return "a request with the temporary keys' token"
    date = headers["x-amz-date"]
    given = "".join(f"{name}:{headers[name]}\n" for name in names)
    canonical = "\n".join(["POST", path.replace("%", "%25"), "", given, ";".join(names), hashlib.sha256(body).hexdigest()])
    scope = f"{date[:8]}/{REGION}/bedrock/aws4_request"
    to_sign = "\n".join(["AWS4-HMAC-SHA256", date, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{SECRET}".encode()
    for part in (date[:8], REGION, "bedrock", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signed = hmac.digest(key, to_sign.encode(), "sha256").hex()
    return f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY_ID}/{scope}, SignedHeaders={';'.join(names)}, Signature={signed}"


def events_of(content):
    """A reply's events: a text in two deltas, a call in one."""
    called = any(block["type"] == "tool_use" for block in content)
    message = {"id": "msg_a", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None, "stop_sequence": None}
    yield {"type": "message_start", "message": {**message, "usage": {"input_tokens": 5, "output_tokens": 1}}}
    for index, block in enumerate(content):
        if block["type"] == "text":
            empty, text = {"type": "text", "text": ""}, block["text"]
            deltas = [{"type": "text_delta", "text": piece} for piece in (text[:3], text[3:])]
        else:
            empty = {**block, "input": {}}
            deltas = [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]
        yield {"type": "content_block_start", "index": index, "content_block": empty}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    reason = {"stop_reason": "tool_use" if called else "end_turn", "stop_sequence": None}
    yield {"type": "message_delta", "delta": reason, "usage": {"output_tokens": 3}}
    yield {"type": "message_stop"}


def framed(said):
    """The reply in Amazon's frames; an exception comes where a reply would begin."""
    if isinstance(said, dict):
        return frame({":exception-type": said["exception"], ":message-type": "exception"}, {"message": "Too many tokens"})
    head = {":event-type": "chunk", ":content-type": "application/json", ":message-type": "event"}
    chunk = lambda event: {"bytes": base64.b64encode(json.dumps(event).encode()).decode(), "p": "abcd"}  # noqa: E731
    return b"".join(frame(head, chunk(event)) for event in events_of(said))


def frame(headers, payload):
    """Lengths and their checksum, headers (name, type 7, text), payload, and the checksum of it all."""
    head = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode() for name, value in headers.items()
    )
    body = json.dumps(payload).encode()
    prelude = struct.pack(">II", 16 + len(head) + len(body), len(head))
    whole = prelude + struct.pack(">I", zlib.crc32(prelude)) + head + body
    return whole + struct.pack(">I", zlib.crc32(whole))
