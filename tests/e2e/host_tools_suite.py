"""Tools of the server's own that code calls: answered within the reply, in the workspace of whoever asked."""

import json

from harness import http_client
from harness.report import equal, matches
from talk import CODE, LOOKUP, Talk, calls, error, kinds, make_keys, outcome, own_server

FILES = {"type": "belljar_files_20261129", "name": "belljar_files"}
TEXT = b"month,ppm\n1958-03,316.1\n"


def run(report, running):
    for check in CHECKS:
        report.check(check.__doc__, lambda check=check: check(running.base_url))
    own_server(report, running, "with keys", {}, [of_ones_own_workspace], prepare=make_keys)


def upload(base, filename, data, key=http_client.KEY):
    kind, body = http_client.multipart([{"name": "file", "filename": filename, "content_type": "text/csv", "data": data}])
    answer = http_client.call(base, "POST", "/v1/files", http_client.api_headers(key, content_type=kind), body)
    equal(answer.status, 200, answer.text)
    return answer.json()["id"]


def within_the_reply(base):
    """code lists and reads files without a pause; calls and results carry its caller, and the model sees none of them"""
    file_id = upload(base, "co2.csv", TEXT)
    talk = Talk(base, "host_files", tools=(CODE, FILES))
    reply = talk.ask()
    pair = ["server_tool_use", "belljar_files_tool_result"]
    expected = ["server_tool_use", *pair * 3, "code_execution_tool_result", "text"]
    equal((kinds(reply), reply["stop_reason"]), (expected, "end_turn"))
    caller = {"type": "code_execution_20260120", "tool_id": reply["content"][0]["id"]}
    for use, result in zip(reply["content"][1:7:2], reply["content"][2:7:2]):
        equal((use["name"], use["caller"], result["caller"]), ("belljar_files", caller, caller))
        equal(result["tool_use_id"], use["id"])
    equal(reply["content"][3]["input"], {"command": "read", "file_id": file_id})
    equal(reply["content"][4]["content"], {"type": "belljar_files_result", "text": TEXT.decode()})
    missing = "there is no file `file_01nobodys` in this workspace"
    expected = {"type": "belljar_files_tool_result_error", "error_code": "file_not_found", "error_message": missing}
    equal(reply["content"][6]["content"], expected)
    said = outcome(reply)
    equal((said["stderr"], said["return_code"]), ("", 0))
    first, *rest = said["stdout"].split("\n", 1)
    equal(first.split()[:2], ["co2.csv", str(len(TEXT))])
    equal(rest, [f"{TEXT.decode()}\nbelljar_files: {missing}\n"])


def streamed(base):
    """the same as a stream: each call and each result is whole in its start"""
    upload(base, "co2.csv", TEXT)
    talk = Talk(base, "host_files", tools=(CODE, FILES))
    reply = http_client.stream(base, talk.body(), talk.headers)
    starts = [data["content_block"] for name, data in reply.events if name == "content_block_start"]
    uses = [block["input"]["command"] for block in starts if block.get("name") == "belljar_files"]
    equal(uses, ["list", "read", "read"])
    equal([data["index"] for name, data in reply.events if name == "content_block_start"], list(range(len(starts))))


def played_back(base):
    """a conversation with such calls in it goes on, in the same container"""
    upload(base, "co2.csv", TEXT)
    talk = Talk(base, "host_files", tools=(CODE, FILES))
    first = talk.ask()
    talk.messages = talk.messages + [{"role": "user", "content": "Again."}]
    second = talk.ask()
    equal(second["container"]["id"], first["container"]["id"])
    equal(outcome(second)["stdout"], outcome(first)["stdout"])


def beside_the_clients(base):
    """calls of the client's tools wait while ours are answered, and pause the reply together"""
    upload(base, "co2.csv", TEXT)
    first, second = Talk(base, "host_files_beside", tools=(CODE, LOOKUP, FILES)).play(lambda given: f"<{given['key']}>")
    equal(kinds(first).count("belljar_files_tool_result"), 3)
    equal([call["input"]["key"] for call in calls(first)], ["a", "b"])
    equal(outcome(second)["stdout"], "['<a>', True, '<b>']\n")


def from_bash(base):
    """bash calls them as commands, and sees an error as one"""
    upload(base, "from-bash.csv", TEXT)
    reply = Talk(base, "host_files_from_bash", tools=(CODE, FILES)).ask()
    result = next(block["content"] for block in reply["content"] if block["type"] == "bash_code_execution_tool_result")
    equal(result["stdout"], "from-bash.csv\n1\n2\n")
    failed, wrong = result["stderr"].splitlines()
    matches(failed, ".*there is no file `file_01nobodys` in this workspace.*")
    equal(wrong, 'belljar_files: command must be one of "list", "read", not "burn"')


def for_code_alone(base):
    """a declaration that lets the model call it is refused, and one with members of its own is"""
    direct = Talk(base, "host_files", tools=(CODE, FILES | {"allowed_callers": ["direct"]})).post()
    expected = "tools.1.belljar_files_20261129.allowed_callers: `belljar_files` can be called from code only; remove \"direct\""
    equal(error(direct, 400), expected)
    more = Talk(base, "host_files", tools=(CODE, FILES | {"max_uses": 3})).post()
    equal(error(more, 400), "tools.1.belljar_files_20261129.max_uses: Extra inputs are not permitted")


def of_ones_own_workspace(own):
    """code sees the files of its own workspace, and nothing of another's"""
    for key, name in zip(own.keys, ("of-the-first.csv", "of-the-second.csv")):
        upload(own.base_url, name, TEXT, key)
    for key, name in zip(own.keys, ("of-the-first.csv", "of-the-second.csv")):
        talk = Talk(own.base_url, "host_files", tools=(CODE, FILES))
        talk.headers = http_client.api_headers(key=key, belljar_script="host_files")
        reply = talk.ask()
        listed = json.loads(reply["content"][2]["content"]["text"])
        equal([file["filename"] for file in listed["data"]], [name])
        equal(listed["next_page"], None)


CHECKS = (within_the_reply, streamed, played_back, beside_the_clients, from_bash, for_code_alone)
