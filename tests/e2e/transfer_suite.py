"""Export and import of containers. Archives that must be refused are data in `hostile_archives/`."""

import hashlib
import http.client
import io
import json
import tarfile
from pathlib import Path
from urllib.parse import urlsplit

from checkpoint_suite import LOOK, MESS, out
from container_suite import cell, create, post, state
from harness import http_client
from harness.report import equal

CASES = Path(__file__).resolve().parent / "hostile_archives"
TYPES = {"file": tarfile.REGTYPE, "symlink": tarfile.SYMTYPE, "hardlink": tarfile.LNKTYPE, "block": tarfile.BLKTYPE, "character": tarfile.CHRTYPE}


def run(report, running):
    base = running.base_url
    report.check("a container goes out and comes in as another", lambda: there_and_back(base))
    report.check("a kept container is exported without coming to life", lambda: kept(base))
    report.check("the layer alone is a tar stream, too", lambda: layer(base))
    report.check("an export's digests are those of its files", lambda: digests(base))
    report.check("what is imported is told that variables are lost, and is a container like all", lambda: lives(base))
    report.check("who hangs up half way leaves nothing", lambda: hung_up(base))
    report.check("a bad query, and what is not there", lambda: refusals(base))
    for path in sorted(CASES.glob("*.json")):
        report.check(f"refused: {path.stem}", lambda path=path: hostile(base, json.loads(path.read_text())))


def export(base, container, query=""):
    return http_client.call(base, "GET", f"/belljar/v1/containers/{container}/export{query}", http_client.api_headers())


def put_in(base, archive):
    headers = http_client.api_headers(content_type="application/x-tar")
    return http_client.call(base, "POST", "/belljar/v1/containers/import", headers, archive)


def there_and_back(base):
    container = create(base)
    equal(cell(base, container, "bash", MESS)["return_code"], 0, "files are made")
    equal(cell(base, container, "python", "import os\nos.setxattr('/work/noise', 'user.note', b'a=b\\n')\nx = 1")["return_code"], 0, "an attribute")
    answer = export(base, container)
    equal((answer.status, answer.headers["content-type"]), (200, "application/x-tar"), answer.headers)
    equal(cell(base, container, "python", "print(x)")["stdout"], "1\n", "it goes on")
    made = put_in(base, answer.body)
    equal((made.status, made.json().get("state")), (200, "ready"), made.text[:500])
    other = made.json()["id"]
    equal(out(base, other, LOOK), out(base, container, LOOK), "its files")
    note = out(base, other, "import os\nprint(os.getxattr('/work/noise', 'user.note'))", "python")
    equal(note, "b'a=b\\n'\n", "its attribute")
    again = export(base, other)
    # What is gone from the image may be marked in two ways, which say the same.
    files = lambda body: [line for line in manifest(body)[1:] if "/.wh." not in line["path"]]
    equal(files(again.body), files(answer.body), "exported again")


def manifest(body):
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        last = archive.getmembers()[-1]
        equal(last.name, "manifest.jsonl", "the last entry")
        return [json.loads(line) for line in archive.extractfile(last).read().splitlines()]


def kept(base):
    container = create(base)
    out(base, container, "echo kept > /work/f")
    post(base, f"/belljar/v1/containers/{container}/checkpoint", {"put_away": True})
    answer = export(base, container)
    equal((answer.status, state(base, container)), (200, "checkpointed"), "its state")
    equal(out(base, put_in(base, answer.body).json()["id"], "cat /work/f"), "kept\n", "the other's file")


def layer(base):
    container = create(base)
    out(base, container, "echo mine > /work/f; rm /etc/debian_version")
    answer = export(base, container, "?format=oci")
    equal(answer.headers["content-type"], "application/vnd.oci.image.layer.v1.tar", "its type")
    with tarfile.open(fileobj=io.BytesIO(answer.body)) as archive:
        names = archive.getnames()
        equal(("etc/.wh.debian_version" in names, archive.extractfile("work/f").read()), (True, b"mine\n"), names)


def digests(base):
    container = create(base)
    out(base, container, "head -c 300000 /dev/urandom > /work/f; : > /work/empty; ln -s f /work/l; ln /work/f /work/h")
    body = export(base, container).body
    head, *lines = manifest(body)
    equal((head["format"], head["container_id"], head["isolation"]), ("belljar.container/1", container, "namespaces"), head)
    said = {line["path"]: line for line in lines}
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        members = archive.getmembers()[:-1]
        equal([one.name.removeprefix("files/") for one in members], list(said), "the order")
        for one in (one for one in members if one.isreg()):
            found = hashlib.sha256(archive.extractfile(one).read()).hexdigest()
            equal(said[one.name.removeprefix("files/")]["digest"], f"sha256:{found}", one.name)
    equal([said[f"work/{name}"]["kind"] for name in ("l", "f", "h", "empty")], ["symlink", "file", "hardlink", "file"], said)


def lives(base):
    container = create(base)
    out(base, container, "x = 1", "python")
    made = put_in(base, export(base, container).body).json()
    equal(sorted(made), ["created_at", "expires_at", "id", "state"], "as one that was made")
    lost = cell(base, made["id"], "python", "print('x' in globals())")
    equal((lost["stdout"], "variables are lost" in lost["stderr"]), ("False\n", True), lost["stderr"])
    equal(http_client.call(base, "DELETE", f"/belljar/v1/containers/{made['id']}", http_client.api_headers()).status, 200)


def containers(base):
    found, page = [], ""
    while page is not None:
        query = f"?limit=1000{page}"
        answer = http_client.call(base, "GET", f"/belljar/v1/containers{query}", http_client.api_headers()).json()
        found += [one["id"] for one in answer["data"]]
        page = f"&page={answer['next_page']}" if answer["next_page"] else None
    return found


def added(base, before):
    """Containers that were not there before. Those of other suites may end meanwhile."""
    return sorted(set(containers(base)) - set(before))


def hung_up(base):
    container = create(base)
    out(base, container, "head -c 20000000 /dev/urandom > /work/f")
    body = export(base, container).body
    before = containers(base)
    address = urlsplit(base)
    connection = http.client.HTTPConnection(address.hostname, address.port)
    connection.putrequest("POST", "/belljar/v1/containers/import")
    for name, value in {**http_client.api_headers(content_type="application/x-tar"), "content-length": str(len(body))}.items():
        connection.putheader(name, value)
    connection.endheaders()
    connection.send(body[:10_000_000])
    connection.close()
    # The other way round: what nobody reads any more holds nothing.
    connection = http.client.HTTPConnection(address.hostname, address.port)
    connection.request("GET", f"/belljar/v1/containers/{container}/export", headers=http_client.api_headers())
    connection.getresponse().read(100_000)
    connection.close()
    equal(out(base, container, "stat -c %s /work/f"), "20000000\n", "it is free again")
    equal(added(base, before), [], "containers")


def refusals(base):
    container = create(base)
    answer = export(base, container, "?format=zip")
    equal((answer.status, answer.json()["error"]["message"]), (400, "format: Input should be 'tar' or 'oci'"), answer.text)
    equal(export(base, "container_01ZZZZZZZZZZZZZZZZZZZZZZ").status, 404, "nobody's")


def text(value):
    return (value["repeat"] * value["times"] if isinstance(value, dict) else value).encode()


def entry(one):
    info = tarfile.TarInfo(one["path"])
    info.type, info.mode, info.linkname = TYPES[one["type"]], 0o644, one.get("target", "")
    content = text(one.get("content", ""))
    info.size = one.get("zeros", len(content))
    info.pax_headers = {key: text(value).decode() for key, value in one.get("pax", {}).items()}
    return info, content


def build(base, case):
    """The case's archive, with a manifest that is right but for what the case changes."""
    if "raw" in case:
        return text(case["raw"])
    head = manifest(export(base, create(base)).body)[0]
    lines, packed = [head], io.BytesIO()
    archive = tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT)
    for one in case["entries"]:
        info, content = entry(one)
        if case.get("head_only"):
            return info.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 16)
        # `addfile` would write records of its own beside a path it finds odd; the head is written as it is.
        packed.write(info.tobuf(tarfile.PAX_FORMAT if info.pax_headers else tarfile.GNU_FORMAT))
        packed.write(content + bytes(-len(content) % 512))
        line = {"path": one["path"].removeprefix("files/"), "kind": one["type"], "mode": 0o644, "size_bytes": len(content)}
        if one["type"] == "file":
            line["digest"] = "sha256:" + hashlib.sha256(content).hexdigest()
        if "target" in one:
            line["target"] = one["target"].removeprefix("files/") if one["type"] == "hardlink" else one["target"]
        lines.append(line)
    if "change" in case:
        lines[case["change"]["line"] - 1].update({key: value for key, value in case["change"].items() if key != "line"})
    if "drop" in case:
        del lines[case["drop"] - 1]
    lines += [case["add"]] if "add" in case else []
    if case.get("manifest") != "none":
        told = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        info = tarfile.TarInfo("manifest.jsonl")
        info.size = len(told)
        packed.write(info.tobuf() + told + bytes(-len(told) % 512))
    for one in case.get("behind", []):
        info, content = entry(one)
        packed.write(info.tobuf() + content + bytes(-len(content) % 512))
    packed.write(bytes(1024))
    return packed.getvalue()[: case.get("cut")]


def hostile(base, case):
    archive = build(base, case)
    before = containers(base)
    answer = put_in(base, archive)
    equal((answer.status, answer.json()["error"]["type"]), (400, "invalid_request_error"), answer.text)
    message = answer.json()["error"]["message"]
    if case["error"] not in message:
        raise AssertionError(f"{case['error']!r} is not in {message!r}")
    equal(added(base, before), [], "containers")
