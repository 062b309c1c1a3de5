"""A data directory that fails: full, without permission, read-only. What was acknowledged is there, what is refused is said, and all goes on afterwards."""

import array
import fcntl
import hashlib
import os
import subprocess

from checkpoint_suite import checkpoint, out, restore
from container_suite import create, post, state
from files_suite import delete
from harness import http_client, report as harness_report, server
from harness.report import equal

DISK_MIB = 48
# linux/fs.h: what makes a directory unchangeable, for root too.
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IMMUTABLE_FL = 0x80086601, 0x40086602, 0x10


def run(report, running):
    if os.geteuid() != 0:
        report.skip("a data directory that fails", "mounting a small disk needs root")
        return
    disk = SmallDisk()
    try:
        with server.Server(running.belljar, serving={"uploads_downloadable": True}, prepare=disk.mount) as own:
            report.check("a full disk refuses, and loses nothing that it took", lambda: full(own))
            report.check("a container goes on while the disk is full, and its checkpoint is kept when there is room", lambda: full_checkpoint(own))
            report.check("without permission nothing is taken, and all of it afterwards", lambda: forbidden(own))
            report.check("after a crash in the middle of it, too", lambda: crashed(own))
            report.check("a read-only disk is said at the start", lambda: read_only(own, disk))
            report.check("it never panicked", own.no_panic)
    except RuntimeError as error:
        report.fail("starting a server on a small disk", error)
    finally:
        disk.unmount()


class SmallDisk:
    """A file system in memory under a server's data directory."""

    def mount(self, own):
        self.place = own.data_dir
        self.place.mkdir(mode=0o700)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m,mode=700", "small", self.place], check=True)

    def remount(self, how):
        subprocess.run(["mount", "-o", f"remount,{how}", self.place], check=True)

    def unmount(self):
        subprocess.run(["umount", "-l", self.place], check=False, stderr=subprocess.DEVNULL)


def upload(base, seed, size):
    content = hashlib.shake_128(str(seed).encode()).digest(size)
    content_type, body = http_client.multipart([{"name": "file", "filename": f"{seed}.bin", "content_type": "application/octet-stream", "data": content}])
    return content, http_client.call(base, "POST", "/v1/files", http_client.api_headers(content_type=content_type), body)


def fill(base, size=4_000_000):
    """(what was taken, the first refusal)."""
    taken = {}
    for seed in range(100):
        content, answer = upload(base, seed, size)
        if answer.status != 200:
            return taken, answer
        taken[answer.json()["id"]] = content
    raise AssertionError("the disk is never full")


def all_there(base, taken):
    for file_id, content in taken.items():
        answer = http_client.call(base, "GET", f"/v1/files/{file_id}/content", http_client.api_headers())
        equal((answer.status, answer.body == content), (200, True), file_id)
    listed = http_client.call(base, "GET", "/v1/files?limit=1000", http_client.api_headers()).json()["data"]
    equal(sorted(one["id"] for one in listed), sorted(taken), "the list")


def overloaded(answer):
    equal((answer.status, answer.json()["error"]["type"]), (529, "overloaded_error"), answer.text)
    equal("space" in answer.json()["error"]["message"], True, answer.text)


def full(own):
    taken, refused = fill(own.base_url)
    overloaded(refused)
    equal(len(taken) > 2, True, f"{len(taken)} files")
    all_there(own.base_url, taken)
    gone = next(iter(taken))
    delete(own.base_url, gone)
    content, again = upload(own.base_url, "again", 3_000_000)
    equal(again.status, 200, again.text)
    taken[again.json()["id"]] = content
    del taken[gone]
    own.restart()
    all_there(own.base_url, taken)
    for file_id in taken:
        delete(own.base_url, file_id)


def full_checkpoint(own):
    base = own.base_url
    container = create(base)
    out(base, container, "head -c 6000000 /dev/urandom > /work/f; sha256sum < /work/f > /work/sum")
    taken, _refused = fill(base, 2_000_000)
    path = f"/belljar/v1/containers/{container}"
    for body in ({}, {"put_away": True}):
        overloaded(post(base, f"{path}/checkpoint", body))
    equal(state(base, container), "ready", "its state")
    one, other = out(base, container, "sha256sum < /work/f; cat /work/sum").splitlines()
    equal(one, other, "its files")
    for file_id in taken:
        delete(base, file_id)
    named = checkpoint(base, container)["checkpoint_id"]
    out(base, container, "rm /work/f")
    restore(base, container, checkpoint_id=named)
    one, other = out(base, container, "sha256sum < /work/f; cat /work/sum").splitlines()
    equal(one, other, "its files, gone back to")
    http_client.call(base, "DELETE", path, http_client.api_headers())


class Unchangeable:
    """Directories in which nobody makes or removes anything while this is entered."""

    def __init__(self, *directories):
        self.directories = directories

    def __enter__(self):
        try:
            self.set(True)
        except OSError as error:
            raise harness_report.Skipped(f"no directory is unchangeable here: {error}", kernel=True)

    def __exit__(self, *_exception):
        self.set(False)

    def set(self, fixed):
        for directory in self.directories:
            opened = os.open(directory, os.O_RDONLY)
            try:
                flags = array.array("l", [0])
                fcntl.ioctl(opened, FS_IOC_GETFLAGS, flags)
                flags[0] = flags[0] | FS_IMMUTABLE_FL if fixed else flags[0] & ~FS_IMMUTABLE_FL
                fcntl.ioctl(opened, FS_IOC_SETFLAGS, flags)
            finally:
                os.close(opened)


def forbidden(own):
    base = own.base_url
    content, first = upload(base, "first", 100_000)
    taken = {first.json()["id"]: content}
    container = create(base)
    out(base, container, "echo mine > /work/f")
    shards = [path for path in (own.data_dir / "blobs").iterdir() if path.name != "tmp"]
    for directories in ([own.data_dir / "blobs" / "tmp"], shards):
        with Unchangeable(*directories):
            _, refused = upload(base, f"refused {len(directories)}", 100_000)
            equal((refused.status, refused.json()["error"]["type"]), (500, "api_error"), refused.text)
            equal(str(own.data_dir) in refused.text, False, "no path of the host")
            kept = post(base, f"/belljar/v1/containers/{container}/checkpoint", {"put_away": True})
            equal((kept.status, state(base, container)), (500, "ready"), kept.text)
            all_there(base, taken)
        content, again = upload(base, f"again {len(directories)}", 100_000)
        equal(again.status, 200, again.text)
        taken[again.json()["id"]] = content
    equal(post(base, f"/belljar/v1/containers/{container}/checkpoint", {"put_away": True}).status, 200, "away")
    equal(out(base, container, "cat /work/f"), "mine\n", "its file")
    own.restart()
    all_there(own.base_url, taken)
    equal(blobs(own), len(taken) + 1, "contents on disk: the files, and the container that the stop has kept")
    for file_id in taken:
        delete(own.base_url, file_id)


def blobs(own):
    return sum(len(list(path.iterdir())) for path in (own.data_dir / "blobs").iterdir())


def crashed(own):
    taken, refused = fill(own.base_url)
    overloaded(refused)
    own.crash()
    all_there(own.base_url, taken)
    for file_id in taken:
        delete(own.base_url, file_id)


def read_only(own, disk):
    content, made = upload(own.base_url, "kept", 1000)
    own.stop()
    disk.remount("ro")
    try:
        own._start()
        raise AssertionError("it serves from a disk that it cannot write to")
    except RuntimeError as error:
        equal("ead-only" in str(error) or "readonly" in str(error), True, str(error))
    finally:
        disk.remount("rw")
        own._start()
    all_there(own.base_url, {made.json()["id"]: content})
