"""Checkpoints with an id, going back to them, and forks: of live containers, of kept ones, of checkpoints."""

import http.client
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from container_suite import cell, create, post, state, until
from harness import http_client, server
from harness.report import equal

NOBODY = "checkpoint_01ZZZZZZZZZZZZZZZZZZZZZZ"


def run(report, running):
    base = running.base_url
    report.check("a checkpoint leaves the container live", lambda: lives_on(base))
    report.check("a container goes back, and forth again", lambda: goes_back(base))
    report.check("the newest checkpoint is gone back to unless one is named", lambda: newest(base))
    report.check("checkpoints are listed in pages and deleted", lambda: listed(base))
    report.check("a live container is forked, and neither sees the other", lambda: forks(base))
    report.check("a fork holds links, marks, modes and what was removed", lambda: forks_whole(base))
    report.check("a kept container and a checkpoint are forked without coming to life", lambda: forks_kept(base))
    report.check("what is in use is neither checkpointed nor gone back", lambda: busy(base))
    report.check("who hangs up while a container comes back leaves it whole", lambda: hung_up(base))
    report.check("many forks at once", lambda: many(base))
    report.check("what is not there", lambda: unknown(base))
    report.check("bad options name their field", lambda: bad_options(base))
    report.check("one workspace's checkpoints are nothing to another container", lambda: foreign(base))
    try:
        with server.Server(running.belljar, sandbox={"containers_max": 2}) as small:
            report.check("a full server forks nothing", lambda: full(small.base_url))
            report.check("a dead container goes back to its checkpoint", lambda: killed(small))
            report.check("that server never panicked", small.no_panic)
    except RuntimeError as error:
        report.fail("starting a small server", error)


    in_gvisor(report, running)


def in_gvisor(report, running):
    """The same where the wall is another: the layer is made outside of it, and applied inside."""
    try:
        with server.Server(running.belljar, sandbox={"isolation": "gvisor"}) as walled:
            base = walled.base_url
            report.check("in gVisor, a container goes back, and forth again", lambda: goes_back(base))
            report.check("in gVisor, a live container is forked, and neither sees the other", lambda: forks(base))
            report.check("in gVisor, a kept container and a checkpoint are forked", lambda: forks_kept(base))
            report.check("a fork of gVisor's is gVisor's", lambda: stays_in_gvisor(base))
            report.check("that server of gVisor never panicked", walled.no_panic)
    except server.MachineCannot as why:
        report.skip("forks in gVisor", why)
    except RuntimeError as error:
        report.fail("starting a server of gVisor", error)


def stays_in_gvisor(base):
    child = fork(base, create(base))["id"]
    equal("gVisor" in out(base, child, "dmesg"), True, "the kernel's first words")


def checkpoint(base, container):
    answer = post(base, f"/belljar/v1/containers/{container}/checkpoint", {})
    equal(answer.status, 200, answer.text)
    return answer.json()


def restore(base, container, **which):
    answer = post(base, f"/belljar/v1/containers/{container}/restore", which)
    equal((answer.status, answer.json().get("state")), (200, "ready"), answer.text)


def fork(base, container, **which):
    answer = post(base, f"/belljar/v1/containers/{container}/fork", which)
    equal(answer.status, 200, answer.text)
    return answer.json()


def out(base, container, source, language="bash"):
    return cell(base, container, language, source)["stdout"]


def lives_on(base):
    container = create(base)
    out(base, container, "x = 7", "python")
    made = checkpoint(base, container)
    equal(sorted(made), ["checkpoint_id", "container_id", "created_at", "digest", "image", "size_bytes"], "its members")
    equal((made["container_id"], made["size_bytes"] > 0), (container, True), "what it says")
    equal(state(base, container), "ready", "the container")
    after = cell(base, container, "python", "print(x)")
    equal((after["stdout"], after["stderr"]), ("7\n", ""), "its variables")


def goes_back(base):
    container = create(base)
    out(base, container, "echo one > /work/f; mkdir /work/d; echo x > /work/d/x")
    first = checkpoint(base, container)["checkpoint_id"]
    out(base, container, "echo two > /work/f; rm -r /work/d; echo new > /work/new")
    out(base, container, "x = 1", "python")
    second = checkpoint(base, container)["checkpoint_id"]
    restore(base, container, checkpoint_id=first)
    equal(out(base, container, "cat /work/f /work/d/x; ls /work"), "one\nx\nd\nf\n", "the first")
    lost = cell(base, container, "python", "print('x' in globals())")
    equal((lost["stdout"], "variables are lost" in lost["stderr"]), ("False\n", True), lost["stderr"])
    restore(base, container, checkpoint_id=second)
    equal(out(base, container, "cat /work/f /work/new; ls /work"), "two\nnew\nf\nnew\n", "the second")
    # Kept, it goes back as well.
    equal(post(base, f"/belljar/v1/containers/{container}/checkpoint", {"put_away": True}).status, 200, "away")
    restore(base, container, checkpoint_id=first)
    equal(out(base, container, "cat /work/f"), "one\n", "the first again")


def newest(base):
    container = create(base)
    for word in ("one", "two"):
        out(base, container, f"echo {word} > /work/f")
        checkpoint(base, container)
    out(base, container, "echo three > /work/f")
    restore(base, container)
    equal(out(base, container, "cat /work/f"), "two\n", "its file")


def listed(base):
    container = create(base)
    made = [checkpoint(base, container)["checkpoint_id"] for _ in range(3)]
    path = f"/belljar/v1/containers/{container}/checkpoints"
    get = lambda query: http_client.call(base, "GET", path + query, http_client.api_headers()).json()
    first = get("?limit=2")
    equal([one["checkpoint_id"] for one in first["data"]], made[:0:-1], "the first page")
    second = get(f"?limit=2&page={first['next_page']}")
    equal(([one["checkpoint_id"] for one in second["data"]], second["next_page"]), (made[:1], None), "the second")
    delete = lambda: http_client.call(base, "DELETE", f"{path}/{made[1]}", http_client.api_headers())
    equal(delete().json(), {"id": made[1], "type": "checkpoint_deleted"}, "its deletion")
    equal(delete().status, 404, "once more")
    equal([one["checkpoint_id"] for one in get("")["data"]], [made[2], made[0]], "what is left")
    restore(base, container, checkpoint_id=made[0])


def forks(base):
    parent = create(base)
    out(base, parent, "echo shared > /work/f")
    out(base, parent, "x = 7", "python")
    made = fork(base, parent)
    equal((made["forked_from"], made["checkpoint_id"], made["repl"], made["state"]), (parent, None, "fresh", "ready"), made)
    child = made["id"]
    equal(out(base, child, "cat /work/f; echo child > /work/f"), "shared\n", "the child's")
    equal(out(base, parent, "cat /work/f; echo parent > /work/f"), "shared\n", "the parent's")
    equal(out(base, child, "cat /work/f"), "child\n", "the child's own")
    kept = cell(base, parent, "python", "print(x)")
    equal((kept["stdout"], kept["stderr"]), ("7\n", ""), "the parent's variables")
    lost = cell(base, child, "python", "print('x' in globals())")
    equal(lost["stdout"], "False\n", "the child's variables")
    equal("a copy of another" in lost["stderr"] and "variables are lost" in lost["stderr"], True, lost["stderr"])
    equal(http_client.call(base, "DELETE", f"/belljar/v1/containers/{parent}", http_client.api_headers()).status, 200)
    equal(out(base, child, "cat /work/f"), "child\n", "it outlives its parent")


MESS = r"""
cd /work; mkdir -p d/e closed; echo a > d/a; ln d/a d/hard; ln -s ../d/a d/e/soft; ln -s /etc/passwd out; ln -s ../../../../../etc up
mkfifo pipe; chmod 600 pipe; truncate -s 40M sparse; printf x >> sparse; printf 'a\nb' > $'na\nme'; chmod 4751 d/a
head -c 3000000 /dev/urandom > noise; touch -d '2001-02-03T04:05:06.789Z' d/a; chmod 000 closed
rm -rf /etc/debian_version /usr/share/doc; mkdir -p /usr/share/doc/new; rm -rf /home; mkdir /home; echo h > /home/h
"""
LOOK = r"""
cd /work; chmod 700 closed; find . -printf '%P|%y|%m|%s|%l|%n|%T@\n' | sed '/^|/d; /^closed|/d' | sort; chmod 000 closed; stat -c %a closed
stat -c %b sparse; sha256sum noise sparse | cut -c1-64; ls -A /home; ls /usr/share/doc; ls /etc/debian_version 2>&1; cat 'na
me'
"""


def forks_whole(base):
    parent = create(base)
    equal(cell(base, parent, "bash", MESS)["return_code"], 0, "it is made")
    before = out(base, parent, LOOK)
    child = fork(base, parent)["id"]
    equal(out(base, child, LOOK), before, "the same in the fork")
    equal("noise" in before and "No such file" in before, True, before)


def forks_kept(base):
    parent = create(base)
    out(base, parent, "echo one > /work/f")
    named = checkpoint(base, parent)["checkpoint_id"]
    out(base, parent, "echo two > /work/f")
    post(base, f"/belljar/v1/containers/{parent}/checkpoint", {"put_away": True})
    of_kept, of_named = fork(base, parent), fork(base, parent, checkpoint_id=named)
    equal([made["state"] for made in (of_kept, of_named)], ["checkpointed"] * 2, "their states")
    equal((of_named["checkpoint_id"], state(base, parent)), (named, "checkpointed"), "its source")
    equal(http_client.call(base, "DELETE", f"/belljar/v1/containers/{parent}", http_client.api_headers()).status, 200)
    equal(out(base, of_kept["id"], "cat /work/f"), "two\n", "of the kept one")
    equal(out(base, of_named["id"], "cat /work/f"), "one\n", "of the checkpoint")


def busy(base):
    container = create(base)
    named = checkpoint(base, container)["checkpoint_id"]
    found = {}
    waiting = threading.Thread(target=lambda: found.update(cell(base, container, "bash", "sleep 3; echo done")))
    waiting.start()
    until(lambda: state(base, container) == "leased", "the cell runs")
    path = f"/belljar/v1/containers/{container}"
    refused = [post(base, f"{path}/checkpoint", {}), post(base, f"{path}/restore", {"checkpoint_id": named})]
    # Of a checkpoint, nothing that is in use is needed.
    forked = fork(base, container, checkpoint_id=named)
    waiting.join()
    equal([(one.status, one.headers["x-should-retry"]) for one in refused], [(409, "false")] * 2, "the refusals")
    equal((found["stdout"], forked["state"]), ("done\n", "checkpointed"), "the cell")


def hung_up(base):
    container = create(base)
    out(base, container, "head -c 150000000 /dev/urandom > /work/f; sha256sum < /work/f > /work/sum; echo last > /work/z")
    path = f"/belljar/v1/containers/{container}"
    address = urlsplit(base)
    for wait_s in (0.05, 0.1, 0.2, 0.4):
        equal(post(base, f"{path}/checkpoint", {"put_away": True}).status, 200, "away")
        connection = http.client.HTTPConnection(address.hostname, address.port)
        connection.request("POST", f"{path}/restore", b"{}", http_client.api_headers())
        time.sleep(wait_s)
        connection.close()
        one, other, last = out(base, container, "sha256sum < /work/f; cat /work/sum /work/z").splitlines()
        equal((one, last), (other, "last"), f"its files, {wait_s} s on")


def many(base):
    parent = create(base)
    out(base, parent, "head -c 5000000 /dev/urandom > /work/f; sha256sum < /work/f > /work/sum")
    with ThreadPoolExecutor(8) as pool:
        children = [made["id"] for made in pool.map(lambda _n: fork(base, parent), range(8))]
        sums = list(pool.map(lambda one: out(base, one, "sha256sum < /work/f; cat /work/sum"), children))
    equal(len(set(children)), 8, "as many containers")
    for found in sums:
        one, other = found.splitlines()
        equal(one, other, "its content")
    for child in children:
        http_client.call(base, "DELETE", f"/belljar/v1/containers/{child}", http_client.api_headers())


def unknown(base):
    nobody = "container_01ZZZZZZZZZZZZZZZZZZZZZZ"
    equal(post(base, f"/belljar/v1/containers/{nobody}/fork", {}).status, 404, "a fork")
    container = create(base)
    for verb, which in (("fork", NOBODY), ("restore", NOBODY), ("fork", "../x"), ("restore", "")):
        answer = post(base, f"/belljar/v1/containers/{container}/{verb}", {"checkpoint_id": which})
        equal((answer.status, answer.json()["error"]["type"]), (404, "not_found_error"), f"{verb} {which}")
    equal(state(base, container), "ready", "the container")


def bad_options(base):
    container = create(base)
    cases = [
        ("checkpoint", {"put_away": 1}, "put_away"), ("checkpoint", {"name": "x"}, "name"),
        ("fork", {"checkpoint_id": 7}, "checkpoint_id"), ("restore", {"checkpoint": "x"}, "checkpoint"),
    ]
    for verb, body, field in cases:
        answer = post(base, f"/belljar/v1/containers/{container}/{verb}", body)
        equal((answer.status, field in answer.json()["error"]["message"]), (400, True), answer.text)


def foreign(base):
    one, other = create(base), create(base)
    named = checkpoint(base, one)["checkpoint_id"]
    for verb in ("fork", "restore"):
        answer = post(base, f"/belljar/v1/containers/{other}/{verb}", {"checkpoint_id": named})
        equal(answer.status, 404, verb)


def full(base):
    # Both so lately used that neither gives way.
    one, other = create(base), create(base)
    out(base, one, "echo mine > /work/f")
    answer = post(base, f"/belljar/v1/containers/{one}/fork", {})
    equal((answer.status, answer.json()["error"]["type"]), (429, "rate_limit_error"), answer.text)
    equal(out(base, one, "cat /work/f"), "mine\n", "the one that was to be forked")
    for container in (one, other):
        http_client.call(base, "DELETE", f"/belljar/v1/containers/{container}", http_client.api_headers())


def killed(small):
    container = create(small.base_url)
    out(small.base_url, container, "echo kept > /work/f")
    named = checkpoint(small.base_url, container)["checkpoint_id"]
    out(small.base_url, container, "echo lost > /work/f")
    small.crash()
    equal(state(small.base_url, container), 404, "what was live and was not kept")
    path = f"/belljar/v1/containers/{container}/checkpoints"
    found = http_client.call(small.base_url, "GET", path, http_client.api_headers()).json()["data"]
    equal([one["checkpoint_id"] for one in found], [named], "its checkpoint is there")
    child = fork(small.base_url, container, checkpoint_id=named)["id"]
    restore(small.base_url, container)
    equal(out(small.base_url, container, "cat /work/f"), "kept\n", "gone back to")
    equal(out(small.base_url, child, "cat /work/f"), "kept\n", "forked")
