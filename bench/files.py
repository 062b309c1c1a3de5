"""What files cost: contents in and out, long lists, many containers, and forks, measured through the server's endpoints.

`bench/files.py --belljar PATH [--file-mib 1024] [--files 100000] [--containers 10000] [--fork-mib 1024]`. Prints figures; each part leaves nothing on
the disk. The lists' and the containers' rows are written into the database while the server is down: what is measured is reading.
"""

import argparse
import hashlib
import http.client
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from harness import http_client, server  # noqa: E402

MIB = 1024 * 1024
# Not zeros, and no two neighbours alike.
BLOCK = hashlib.shake_128(b"belljar").digest(MIB)
ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


class Resident:
    """The most resident memory of a process while this is entered, and what it was before."""

    def __init__(self, pid):
        self.pid, self.before, self.most, self.over = pid, resident(pid), 0, threading.Event()

    def __enter__(self):
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self):
        while not self.over.wait(0.02):
            self.most = max(self.most, resident(self.pid))

    def __exit__(self, *_exception):
        self.over.set()
        self.thread.join()

    def __str__(self):
        return f"{self.before / MIB:.1f} MiB before, at most {self.most / MIB:.1f} MiB"


def resident(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def timed(work):
    started = time.perf_counter()
    found = work()
    return time.perf_counter() - started, found


def say(name, text):
    print(f"{name:<58} {text}", flush=True)


def post(base, path, body, timeout=1200):
    answer = http_client.post_json(base, path, body, timeout=timeout)
    assert answer.status == 200, answer.text[:500]
    return answer.json()


def get(base, path):
    answer = http_client.call(base, "GET", path, http_client.api_headers(), timeout=1200)
    assert answer.status == 200, answer.text[:500]
    return answer


def delete(base, path):
    assert http_client.call(base, "DELETE", path, http_client.api_headers(), timeout=1200).status == 200


def upload(base, blocks):
    """Streams a file of so many blocks; its object."""
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="large.bin"\r\nContent-Type: application/octet-stream\r\n\r\n'
    tail = b"\r\n--x--\r\n"
    address = urlsplit(base)
    with closing(http.client.HTTPConnection(address.hostname, address.port, timeout=1200)) as connection:
        connection.putrequest("POST", "/v1/files")
        headers = http_client.api_headers(content_type="multipart/form-data; boundary=x", content_length=str(len(head) + blocks * MIB + len(tail)))
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        connection.send(head)
        for number in range(blocks):
            # Each block is another, so that a block in another's place is found out.
            connection.send(number.to_bytes(8, "big") + BLOCK[8:])
        connection.send(tail)
        response = connection.getresponse()
        body = response.read()
        assert response.status == 200, body[:500]
        return http_client.Answer(200, {}, body).json()


def download(base, file_id, blocks):
    """Reads a file and holds it against what was sent."""
    address = urlsplit(base)
    with closing(http.client.HTTPConnection(address.hostname, address.port, timeout=1200)) as connection:
        connection.request("GET", f"/v1/files/{file_id}/content", headers=http_client.api_headers())
        response = connection.getresponse()
        assert response.status == 200
        for number in range(blocks):
            assert response.read(MIB) == number.to_bytes(8, "big") + BLOCK[8:], f"block {number}"
        assert response.read(1) == b""


def contents(running, file_mib):
    base, pid = running.base_url, running.process.pid
    for mib in (1, 64):
        rounds = [timed(lambda: upload(base, mib)) for _ in range(5)]
        say(f"upload of {mib} MiB, median of 5", f"{statistics.median(took for took, _ in rounds) * 1e3:.1f} ms")
        took = statistics.median(timed(lambda made=made: download(base, made["id"], mib))[0] for _, made in rounds)
        say(f"download of {mib} MiB, median of 5", f"{took * 1e3:.1f} ms")
        for _, made in rounds:
            delete(base, f"/v1/files/{made['id']}")
    with Resident(pid) as seen:
        took, made = timed(lambda: upload(base, file_mib))
    say(f"upload of {file_mib} MiB", f"{took:.1f} s, {file_mib / took:.0f} MiB/s; resident {seen}")
    with Resident(pid) as seen:
        took, _ = timed(lambda: download(base, made["id"], file_mib))
    say(f"download of {file_mib} MiB, each byte compared", f"{took:.1f} s, {file_mib / took:.0f} MiB/s; resident {seen}")
    delete(base, f"/v1/files/{made['id']}")


def ids(prefix, count):
    for number in range(count):
        text = ""
        for _ in range(22):
            number, digit = divmod(number, len(ALPHABET))
            text = ALPHABET[digit] + text
        yield f"{prefix}_01{text}"


def copies(database, table, count, prefix, key="id"):
    """A row again and again, under other ids and older places."""
    columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
    row = dict(zip(columns, database.execute(f"SELECT * FROM {table} LIMIT 1").fetchone()))
    for number, name in enumerate(ids(prefix, count)):
        again = {**row, key: name}
        if "number" in row:
            again.update(number=1_000_000 + number, created_at_us=row["created_at_us"] - 1 - number)
        yield [again[column] for column in columns]


def fill(running, tables):
    running.stop()
    with closing(sqlite3.connect(running.data_dir / "belljar.sqlite")) as database, database:
        for table, count, prefix, key in tables:
            rows = list(copies(database, table, count, prefix, key))
            database.executemany(f"INSERT INTO {table} VALUES ({','.join('?' * len(rows[0]))})", rows)
    running._start()


def walk(base, path, headers, follow):
    """(seconds of each page, entries met)."""
    took, met, query = [], set(), "limit=1000"
    while query:
        seconds, answer = timed(lambda: http_client.call(base, "GET", f"{path}?{query}", headers))
        assert answer.status == 200, answer.text[:500]
        page = answer.json()
        took.append(seconds)
        met.update(one["id"] for one in page["data"])
        query = follow(page)
    return took, met


def lists(running, files):
    made = upload(running.base_url, 1)
    fill(running, [("files", files, "file", "id")])
    base, pid = running.base_url, running.process.pid
    get(base, "/v1/files?limit=1000")
    current = lambda page: f"limit=1000&page={page['next_page']}" if page["next_page"] else None
    old = lambda page: f"limit=1000&after_id={page['last_id']}" if page["has_more"] else None
    for name, headers, follow in (("page", http_client.api_headers(), current), ("after_id", http_client.api_headers(anthropic_beta="files-api-2025-04-14"), old)):
        with Resident(pid) as seen:
            took, met = walk(base, "/v1/files", headers, follow)
        assert len(met) == files + 1, len(met)
        ends = f"first ten {statistics.median(took[:10]) * 1e3:.1f} ms, last ten {statistics.median(took[-10:]) * 1e3:.1f} ms, slowest {max(took) * 1e3:.1f} ms"
        say(f"{files + 1} files in pages of 1000, by `{name}`", f"{ends}; resident {seen}")
    assert made["id"]


def claims(base, rounds=30):
    took = []
    for _ in range(rounds):
        seconds, made = timed(lambda: post(base, "/belljar/v1/containers", {}))
        took.append(seconds)
        delete(base, f"/belljar/v1/containers/{made['id']}")
        time.sleep(0.1)  # The pool is filled again off the request's path.
    return f"median {statistics.median(took) * 1e3:.2f} ms, slowest {max(took) * 1e3:.1f} ms"


def containers(running, count):
    kept = post(running.base_url, "/belljar/v1/containers", {})["id"]
    post(running.base_url, f"/belljar/v1/containers/{kept}/checkpoint", {"put_away": True})
    say("a container made and claimed, 1 registered", claims(running.base_url))
    fill(running, [("containers", count, "container", "id"), ("checkpoints", count, "container", "container")])
    base = running.base_url
    say(f"a container made and claimed, {count + 1} registered", claims(base))
    follow = lambda page: f"limit=1000&page={page['next_page']}" if page["next_page"] else None
    took, met = walk(base, "/belljar/v1/containers", http_client.api_headers(), follow)
    assert len(met) == count + 1, len(met)
    say(f"{count + 1} containers in pages of 1000", f"median {statistics.median(took) * 1e3:.1f} ms, slowest {max(took) * 1e3:.1f} ms")


def cell(base, container, source):
    found = post(base, f"/belljar/v1/containers/{container}/cells", {"language": "bash", "source": source, "wall_s_max": 300})
    assert found["return_code"] == 0, found
    return found["stdout"]


def forks(running, mib, directory):
    base = running.base_url
    parent = post(base, "/belljar/v1/containers", {})["id"]
    small = 2000
    cell(base, parent, f"cd /work; head -c {mib - 8}M /dev/urandom > large; for i in $(seq {small}); do head -c 4096 /dev/urandom > small$i; done")
    digest = cell(base, parent, "cat /work/* | sha256sum")
    for round_number in range(3):
        took, fork = timed(lambda: post(base, f"/belljar/v1/containers/{parent}/fork", {}))
        if round_number == 0:
            assert cell(base, fork["id"], "cat /work/* | sha256sum") == digest
        delete(base, f"/belljar/v1/containers/{fork['id']}")
        say(f"fork of a live container, {mib} MiB in {small + 1} files", f"{took * 1e3:.0f} ms")
    took, made = timed(lambda: post(base, f"/belljar/v1/containers/{parent}/checkpoint", {}))
    say("a checkpoint of it, durable", f"{took * 1e3:.0f} ms, {made['size_bytes'] / MIB:.0f} MiB")
    named = {"checkpoint_id": made["checkpoint_id"]}
    for round_number in range(3):
        took, fork = timed(lambda: post(base, f"/belljar/v1/containers/{parent}/fork", named))
        say("fork of the checkpoint", f"{took * 1e3:.2f} ms")
        if round_number == 0:
            took, found = timed(lambda: cell(base, fork["id"], "echo there"))
            say("its first command, which brings it to life", f"{took * 1e3:.0f} ms")
            assert cell(base, fork["id"], "cat /work/* | sha256sum") == digest
        delete(base, f"/belljar/v1/containers/{fork['id']}")
    took, answer = timed(lambda: get(base, f"/belljar/v1/containers/{parent}/export"))
    say("export of it", f"{took * 1e3:.0f} ms, {len(answer.body) / MIB:.0f} MiB")
    delete(base, f"/belljar/v1/containers/{parent}")
    for name, place in (("tmpfs to tmpfs", "/dev/shm"), ("on the disk, not synced", directory)):
        copy(name, place, mib, small)


def copy(name, place, mib, small):
    with tempfile.TemporaryDirectory(dir=place) as here:
        source = Path(here) / "source"
        source.mkdir()
        with open(source / "large", "wb") as file:
            for number in range(mib - 8):
                file.write(number.to_bytes(8, "big") + BLOCK[8:])
        for number in range(small):
            (source / f"small{number}").write_bytes(BLOCK[:4096])
        for _ in range(3):
            took, _ = timed(lambda: subprocess.run(["cp", "-a", source, Path(here) / "copy"], check=True))
            shutil.rmtree(Path(here) / "copy")
            say(f"cp -a of as much, {name}", f"{took * 1e3:.0f} ms")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--belljar", required=True)
    parser.add_argument("--file-mib", type=int, default=1024)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--containers", type=int, default=10_000)
    parser.add_argument("--fork-mib", type=int, default=1024)
    parser.add_argument("--only", default="contents lists containers forks", help="which parts")
    arguments = parser.parse_args()
    say("when", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    say("machine", f"{os.cpu_count()} cores, Linux {os.uname().release}, load {os.getloadavg()[0]:.1f}")
    say("belljar", subprocess.run([arguments.belljar, "--version"], capture_output=True, text=True).stdout.strip())
    server.build_image(arguments.belljar)
    serving = {"file_bytes_max": 1 << 40, "uploads_downloadable": True}
    sandbox = {"disk_bytes_max": (arguments.fork_mib + 256) * MIB, "memory_bytes_max": (arguments.fork_mib * 2 + 1024) * MIB, "containers_max": 16}
    parts = {
        "contents": lambda running: contents(running, arguments.file_mib), "lists": lambda running: lists(running, arguments.files),
        "containers": lambda running: containers(running, arguments.containers), "forks": lambda running: forks(running, arguments.fork_mib, running.directory),
    }
    for name, part in parts.items():
        if name in arguments.only.split():
            with server.Server(arguments.belljar, serving=serving, sandbox=sandbox if name == "forks" else None) as running:
                part(running)


if __name__ == "__main__":
    main()
