"""Where a server that is killed again and again keeps what it has acknowledged, looked at past the server: this disk, or a PostgreSQL and an
object store."""

import sqlite3
import subprocess
from contextlib import closing, contextmanager

from harness import server
from harness.report import equal
from harness.stores import BUCKET, Stores, postgres_program
from stores_suite import choice, secrets

REFERRED_TO = " UNION ".join(f"SELECT blob FROM {table} WHERE blob IS NOT NULL" for table in ("files", "checkpoints", "named_checkpoints"))


@contextmanager
def started(elsewhere, belljar, **more):
    """(a server, its place)."""
    if not elsewhere:
        with server.Server(belljar, **more) as own:
            yield own, Disk(own)
        return
    with Stores() as stores, server.Server(belljar, store=choice(stores), environment=secrets(), **more) as own:
        yield own, Elsewhere(stores)


class Disk:
    def __init__(self, own):
        self.data_dir = own.data_dir

    def content(self, digest):
        return (self.data_dir / "blobs" / digest[:2] / digest[2:]).read_bytes()

    def check(self):
        """Each content that is referred to is there once, and no other."""
        blobs = self.data_dir / "blobs"
        there = {path.parent.name + path.name for path in blobs.glob("??/*")}
        with closing(sqlite3.connect(self.data_dir / "belljar.sqlite")) as database:
            wanted = {row[0].hex() for row in database.execute(REFERRED_TO)}
        same(there, wanted)
        equal(list((blobs / "tmp").iterdir()), [], "uploads that never ended")


class Elsewhere:
    def __init__(self, stores):
        self.stores, self.objects = stores, stores.s3_root / BUCKET / "e2e" / "contents"

    def rows(self, sql):
        command = [postgres_program("psql"), "--no-psqlrc", "--tuples-only", "--no-align", "--command", sql, self.stores.postgres_url]
        return subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout.split()

    def content(self, digest):
        (name,) = self.rows(f"SELECT name FROM objects WHERE digest = '\\x{digest}'")
        return (self.objects / name).read_bytes()

    def check(self):
        wanted = self.rows(f"SELECT name FROM objects WHERE digest IN ({REFERRED_TO})")
        equal(len(wanted), len(self.rows(REFERRED_TO)), "contents with a name")
        same({path.name for path in self.objects.iterdir()}, set(wanted))


def same(there, wanted):
    equal(there - wanted, set(), "contents that nothing refers to")
    equal(wanted - there, set(), "contents that are missing")
