"""Plain HTTP and server-sent events, as a client without an SDK sees them."""

import http.client
import json
import uuid
from dataclasses import dataclass, field
from urllib.parse import urlsplit

KEY = "sk-test-local"
VERSION = "2026-10-21"


@dataclass
class Answer:
    status: int
    headers: dict
    body: bytes
    events: list = field(default_factory=list)

    def json(self):
        return json.loads(self.body)

    @property
    def text(self):
        return self.body.decode("utf-8", "replace")


def call(base_url, method, path, headers=None, body=None, timeout=120):
    """One exchange. Header names of the answer are in lower case."""
    address = urlsplit(base_url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=timeout)
    try:
        try:
            connection.request(method, path, body=body, headers=headers or {})
        except (BrokenPipeError, ConnectionResetError):
            pass  # A server may refuse a body before it has read it all; the answer is still there.
        response = connection.getresponse()
        return Answer(response.status, lowered(response), response.read())
    finally:
        connection.close()


def lowered(response):
    return {name.lower(): value for name, value in response.getheaders()}


def api_headers(key=KEY, **more):
    """What a client sends with every call; pass `None` to leave one out."""
    headers = {"authorization": f"Bearer {key}", "anthropic-version": VERSION, "content-type": "application/json"}
    headers.update({name.replace("_", "-"): value for name, value in more.items()})
    return {name: value for name, value in headers.items() if value is not None}


def post_json(base_url, path, document, headers=None, timeout=120):
    return call(base_url, "POST", path, headers or api_headers(), json.dumps(document).encode(), timeout)


def multipart(parts):
    """(content type, body) for parts of {name, filename?, content_type?, data}."""
    boundary = uuid.uuid4().hex
    out = []
    for part in parts:
        disposition = f'form-data; name="{part["name"]}"'
        if part.get("filename") is not None:
            disposition += f'; filename="{part["filename"]}"'
        head = f"--{boundary}\r\nContent-Disposition: {disposition}\r\n"
        if part.get("content_type"):
            head += f"Content-Type: {part['content_type']}\r\n"
        data = part.get("data", "")
        out += [head.encode() + b"\r\n", data if isinstance(data, bytes) else data.encode(), b"\r\n"]
    out.append(f"--{boundary}--\r\n".encode())
    return f"multipart/form-data; boundary={boundary}", b"".join(out)


def in_pieces(body, piece_bytes):
    """A body that is sent in chunks, its length unsaid."""
    for at in range(0, len(body), piece_bytes):
        yield body[at:at + piece_bytes]


def stream(base_url, document, headers=None, timeout=120):
    """Posts a streaming message; the answer's `events` are (event name, data) in order."""
    answer = post_json(base_url, "/v1/messages", {**document, "stream": True}, headers, timeout)
    answer.events = parse_events(answer.text) if answer.status == 200 else []
    return answer


def parse_events(text):
    """Events of a finished stream. Each must be one `event:` and one `data:` line."""
    events = []
    for frame in text.split("\n\n"):
        lines = frame.strip("\n").split("\n")
        if lines == [""]:
            continue
        if len(lines) != 2 or not lines[0].startswith("event: ") or not lines[1].startswith("data: "):
            raise AssertionError(f"not one event: line and one data: line: {lines!r}")
        name, data = lines[0][len("event: "):], json.loads(lines[1][len("data: "):])
        if data.get("type") != name:
            raise AssertionError(f"event {name!r} carries type {data.get('type')!r}")
        events.append((name, data))
    return events
