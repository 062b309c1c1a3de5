"""What the three programs beside this one share: one question asked twice, with tools that code calls and with tools that the
model calls itself, and what each way costs in tokens.

The programs are ordinary clients: the official SDK, unmodified, with its own tool runner. Only `base_url` is ours. Who answers is
the scripted model, which plays `scripts/NAME.json` or `scripts/NAME_direct.json`; its code really runs, in a container. It is no
language model: its tokens are estimated, four bytes of JSON to a token, from the messages that a model would have had to read and
write. The definitions of tools and what a cache of prompts would save are left out of both ways.

    belljar serve --config FILE     # with a [[upstream]] of kind = "scripted" and scripts_dir = "examples/scripts"
    python budget_compliance.py --base-url http://127.0.0.1:8484
"""

import argparse
from dataclasses import dataclass, field

import anthropic

CODE = {"type": "code_execution_20260521", "name": "code_execution"}
CALLERS = {"with code": ["code_execution_20260120"], "directly": ["direct"]}


@dataclass
class Run:
    """One way of asking, and what it took."""

    replies: int = 0
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    printed: list = field(default_factory=list)
    said: str = ""

    @property
    def tokens(self):
        return self.input_tokens + self.output_tokens

    def take(self, message):
        self.replies += 1
        self.input_tokens += message.usage.input_tokens
        self.output_tokens += message.usage.output_tokens
        for block in message.content:
            if block.type == "tool_use":
                self.calls += 1
            elif block.type == "code_execution_tool_result":
                if block.content.return_code != 0:
                    raise SystemExit(f"the code failed:\n{block.content.stderr}")
                self.printed += block.content.stdout.splitlines()
            elif block.type == "text":
                self.said = block.text


def ask(client, script, question, functions, way):
    """Lets the SDK's runner do all of it: it calls the functions, and brings their results to whoever asked."""
    tools = [anthropic.beta_tool(function, allowed_callers=CALLERS[way]) for function in functions]
    runner = client.beta.messages.tool_runner(
        model="claude-opus-5-5", max_tokens=16_000, tools=[CODE, *tools],
        messages=[{"role": "user", "content": question}],
        extra_headers={"belljar-script": script if way == "with code" else f"{script}_direct"},
    )
    run = Run()
    for message in runner:
        run.take(message)
    return run


def compare(script, question, functions):
    """Asks both ways and prints what happened; returns both runs."""
    parser = argparse.ArgumentParser(description=script.replace("_", " "))
    parser.add_argument("--base-url", default="http://127.0.0.1:8484")
    arguments = parser.parse_args()
    client = anthropic.Anthropic(api_key="any", base_url=arguments.base_url)
    print(question)
    runs = {way: ask(client, script, question, functions, way) for way in CALLERS}
    print("\nThe code printed:")
    for line in runs["with code"].printed:
        print(f"  {line}")
    print(f"\n{'tools called':<14}{'calls':>7}{'replies':>9}{'tokens read':>13}{'written':>9}   (estimated, 4 bytes to a token)")
    for way, run in runs.items():
        print(f"{way:<14}{run.calls:>7}{run.replies:>9}{run.input_tokens:>13,}{run.output_tokens:>9,}")
    saved = 1 - runs["with code"].tokens / runs["directly"].tokens
    print(f"\nWith code, {saved:.1%} fewer tokens: the model reads what the code prints, not what the tools answer.")
    return runs["with code"], runs["directly"]
