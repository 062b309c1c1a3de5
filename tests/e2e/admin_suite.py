"""What an operator does: list, show, usage, gc, backup, verify, restore; while clients upload and run code, and killed half way.
docs/operations.md says it in the same order. `admin_suite.py --belljar PATH --seconds 60` hammers `gc` for longer."""

import argparse
import hashlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]

from checkpoint_suite import checkpoint, out, restore as go_back
from container_suite import cell, create, post, state
from harness import http_client, server
from harness.report import Skipped, equal

HAMMER_S = 6
CLIENTS = 4
SIZES = (0, 1, 700, 70_000, 1_000_000)
DISK_MIB = 4
WAIT_S_MAX = 60


def run(report, running):
    try:
        with server.Server(running.belljar, scripts=running.scripts, serving={"uploads_downloadable": True}, workspaces=[{"name": "local", "files_max": 100_000, "executions_per_day_max": 100_000}]) as own:
            report.check("listed and shown as the API has it, beside a server and without one", lambda: listed(own))
            report.check("usage is what quotas count, with the limits beside", lambda: usage(own))
            report.check("keys are listed without what opens them", lambda: keys(own))
            report.check("what is not there, and is no id", lambda: unknown(own))
            report.check(f"gc in a loop takes nothing of {CLIENTS} clients that upload and delete", lambda: hammered(own, HAMMER_S))
            report.check("gc removes what nothing refers to, and says how much", lambda: collected(own))
            report.check("a backup beside clients that upload and run code is restored, served and whole", lambda: backed_up(own, running))
            report.check("a backup that is killed is none, and the next one is whole", lambda: killed(own))
            report.check("a restore that is killed leaves no data directory", lambda: killed_restore(own))
            report.check("a spoilt backup is refused by its fault", lambda: spoilt(own))
            report.check("a second backup shares what has not changed", lambda: shared(own))
            report.check("a full disk is said, and the source is as it was", lambda: full(own))
            report.check("a newer schema is refused by everything, and rolled back by a backup", lambda: rolled_back(own, running))
            report.check("it never panicked", own.no_panic)
    except RuntimeError as error:
        report.fail("starting a server", error)


def admin(place, *arguments, data_dir=None, json_out=True):
    """Runs one command; what it printed, read."""
    ended = started(place, *arguments, data_dir=data_dir, json_out=json_out)
    if ended.returncode != 0:
        raise AssertionError(f"`belljar admin {' '.join(map(str, arguments))}` ended with {ended.returncode}: {ended.stderr}")
    return json.loads(ended.stdout) if json_out else ended.stdout


def command(place, *arguments, data_dir=None, json_out=True):
    config = str(place.directory / "belljar.toml")
    more = ["--data-dir", str(data_dir)] if data_dir else []
    return [place.belljar, "admin", *map(str, arguments), "--config", config, *more, *(["--json"] if json_out else [])]


def started(place, *arguments, data_dir=None, json_out=True):
    return subprocess.run(command(place, *arguments, data_dir=data_dir, json_out=json_out), stdin=subprocess.DEVNULL, capture_output=True, text=True)


def refused(place, expected, *arguments, data_dir=None, code=1):
    ended = started(place, *arguments, data_dir=data_dir)
    equal((ended.returncode, expected in ended.stderr, ended.stdout), (code, True, ""), ended.stderr)


def upload(base, name, data):
    content_type, body = http_client.multipart([{"name": "file", "filename": name, "content_type": "application/octet-stream", "data": data}])
    answer = http_client.call(base, "POST", "/v1/files", http_client.api_headers(content_type=content_type), body)
    equal(answer.status, 200, answer.text)
    return answer.json()["id"]


def content(base, file_id):
    answer = http_client.call(base, "GET", f"/v1/files/{file_id}/content", http_client.api_headers())
    equal(answer.status, 200, answer.text)
    return answer.body


def listed(own):
    base = own.base_url
    sent = {upload(base, f"list-{number}", os.urandom(number)): number for number in range(300)}
    odd = upload(base, "tab\u202ename", b"odd")
    container = create(base)
    equal(cell(base, container, "bash", "echo made > $OUTPUT_DIR/made.txt")["return_code"], 0)
    named = checkpoint(base, container)["checkpoint_id"]
    post(base, f"/belljar/v1/containers/{container}/checkpoint", {"put_away": True})
    for is_stopped in (False, True):
        if is_stopped:
            own.stop()
        try:
            files = admin(own, "list", "files")["data"]
            sizes = {one["id"]: one["size_bytes"] for one in files}
            equal({file_id: sizes.get(file_id) for file_id in sent}, sent, "the files")
            equal([one["created_at"] for one in files], sorted((one["created_at"] for one in files), reverse=True), "newest first")
            made = next(one for one in files if one["filename"] == "made.txt")
            equal((made["container_id"], made["sha256"]), (container, hashlib.sha256(b"made\n").hexdigest()))
            equal(len(admin(own, "list", "files", "--limit", "7")["data"]), 7)
            equal(admin(own, "list", "files", "--limit", "0"), {"data": []})
            equal(admin(own, "list", "files", "--workspace", "another")["data"], [])
            equal(admin(own, "show", made["id"]), made)
            shown = admin(own, "show", container)
            equal([one["id"] for one in shown.pop("named_checkpoints")], [named])
            equal([shown], [one for one in admin(own, "list", "containers")["data"] if one["id"] == container])
            equal(shown["kept"]["size_bytes"] > 0, True, shown)
            table = admin(own, "list", "files", json_out=False)
            equal((table.splitlines()[0].split(), len(table.splitlines())), (["FILE", "WORKSPACE", "USER", "CREATED", "EXPIRES", "SIZE", "FROM", "NAME"], len(files) + 1))
            equal((odd in table, "\u202e" in table, "tab\\u{202e}name" in table), (True, False, True), "a name that turns the terminal around")
            equal("299 B" in table, True, "sizes")
            equal(f"{'sha256':24}  {made['sha256']}" in admin(own, "show", made["id"], json_out=False), True)
        finally:
            if is_stopped:
                own.restart()


def usage(own):
    held = admin(own, "usage", "--workspace", "local")["data"]
    told = subprocess.run([own.belljar, "keys", "usage", "--json", "--config", str(own.directory / "belljar.toml")], capture_output=True, text=True, check=True)
    local = next(one for one in json.loads(told.stdout)["data"] if one["workspace"] == "local")
    equal([(one["files"], one["files_bytes"]) for one in held], [(local["files"], local["files_bytes"])])
    equal(held[0]["days"][0]["executions"], local["today"]["executions"], "today")
    equal(held[0]["days"][0]["executions"] > 0, True)
    limits = held[0]["limits"]
    equal((limits["files_max"], limits["files_bytes_max"], limits["containers_max"]), (100_000, 1 << 40, None))
    equal(admin(own, "usage")["data"], held)
    table = admin(own, "usage", json_out=False)
    equal(f"{local['files']} of 100000" in table and "of 1 TiB" in table, True, table)


def keys(own):
    """In a copy: with a key there, the suite's own would open nothing any more."""
    keyed = own.directory / "keyed"
    admin(own, "backup", own.directory / "to-be-keyed")
    admin(own, "restore", own.directory / "to-be-keyed", data_dir=keyed)
    ended = subprocess.run(
        [own.belljar, "keys", "create", "--workspace", "kept", "--label", "for later", "--json", "--data-dir", str(keyed)],
        capture_output=True, text=True, check=True,
    )
    made = json.loads(ended.stdout)
    found = admin(own, "list", "keys", "--workspace", "kept", data_dir=keyed)["data"]
    equal([(one["id"], one["label"], one["is_expired"]) for one in found], [(made["id"], "for later", False)])
    equal(admin(own, "show", made["id"], data_dir=keyed), found[0])
    told = [started(own, *arguments, data_dir=keyed, json_out=form).stdout for form in (True, False) for arguments in (("list", "keys"), ("show", made["id"]))]
    digest = hashlib.sha256(made["key"].encode()).hexdigest()
    for text in told:
        equal((made["id"] in text, made["key"] in text, digest in text, made["key"][3:20] in text), (True, False, False, False))
    admin(own, "backup", own.directory / "keyed-backup", data_dir=keyed)
    own.key = made["key"]


def unknown(own):
    refused(own, "there is no file_011CNha8iCJcU1wXNR6q4V8w", "show", "file_011CNha8iCJcU1wXNR6q4V8w")
    refused(own, "is not the id of a container", "show", "nonsense", code=2)
    refused(own, "invalid value", "list", "nonsense", code=2)
    nowhere = own.directory / "nowhere"
    for arguments in (("list", "files"), ("usage",), ("gc",), ("backup", own.directory / "never")):
        refused(own, "there is no store in", *arguments, data_dir=nowhere)
    equal((nowhere.exists(), (own.directory / "never").exists()), (False, False), "nothing is made")
    refused(own, "No such file", "verify", nowhere)


class Clients:
    """Clients that upload and delete all the time. Few contents, each in many files, so that contents come and go and come again."""

    def __init__(self, own, with_code=False, deletes=0.8):
        self.own, self.with_code, self.deletes, self.over, self.lock = own, with_code, deletes, threading.Event(), threading.Lock()
        self.there, self.failures, self.sent = {}, [], 0
        self.contents = [os.urandom(random.choice(SIZES)) for _ in range(24)]

    def __enter__(self):
        self.threads = [threading.Thread(target=self.client) for _ in range(CLIENTS)]
        if self.with_code:
            self.threads.append(threading.Thread(target=self.code))
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_exception):
        self.over.set()
        for thread in self.threads:
            thread.join()

    def acknowledged(self):
        with self.lock:
            return dict(self.there)

    def client(self):
        try:
            while not self.over.is_set():
                data = random.choice(self.contents)
                file_id = upload(self.own.base_url, "hammered", data)
                with self.lock:
                    self.there[file_id] = data
                    self.sent += 1
                    gone = random.choice(sorted(self.there)) if random.random() < self.deletes else None
                    if gone:
                        del self.there[gone]
                if gone:
                    equal(http_client.call(self.own.base_url, "DELETE", f"/v1/files/{gone}", http_client.api_headers()).status, 200)
        except Exception as error:  # noqa: BLE001: told by the thread that waits
            self.failures.append(repr(error))

    def code(self):
        try:
            container, count = create(self.own.base_url), 0
            while not self.over.is_set():
                count += 1
                made = cell(self.own.base_url, container, "bash", f"echo {count} > $OUTPUT_DIR/{count}.txt")
                with self.lock:
                    self.there[made["files"][0]["file_id"]] = f"{count}\n".encode()
        except Exception as error:  # noqa: BLE001: told by the thread that waits
            self.failures.append(repr(error))

    def all_there(self, base=None, only=None):
        equal(self.failures, [], "clients")
        for file_id, data in (self.acknowledged() if only is None else only).items():
            equal(content(base or self.own.base_url, file_id) == data, True, file_id)


def hammered(own, seconds):
    """A content that has just lost its last file has no row and is not removed yet: `gc` seldom comes first, and counts it."""
    runs, until, more = 0, time.monotonic() + seconds, 0
    with Clients(own) as clients:
        while time.monotonic() < until or runs < 3:
            told = admin(own, "gc")
            equal(told["unfinished_uploads"], None)
            more += told["contents"]["count"]
            orphan = plant(own, b"left over")
            told = admin(own, "gc")["contents"]
            equal((orphan.exists(), told["count"] >= 1, told["bytes"] >= 9), (False, True, True), told)
            more += told["count"] - 1
            runs += 1
    equal(clients.sent > 20, True, f"{clients.sent} uploads")
    equal(more <= 1 + runs // 10, True, f"{more} contents in {2 * runs} collections")
    equal(admin(own, "gc")["contents"], {"count": 0, "bytes": 0}, "nothing is left over")
    clients.all_there()
    own.restart()
    clients.all_there()
    for file_id in clients.acknowledged():
        http_client.call(own.base_url, "DELETE", f"/v1/files/{file_id}", http_client.api_headers())
    return {"uploads": clients.sent, "collections": runs * 2}


def plant(own, data):
    name = hashlib.sha256(os.urandom(8)).hexdigest()
    path = own.data_dir / "blobs" / name[:2] / name[2:]
    path.write_bytes(data)
    return path


def collected(own):
    orphan = plant(own, b"x" * 1000)
    equal(admin(own, "gc", "--dry-run")["contents"], {"count": 1, "bytes": 1000})
    equal(orphan.exists(), True, "only looked for")
    text = admin(own, "gc", json_out=False)
    equal("removed 1 contents that nothing refers to, 1000 B" in text and "running server's to look after" in text, True, text)
    equal(orphan.exists(), False)
    own.stop()
    try:
        (own.data_dir / "blobs/tmp/9").write_bytes(b"half")
        equal(admin(own, "gc")["unfinished_uploads"], {"count": 1, "bytes": 4})
    finally:
        own.restart()


def backed_up(own, running):
    """While clients go on; restored into a new place; served from there."""
    base = own.base_url
    kept = create(base)
    out(base, kept, "echo first > /work/kept")
    named = checkpoint(base, kept)["checkpoint_id"]
    out(base, kept, "echo second > /work/kept")
    post(base, f"/belljar/v1/containers/{kept}/checkpoint", {"put_away": True})
    secret = http_client.post_json(base, "/belljar/v1/scopes", {"user_id": "ann", "expires_in_s": 600})
    made = own.directory / "backup"
    with Clients(own, with_code=True, deletes=0.4) as clients:
        until(lambda: len(clients.acknowledged()) > 40)
        before = clients.acknowledged()
        admin(own, "backup", made)
        # What was deleted while the backup was made may be in it or not.
        after = clients.acknowledged()
    clients.all_there()
    equal(admin(own, "verify", made)["files"] > 10, True)
    closed(made)
    promised = {file_id: data for file_id, data in before.items() if file_id in after}
    equal(len(promised) > 10, True, f"{len(promised)} files")
    with restored(own, running, made) as other:
        clients.all_there(other.base_url, promised)
        equal(state(other.base_url, kept), "checkpointed", "the container")
        equal(out(other.base_url, kept, "cat /work/kept"), "second\n", "its files")
        go_back(other.base_url, kept, checkpoint_id=named)
        equal(out(other.base_url, kept, "cat /work/kept"), "first\n", "its files, gone back to")
        if secret.status == 200:
            equal((other.data_dir / "scope.secret").read_bytes(), (own.data_dir / "scope.secret").read_bytes(), "the secret")
        listing = http_client.call(other.base_url, "GET", "/v1/files?limit=1000", http_client.api_headers()).json()["data"]
        for one in listing:
            equal(len(content(other.base_url, one["id"])), one["size_bytes"], "whatever is listed is there, whole")
        equal(admin(other, "gc")["contents"]["count"], 0, "and nothing else")
        other.no_panic()
    # The hash of a key went along with another one, so the key opens the copy.
    with restored(own, running, own.directory / "keyed-backup") as other:
        answers = [http_client.call(other.base_url, "GET", "/v1/files", http_client.api_headers(key=tried)).status for tried in (own.key, "bj_wrong")]
        equal(answers, [200, 401], "keys")


def restored(own, running, backup):
    """A server on what a backup holds."""
    prepare = lambda fresh: admin(own, "restore", backup, data_dir=fresh.data_dir)
    return server.Server(running.belljar, scripts=running.scripts, serving={"uploads_downloadable": True}, prepare=prepare)


def closed(directory):
    for path in (directory, *directory.rglob("*")):
        equal(path.stat().st_mode & 0o777, 0o700 if path.is_dir() else 0o600, str(path))


def until(true):
    deadline = time.monotonic() + WAIT_S_MAX
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError("it does not come to that")
        time.sleep(0.01)


def killed(own):
    """At instants spread over what a whole one takes."""
    for number in range(40):
        upload(own.base_url, "much", os.urandom(500_000) + bytes([number]))
    made = own.directory / "killed"
    begun = time.monotonic()
    admin(own, "backup", own.directory / "timed")
    whole = time.monotonic() - begun
    was_half = 0
    for step in range(12):
        process = subprocess.Popen(command(own, "backup", made), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(whole * step / 10)
        process.kill()
        process.wait()
        part = own.directory / "killed.part"
        if made.exists():
            admin(own, "verify", made)
            shutil.rmtree(made)
        elif part.exists():
            told = started(own, "restore", part, data_dir=own.directory / "from-half")
            if told.returncode == 0:
                # It was whole, and only its name was not yet given.
                admin(own, "verify", part)
                shutil.rmtree(own.directory / "from-half")
            else:
                equal(("is not a whole backup" in told.stderr, (own.directory / "from-half").exists()), (True, False), told.stderr)
                was_half += 1
    equal(was_half > 0, True, "some were killed half way")
    admin(own, "backup", made)
    admin(own, "verify", made)
    equal((own.directory / "killed.part").exists(), False, "what they left is gone")
    equal(list((own.data_dir / "blobs/pins").iterdir()), [], "pins")
    own.healthy()


def killed_restore(own):
    target = own.directory / "restored-late"
    process = subprocess.Popen(command(own, "restore", own.directory / "killed", data_dir=target), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    until(lambda: (own.directory / "restored-late.restoring").exists() or target.exists())
    process.kill()
    process.wait()
    if not target.exists():
        admin(own, "restore", own.directory / "killed", data_dir=target)
    equal((own.directory / "restored-late.restoring").exists(), False)
    refused(own, "it is not empty", "restore", own.directory / "killed", data_dir=target)
    refused(own, "is in use by another process", "restore", own.directory / "killed")


def spoilt(own):
    """One fault of each kind; crates/store/tests/store/hostile_backups.json has the others."""
    whole = own.directory / "killed"
    a_content = min((path for path in (whole / "blobs").rglob("*") if path.is_file() and path.stat().st_size > 1000), key=str).relative_to(whole)

    def flip(copy):
        data = bytearray((copy / a_content).read_bytes())
        data[500] ^= 1
        (copy / a_content).write_bytes(data)

    def cut(copy):
        manifest = copy / "manifest.jsonl"
        manifest.write_bytes(manifest.read_bytes()[:-100])

    faults = {
        f"{a_content} is not what it was": flip,
        f"{a_content} is missing": lambda copy: (copy / a_content).unlink(),
        "it ends in the midst of a line": cut,
        "is a symbolic link": lambda copy: (copy / "recordings").mkdir() or (copy / "recordings/x").symlink_to("/etc/passwd"),
    }
    for number, (said, spoil) in enumerate(faults.items()):
        copy = own.directory / f"spoilt-{number}"
        shutil.copytree(whole, copy)
        spoil(copy)
        refused(own, said, "verify", copy)
        refused(own, said, "restore", copy, data_dir=own.directory / "from-spoilt")
        equal([path.name for path in own.directory.glob("from-spoilt*")], [], said)


def shared(own):
    told = admin(own, "backup", own.directory / "second", "--link-from", own.directory / "killed")
    equal(told["files_linked"] > 30, True, told)
    admin(own, "verify", own.directory / "second")
    shutil.rmtree(own.directory / "killed")
    admin(own, "verify", own.directory / "second")


def full(own):
    if os.geteuid() != 0:
        raise Skipped("mounting a small disk needs root")
    small = own.directory / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m,mode=700", "small", small], check=True)
    try:
        before = tree(own.data_dir)
        refused(own, "no space left for", "backup", small / "backup")
        equal(list(small.iterdir()), [], "what is there")
        equal(sorted(before.items() ^ tree(own.data_dir).items()), [], "the source")
        refused(own, "no space left for", "restore", own.directory / "second", data_dir=small / "data")
        equal(list(small.iterdir()), [], "what is there")
    finally:
        subprocess.run(["umount", "-l", small], check=False)
    own.healthy()


def tree(directory):
    """Contents; the database goes on changing."""
    return {str(path): path.stat().st_size for path in (directory / "blobs").rglob("*") if path.is_file()}


def rolled_back(own, running):
    """What a newer program has brought up to date, this one refuses; with the backup from before it goes on."""
    file_id = upload(own.base_url, "before", b"before the upgrade")
    made = own.directory / "before-the-upgrade"
    admin(own, "backup", made)
    upgraded = own.directory / "upgraded"
    admin(own, "restore", made, data_dir=upgraded)
    with closing(sqlite3.connect(upgraded / "belljar.sqlite")) as database, database:
        database.execute("INSERT INTO migrations VALUES (999, '0999_later', 'later')")
    said = "the database has schema 999"
    for arguments in (("list", "files"), ("usage",), ("gc",), ("backup", own.directory / "never")):
        refused(own, said, *arguments, data_dir=upgraded)
    ended = subprocess.run(
        [own.belljar, "serve", "--config", str(own.directory / "belljar.toml"), "--listen", "127.0.0.1:0", "--data-dir", str(upgraded)],
        capture_output=True, text=True, timeout=WAIT_S_MAX,
    )
    equal((ended.returncode, f"{said}, this program knows up to" in ended.stderr), (1, True), ended.stderr)
    with restored(own, running, made) as other:
        equal(content(other.base_url, file_id), b"before the upgrade")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--belljar", required=True)
    parser.add_argument("--seconds", type=float, default=60)
    arguments = parser.parse_args()
    server.build_image(arguments.belljar)
    with server.Server(arguments.belljar, serving={"uploads_downloadable": True}) as own:
        print(json.dumps(hammered(own, arguments.seconds)))


if __name__ == "__main__":
    main()
