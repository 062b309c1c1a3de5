"""A disk that turns read-only under a running server: what it took is there, what it cannot take is refused in so many words, and it goes on
when the disk takes changes again."""

import os
import shutil
import subprocess

from checkpoint_suite import out
from container_suite import create, post, state
from fault_suite import all_there, upload
from files_suite import delete
from harness import http_client, server
from harness.report import Skipped, equal
from life_suite import message, ran

DISK_MIB = 64
TEXT = "The server's storage takes no changes."


def run(report, running):
    if os.geteuid() != 0:
        report.skip("a disk that turns read-only", "mounting a disk needs root")
        return
    report.check("contents that turn read-only are refused, and taken again after", lambda: contents(running))
    report.check("a disk that fails goes on being read, and all of it is there once it is mended", lambda: whole_disk(running))


def mount(*arguments):
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        raise Skipped(f"nothing can be mounted here: {done.stderr.strip()}", kernel=True)


def unmount(place):
    subprocess.run(["umount", "-l", place], check=False, stderr=subprocess.DEVNULL)


def no_changes(answer):
    equal((answer.status, answer.json()["error"]["type"], answer.json()["error"]["message"]), (529, "overloaded_error", TEXT), answer.text)


def made_file(base, container):
    """What a turn says of a file that its code made: (the file's id, if it was kept, what stood on stderr)."""
    answer = message(base, 'echo made > "$OUTPUT_DIR"/made.txt', container=container)
    ran(answer)
    result = next(block["content"] for block in answer.json()["content"] if block["type"] == "bash_code_execution_tool_result")
    return [file["file_id"] for file in result["content"]], result["stderr"]


def contents(running):
    """The directory is covered by itself, read-only: the kernel refuses to turn what is open for writing."""
    with server.Server(running.belljar, scripts=running.scripts, serving={"uploads_downloadable": True}) as own:
        base, blobs = own.base_url, own.data_dir / "blobs"
        content, made = upload(base, "before", 100_000)
        taken = {made.json()["id"]: content}
        container = create(base)
        out(base, container, "echo mine > /work/f")
        mount("--bind", blobs, blobs)
        try:
            mount("-o", "remount,ro,bind", blobs)
            no_changes(upload(base, "meanwhile", 100_000)[1])
            for body in ({}, {"put_away": True}):
                no_changes(post(base, f"/belljar/v1/containers/{container}/checkpoint", body))
            equal(made_file(base, container), ([], "belljar: not captured from $OUTPUT_DIR: made.txt (it could not be stored)\n"))
            equal(out(base, container, "cat /work/f"), "mine\n", "its file")
            all_there(base, taken)
            # Of a file that is deleted, only the row has to go now.
            extra = next(iter(taken))
            equal(http_client.call(base, "GET", f"/v1/files/{extra}", http_client.api_headers()).status, 200)
        finally:
            unmount(blobs)
        content, again = upload(base, "again", 100_000)
        equal(again.status, 200, again.text)
        taken[again.json()["id"]] = content
        files, _ = made_file(base, container)
        equal(len(files), 1, "a file that code made")
        delete(base, files[0])
        equal(post(base, f"/belljar/v1/containers/{container}/checkpoint", {"put_away": True}).status, 200, "away")
        own.crash()
        all_there(own.base_url, taken)
        equal(out(own.base_url, container, "cat /work/f"), "mine\n", "its file, back")
        own.no_panic()


class FailingDisk:
    """An ext4 of its own under a server's data directory, which turns read-only when it finds a fault."""

    def __init__(self):
        if shutil.which("mkfs.ext4") is None or shutil.which("losetup") is None:
            raise Skipped("mkfs.ext4 and losetup are not installed")

    def mount(self, own):
        self.place, self.image = own.data_dir, own.directory / "disk"
        self.image.touch()
        os.truncate(self.image, DISK_MIB * 1024 * 1024)
        subprocess.run(["mkfs.ext4", "-q", "-F", self.image], check=True)
        self.place.mkdir(mode=0o700)
        self.attach()

    def attach(self):
        mount("-o", "loop,errors=remount-ro", self.image, self.place)
        os.chmod(self.place, 0o700)
        with open("/proc/self/mounts") as mounts:
            self.device = next(line.split()[0] for line in mounts if line.split()[1] == str(self.place))

    def fail(self):
        switch = f"/sys/fs/ext4/{os.path.basename(self.device)}/trigger_fs_error"
        if not os.path.exists(switch):
            raise Skipped("the kernel cannot be told that an ext4 has failed", kernel=True)
        with open(switch, "w") as told:
            told.write("1")

    def mend(self):
        subprocess.run(["umount", self.place], check=True)
        # 1: it had something to mend, and has.
        equal(subprocess.run(["fsck.ext4", "-y", self.image], capture_output=True).returncode in (0, 1), True, "fsck")
        self.attach()

    def close(self):
        unmount(self.place)


def whole_disk(running):
    disk = FailingDisk()
    try:
        with server.Server(running.belljar, scripts=running.scripts, serving={"uploads_downloadable": True}, prepare=disk.mount) as own:
            base = own.base_url
            content, made = upload(base, "before", 100_000)
            taken = {made.json()["id"]: content}
            live, away = create(base), create(base)
            for container in (live, away):
                out(base, container, f"echo {container} > /work/f")
            equal(post(base, f"/belljar/v1/containers/{away}/checkpoint", {"put_away": True}).status, 200, "away")
            disk.fail()
            no_changes(upload(base, "meanwhile", 100_000)[1])
            all_there(base, taken)
            equal(made_file(base, live), ([], "belljar: not captured from $OUTPUT_DIR: made.txt (it could not be stored)\n"))
            equal(out(base, live, "cat /work/f"), f"{live}\n", "a file in a container")
            for answer in changes(base, next(iter(taken)), live):
                no_changes(answer)
            all_there(base, taken)
            own.healthy()
            own.stop()
            disk.mend()
            own._start()
            base = own.base_url
            all_there(base, taken)
            equal((out(base, away, "cat /work/f"), state(base, live)), (f"{away}\n", 404), "the one that was kept, and the one that could not be")
            equal(upload(base, "again", 100_000)[1].status, 200, "an upload")
            own.no_panic()
    finally:
        disk.close()


def changes(base, file, live):
    """Everything that only changes the database."""
    call = lambda method, path: http_client.call(base, method, path, http_client.api_headers())
    item = {"model": "claude-opus-5-5", "max_tokens": 10, "messages": [{"role": "user", "content": "Hello."}]}
    yield call("DELETE", f"/v1/files/{file}")
    yield post(base, "/v1/messages/batches", {"requests": [{"custom_id": "one", "params": item}]})
    yield post(base, "/belljar/v1/containers", {})
    for body in ({}, {"put_away": True}):
        yield post(base, f"/belljar/v1/containers/{live}/checkpoint", body)
