"""The server is killed, stopped and restarted at random instants while clients upload, run cells and make files: what was acknowledged is
there afterwards, whole, and nothing else is. A few rounds belong to the suite; `crash_suite.py --belljar PATH --rounds 300 --seed 7` plays more, with `--elsewhere` on a PostgreSQL and an object store."""

import argparse
import hashlib
import json
import random
import sys
import threading
import time
from collections import Counter
from http.client import HTTPException
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]

import crash_places
from container_suite import cell, create, post, until
from harness import http_client
from harness.report import equal

ROUNDS = 12
CLIENTS = 4
SIZES = (0, 1, 700, 70_000, 3_000_000)
BATCHES_MAX = 6
# Between the acknowledged things that are looked at after each round.
LOOKED_AT = 12
TOOL = {"type": "code_execution_20250825", "name": "code_execution"}
# What a client sees of a server that dies.
CUT = (OSError, HTTPException)


def run(report, running):
    report.check(
        f"{ROUNDS} times killed, stopped or restarted in the midst of it, nothing acknowledged is lost",
        lambda: played(running.belljar, running.scripts, ROUNDS, random.randrange(1 << 32)),
    )


def played(belljar, scripts, rounds, seed, elsewhere=False):
    """Plays, and tells the totals. A failure names the seed, with which the same instants and actions come again."""
    try:
        sandbox = {"containers_max": 256, "container_idle_s_max": 5}
        with crash_places.started(elsewhere, belljar, scripts=scripts, sandbox=sandbox) as (own, place):
            return Game(own, place, rounds, seed).play()
    except Exception as error:
        raise AssertionError(f"seed {seed}: {error}") from error


class Game:
    def __init__(self, own, place, rounds, seed):
        self.own, self.place, self.rounds, self.seed = own, place, rounds, seed
        self.lock, self.over = threading.Lock(), threading.Event()
        self.totals, self.failures = Counter(), []
        # By name: the digest of everything that was ever sent; by id: what is promised.
        self.sent, self.uploads, self.made, self.kept, self.named, self.batches = {}, {}, {}, {}, {}, []

    def play(self):
        dice = random.Random(self.seed)
        clients = [threading.Thread(target=self.client, args=(number,)) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        try:
            for _ in range(self.rounds):
                time.sleep(dice.random() ** 2 * 1.5)
                self.shake(dice)
                self.look(dice, LOOKED_AT)
        finally:
            self.over.set()
            for client in clients:
                client.join()
        if self.failures:
            raise AssertionError(self.failures[0])
        self.own.crash()
        self.look(dice, None)
        self.look_at_lists()
        for batch in self.batches:
            self.batch_ends(batch)
        self.own.no_panic()
        equal(self.own.stop(), 0, "exit status of the last stop")
        self.place.check()
        return dict(self.totals)

    def shake(self, dice):
        how = dice.choices(("kill", "restart in place", "stop"), (6, 3, 1))[0]
        {"kill": self.own.crash, "restart in place": self.own.restart_in_place, "stop": self.own.restart}[how]()
        self.totals[how] += 1

    def client(self, number):
        dice, count = random.Random(f"{self.seed} {number}"), 0
        actions = (self.upload, self.upload, self.make, self.keep, self.name, self.delete, self.batch)
        while not self.over.is_set():
            count += 1
            action = dice.choice(actions)
            try:
                action(dice, f"{number}-{count}")
            except CUT:
                self.totals["cut off"] += 1
                time.sleep(0.01)
            except Exception as error:  # noqa: BLE001: reported by the thread that waits
                self.failures.append(f"{action.__name__}: {error!r}")
                return

    def acknowledged(self, what, where, key, value):
        with self.lock:
            where[key] = value
            self.totals[what] += 1

    def upload(self, dice, name):
        data = dice.randbytes(dice.choice(SIZES))
        self.sent[name] = data
        content_type, body = http_client.multipart([{"name": "file", "filename": name, "content_type": "application/octet-stream", "data": data}])
        answer = http_client.call(self.own.base_url, "POST", "/v1/files", http_client.api_headers(content_type=content_type), body)
        if self.taken(answer):
            self.acknowledged("uploads", self.uploads, answer.json()["id"], data)

    def make(self, dice, name):
        text = f"{name} {dice.random()}" * dice.choice((1, 5000))
        self.sent[f"made-{name}"] = text.encode()
        base = self.own.base_url
        container = self.container(base)
        if container is None:
            return
        source = f"open(__import__('os').environ['OUTPUT_DIR'] + '/made-{name}', 'w').write({text!r})"
        answer = post(base, f"/belljar/v1/containers/{container}/cells", {"language": "python", "source": source})
        if self.taken(answer):
            # A cell that a stop or a restart interrupted has made nothing, and says so.
            for file in answer.json()["files"]:
                self.acknowledged("files made", self.made, file["file_id"], text.encode())

    def keep(self, dice, name):
        base = self.own.base_url
        container = self.container(base)
        if container is None:
            return
        text = f"{name} {dice.random()}"
        path = f"/belljar/v1/containers/{container}"
        put = http_client.call(base, "PUT", f"{path}/files/work/kept", http_client.api_headers(content_type=None), text.encode())
        if self.taken(put) and self.taken(post(base, f"{path}/checkpoint", {"put_away": True})):
            self.acknowledged("containers kept", self.kept, container, text)

    def name(self, dice, name):
        """A checkpoint with an id, of a container that goes on and writes something else."""
        base = self.own.base_url
        container = self.container(base)
        if container is None:
            return
        text = f"{name} {dice.random()}"
        path = f"/belljar/v1/containers/{container}"
        put = lambda text: http_client.call(base, "PUT", f"{path}/files/work/kept", http_client.api_headers(content_type=None), text.encode())
        if not self.taken(put(text)):
            return
        made = post(base, f"{path}/checkpoint", {})
        if self.taken(made):
            self.acknowledged("checkpoints named", self.named, (container, made.json()["checkpoint_id"]), text)
            self.taken(put("something else"))

    def delete(self, dice, _name):
        with self.lock:
            if not self.uploads:
                return
            # From here on nothing is promised of it but that an acknowledged deletion holds.
            file_id = dice.choice(sorted(self.uploads))
            del self.uploads[file_id]
        answer = http_client.call(self.own.base_url, "DELETE", f"/v1/files/{file_id}", http_client.api_headers())
        if self.taken(answer):
            self.acknowledged("deletions", self.uploads, file_id, None)

    def batch(self, _dice, name):
        if len(self.batches) >= BATCHES_MAX:
            return
        item = {"model": "any", "max_tokens": 100, "messages": [{"role": "user", "content": f"Say {name}."}]}
        requests = [{"custom_id": f"{name}-{one}", "params": item} for one in range(2)]
        answer = post(self.own.base_url, "/v1/messages/batches", {"requests": requests})
        if self.taken(answer):
            with self.lock:
                self.batches.append(answer.json()["id"])
                self.totals["batches"] += 1

    def container(self, base):
        answer = post(base, "/belljar/v1/containers", {})
        return answer.json()["id"] if self.taken(answer) else None

    def taken(self, answer):
        """Whether it was done; what a server that ends refuses, or loses with a container, is as good as never asked for."""
        if answer.status in (404, 409, 429, 503, 529):
            self.totals["refused"] += 1
            return False
        equal(answer.status, 200, answer.text)
        return True

    def look(self, dice, count):
        """At some of what was promised, or at all."""
        with self.lock:
            promised = [(self.look_at_upload, *one) for one in self.uploads.items()]
            promised += [(self.look_at_made, *one) for one in self.made.items()]
            promised += [(self.look_at_kept, *one) for one in self.kept.items()]
            promised += [(self.look_at_named, *one) for one in self.named.items()]
        for look, key, value in promised if count is None else dice.sample(promised, min(count, len(promised))):
            look(key, value)
            self.totals["looked at"] += 1

    def get(self, path):
        return http_client.call(self.own.base_url, "GET", path, http_client.api_headers())

    def look_at_upload(self, file_id, data):
        answer = self.get(f"/v1/files/{file_id}")
        with self.lock:
            # Another client may have asked for its deletion meanwhile.
            if self.uploads.get(file_id, self) is not data:
                return
        if data is None:
            equal(answer.status, 404, f"{file_id}, which was deleted")
            return
        equal((answer.status, answer.json().get("size_bytes")), (200, len(data)), file_id)
        digest = hashlib.sha256(data).hexdigest()
        equal(hashlib.sha256(self.place.content(digest)).hexdigest(), digest, f"content of {file_id}")

    def look_at_made(self, file_id, data):
        answer = self.get(f"/v1/files/{file_id}/content")
        equal((answer.status, answer.body == data), (200, True), f"content of {file_id}")

    def look_at_kept(self, container, text):
        try:
            found = cell(self.own.base_url, container, "bash", "cat /work/kept")
        except AssertionError as error:
            raise AssertionError(f"{container}: {error}") from None
        equal(found["stdout"], text, container)
        # Live again, it is promised nothing more of by the next kill, unless it is put away again.
        kept = post(self.own.base_url, f"/belljar/v1/containers/{container}/checkpoint", {"put_away": True})
        equal(kept.status, 200, kept.text)

    def look_at_named(self, names, text):
        """Its container may be gone with its processes: the checkpoint is not."""
        container, checkpoint = names
        fork = post(self.own.base_url, f"/belljar/v1/containers/{container}/fork", {"checkpoint_id": checkpoint})
        equal(fork.status, 200, f"{checkpoint} of {container}: {fork.text}")
        path = f"/belljar/v1/containers/{fork.json()['id']}"
        equal(cell(self.own.base_url, fork.json()["id"], "bash", "cat /work/kept")["stdout"], text, checkpoint)
        equal(http_client.call(self.own.base_url, "DELETE", path, http_client.api_headers()).status, 200)

    def look_at_lists(self):
        """Nothing is there that nobody has sent, and nothing in part."""
        seen, page = set(), None
        while True:
            answer = self.get("/v1/files?limit=100" + (f"&page={page}" if page else "")).json()
            for file in answer["data"]:
                equal(file["id"] in seen, False, f"{file['id']} twice")
                seen.add(file["id"])
                equal(file["size_bytes"], len(self.sent[file["filename"]]), f"size of {file['filename']}")
            page = answer.get("next_page")
            if not page:
                break
        missing = {key for key, data in {**self.uploads, **self.made}.items() if data is not None} - seen
        equal(missing, set(), "files that are not listed")

    def batch_ends(self, batch):
        until(lambda: self.get(f"/v1/messages/batches/{batch}").json()["processing_status"] == "ended", f"{batch} ends")
        results = [json.loads(line) for line in self.get(f"/v1/messages/batches/{batch}/results").body.splitlines()]
        equal([result["result"]["type"] for result in results], ["succeeded"] * 2, batch)


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--belljar", required=True)
    arguments.add_argument("--rounds", type=int, default=ROUNDS)
    arguments.add_argument("--elsewhere", action="store_true", help="with a PostgreSQL and an object store")
    arguments.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    given = arguments.parse_args()
    print(f"seed {given.seed}", flush=True)
    began = time.monotonic()
    totals = played(given.belljar, Path(__file__).resolve().parent / "scripts", given.rounds, given.seed, given.elsewhere)
    print(json.dumps({"seed": given.seed, "seconds": round(time.monotonic() - began), **totals}))


if __name__ == "__main__":
    main()
