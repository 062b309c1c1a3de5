"""Three dialects of one llama.cpp server by the official SDK: llama_sdk.py BASE_URL LLAMA_URL LLAMA_KEY DIALECT…"""

import json
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anthropic
from harness.report import Report, equal, exit_with, matches

sys.path.insert(0, str(Path(__file__).resolve().parent))

from llama import model as toy  # noqa: E402

CODE = {"type": "code_execution_20250825", "name": "code_execution"}
WEATHER = {
    "name": "get_weather", "description": "The weather in a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
SAYS = {name: text for name, (text, _then) in toy.says().items()}
PIECES = toy.pieces()
SLOT_FREE_S_MAX = 5
# A chain without end, at a token each 0.2 ms at best: what a stream that nobody cancels would take.
LONG_TOKENS = 30_000


class Dialect:
    """One upstream, by the name of its model."""

    def __init__(self, base_url, llama, name):
        self.client = anthropic.Anthropic(api_key="sk-test-local", base_url=base_url, max_retries=0)
        self.llama, self.name = llama, name

    def ask(self, word, messages=None, model=None, **more):
        messages = messages or [{"role": "user", "content": question(word)}]
        return {"model": model or self.name, "max_tokens": 200, "messages": messages, **more}

    def whole(self, word, **more):
        return self.client.messages.create(**self.ask(word, **more))

    def streamed(self, word, **more):
        """The message that the SDK folds, and its events."""
        with self.client.messages.stream(**self.ask(word, **more)) as stream:
            events = list(stream)
            return stream.get_final_message(), events

    def both_ways(self, word, **more):
        yield self.whole(word, **more)
        yield self.streamed(word, **more)[0]


def question(word):
    return f"Say {word}"


def kinds(message):
    return [block.type for block in message.content]


def tokens_of(*chains):
    """How many tokens the model makes of these, with the one that ends each."""
    return sum(len(PIECES[chain]) + 1 for chain in chains)


def plain(dialect):
    message = dialect.whole("plain")
    equal((kinds(message), message.content[0].text, message.stop_reason), (["text"], SAYS["plain"], "end_turn"), "reply")
    usage = message.usage
    # A token for each byte of the question, one for each mark around it, and the chain's.
    read = len(question("plain")) + len(("<|user|>", "<|end|>", "<|assistant|>", "<|plain|>"))
    equal((usage.input_tokens + usage.cache_read_input_tokens, usage.output_tokens), (read, tokens_of("plain")), "tokens")


def streamed(dialect):
    message, events = dialect.streamed("plain")
    equal((message.content[0].text, message.stop_reason), (SAYS["plain"], "end_turn"), "reply")
    equal(message.usage.output_tokens, tokens_of("plain"), "tokens")
    deltas = [event.text for event in events if event.type == "text"]
    equal((len(deltas) > 2, "".join(deltas)), (True, SAYS["plain"]), "pieces of text")


def cut(dialect):
    for message in dialect.both_ways("again", max_tokens=7):
        equal((message.stop_reason, message.usage.output_tokens), ("max_tokens", 7), "why it stopped")
        equal(("one two three four " * 3).startswith(message.content[0].text), True, f"text {message.content[0].text!r}")


def stop_sequences(dialect):
    if dialect.name == "responses":
        return refused(lambda: dialect.whole("again", stop_sequences=["three"]), anthropic.BadRequestError, r".*stop_sequences.*")
    # Of chat completions, llama.cpp tells only that it stopped; of messages, where.
    expected = ("stop_sequence", "three") if dialect.name == "messages" else ("end_turn", None)
    for message in dialect.both_ways("again", stop_sequences=["three"]):
        equal((message.content[0].text, message.stop_reason, message.stop_sequence), ("one two ", *expected), "reply")


def thinking(dialect):
    for message in dialect.both_ways("thinking"):
        equal((kinds(message), message.stop_reason), (["thinking", "text"], "end_turn"), "blocks")
        equal((message.content[0].thinking.strip(), message.content[1].text), ("Six by seven, hm.", "Forty-two then."), "reply")


def client_tool(dialect):
    """A call, chosen or forced, and its result."""
    for choice in ({"type": "auto"}, {"type": "any"}, {"type": "tool", "name": "get_weather"}):
        for message in dialect.both_ways("weather", tools=[WEATHER], tool_choice=choice):
            equal((kinds(message), message.stop_reason), (["tool_use"], "tool_use"), f"blocks with {choice}")
            equal((message.content[0].name, message.content[0].input), ("get_weather", {"city": "Zürich"}), "the call")
            equal(message.usage.output_tokens, tokens_of("weather"), "tokens")
    result = {"type": "tool_result", "tool_use_id": message.content[0].id, "content": "Sun, 20 degrees."}
    history = [
        {"role": "user", "content": question("weather")}, {"role": "assistant", "content": message.content}, {"role": "user", "content": [result]},
    ]
    equal(dialect.whole("", messages=history, tools=[WEATHER]).content[0].text, SAYS["weather.1"], "what it says of the result")


def code(dialect):
    """Runs what the model calls, and tells it what came of it."""
    for message in dialect.both_ways("code", tools=[CODE]):
        blocks = ["text", "server_tool_use", "bash_code_execution_tool_result", "text"]
        equal((kinds(message), message.stop_reason), (blocks, "end_turn"), "blocks")
        result = message.content[2].content
        equal((result.stdout, result.stderr, result.return_code), ("42\n", "", 0), "result")
        equal((message.content[0].text.strip(), message.content[3].text), ("I count.", SAYS["code.1"]), "texts")
        equal(message.usage.output_tokens, tokens_of("code", "code.1"), "tokens")
        file = result.content[0].file_id
        equal(dialect.client.files.download(file).read(), b"42\n", "the file")


def next_turn(dialect):
    """A reply with code, sent back."""
    first = dialect.whole("code", tools=[CODE])
    history = [
        {"role": "user", "content": question("code")}, {"role": "assistant", "content": first.content}, {"role": "user", "content": question("plain")},
    ]
    second = dialect.whole("", messages=history, tools=[CODE], container=first.container.id)
    equal((second.content[0].text, second.stop_reason), (SAYS["plain"], "end_turn"), "the second reply")


def code_then_client_tool(dialect):
    tools = [CODE, WEATHER]
    for message in dialect.both_ways("both", tools=tools):
        equal(kinds(message), ["server_tool_use", "bash_code_execution_tool_result", "tool_use"], "blocks")
        equal((message.content[1].content.stdout, message.content[2].input), ("Bern\n", {"city": "Bern"}), "the result and the call")
    result = {"type": "tool_result", "tool_use_id": message.content[2].id, "content": "Rain."}
    history = [{"role": "user", "content": question("both")}, {"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
    equal(dialect.whole("", messages=history, tools=tools, container=message.container.id).content[0].text, SAYS["both.2"], "the end")


def parallel(dialect):
    for message in dialect.both_ways("parallel", tools=[CODE]):
        results = [block.content.stdout for block in message.content if block.type == "bash_code_execution_tool_result"]
        equal((results, message.content[-1].text, message.stop_reason), (["first\n", "second\n"], SAYS["parallel.2"], "end_turn"), "reply")


def babble(dialect):
    """Only the grammar holds the model: what it calls is run, is no program, and it is told so."""
    for message in dialect.both_ways("babble", tools=[CODE], tool_choice={"type": "any"}):
        called = [block.input["command"] for block in message.content if block.type == "server_tool_use"]
        results = [block.content for block in message.content if block.type == "bash_code_execution_tool_result"]
        equal((len(called) > 0, len(called)), (True, len(results)), f"calls and results of {message!r}")
        matches(called[0], r"[jqz][jqz ]*", "the command")
        equal((results[0].return_code, "not found" in results[0].stderr), (127, True), f"what came of {called[0]!r}: {results[0]!r}")
        equal((message.content[-1].text, message.stop_reason), (SAYS["babble.1"], "end_turn"), "the end")


def structured(dialect):
    schema = {"type": "object", "properties": {"answer": {"enum": ["yes", "no"]}}, "required": ["answer"], "additionalProperties": False}
    wanted = {"format": {"type": "json_schema", "schema": schema}}
    # What the model would say does not fit. Of other dialects than chat completions, llama.cpp passes over the schema.
    allowed = ("yes", "no") if dialect.name == "chat" else ("maybe",)
    for message in dialect.both_ways("maybe", extra_body={"output_config": wanted}):
        answer = json.loads(message.content[0].text)
        equal((list(answer), answer["answer"] in allowed), (["answer"], True), f"answer {answer!r}")


def too_long(dialect):
    refused(lambda: dialect.whole("x" * 40_000), anthropic.BadRequestError, r"prompt is too long.*")
    refused(lambda: dialect.streamed("x" * 40_000), anthropic.BadRequestError, r"prompt is too long.*")


def wrong_key(dialect):
    """It is the operator's fault, and the client is not told whose key it is."""
    refused(lambda: dialect.whole("plain", model=f"{dialect.name}-wrong"), anthropic.InternalServerError, r"(?!.*sk-wrong).*")


def unknown_model(dialect):
    refused(lambda: dialect.whole("plain", model="nobody-serves-this"), anthropic.NotFoundError, r"model: nobody-serves-this")


def refused(act, kind, pattern):
    try:
        message = act()
    except kind as error:
        return matches(error.body["error"]["message"], pattern, "the error")
    raise AssertionError(f"no {kind.__name__}, but {message!r}")


def hang_up(dialect):
    """The slot of a client that goes is free long before its reply would have been whole."""
    with dialect.client.messages.stream(**dialect.ask("again", max_tokens=LONG_TOKENS)) as stream:
        seen = 0
        for event in stream:
            seen += event.type == "text"
            if seen == 5:
                break
        equal(busy(dialect.llama), 1, "slots at work")
    deadline = time.monotonic() + SLOT_FREE_S_MAX
    while busy(dialect.llama):
        if time.monotonic() > deadline:
            raise AssertionError(f"the slot is still taken after {SLOT_FREE_S_MAX} s")
        time.sleep(0.02)


def busy(llama):
    url, key = llama
    asked = urllib.request.Request(f"{url}/slots", headers={"authorization": f"Bearer {key}"})
    with urllib.request.urlopen(asked, timeout=10) as answer:
        slots = json.load(answer)
    return sum(slot["is_processing"] for slot in slots)


def at_once(dialect):
    """More than there are slots: the rest wait, and each gets its own."""
    with ThreadPoolExecutor(6) as pool:
        messages = list(pool.map(lambda word: dialect.streamed(word, tools=[CODE])[0], ["plain", "code", "thinking"] * 2))
    equal([message.content[-1].text for message in messages], [SAYS["plain"], SAYS["code.1"], "Forty-two then."] * 2, "replies")


CHECKS = (
    plain, streamed, cut, stop_sequences, thinking, client_tool, code, next_turn, code_then_client_tool, parallel, babble, structured,
    too_long, wrong_key, unknown_model, hang_up, at_once,
)


def main():
    base_url, llama_url, key, *names = sys.argv[1:]
    report = Report("llama")
    for name in names:
        dialect = Dialect(base_url, (llama_url, key), name)
        for check in CHECKS:
            report.check(f"{name}: {check.__name__.replace('_', ' ')}", lambda check=check, dialect=dialect: check(dialect))
    exit_with(report)


if __name__ == "__main__":
    main()
