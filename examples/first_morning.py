"""The first morning with Belljar: the official SDK, unmodified, uploads data, asks, and gets code, output and a chart.

    pip install anthropic
    python first_morning.py --base-url http://127.0.0.1:8484 --data my.csv --output-dir .

Only `base_url` differs from a program that talks to the hosted API.
"""

import argparse
import textwrap
from pathlib import Path

import anthropic

TOOL = {"type": "code_execution_20250825", "name": "code_execution"}
MODEL = "claude-opus-5-5"

WITH_CODE = """\
How steep has the rise been, decade by decade? Run this:

```python
import os, pandas as pd
folder = os.environ["INPUT_DIR"]
table = pd.read_csv(os.path.join(folder, "{name}"))
table["date"] = pd.to_datetime(table["date"].astype(str))
yearly = table.set_index("date")["co2"].resample("YE").mean()
for decade, values in yearly.groupby(yearly.index.year // 10 * 10):
    print(f"{{decade}}s  {{values.diff().mean():5.2f}} ppm a year")
```

```bash
echo "$(wc -l < "$INPUT_DIR/{name}") lines, by $(python3 --version), as $(id -un), on $(nproc) CPU"
```
"""


def heading(text):
    print(f"\n\033[1m── {text} {'─' * max(0, 92 - len(text))}\033[0m")


def show_block(block):
    """One finished block of the reply, as a person would read it."""
    if block.type == "server_tool_use":
        given = block.input
        code = given.get("command") if block.name == "bash_code_execution" else given.get("file_text") or given.get("path")
        print(f"\n\033[2mcode ({block.name})\033[0m")
        print(textwrap.indent(code or str(given), "  │ "))
    elif block.type == "bash_code_execution_tool_result":
        show_result(block.content)
    elif block.type.endswith("_tool_result"):
        print(f"\033[2m{block.content.type}\033[0m")
    elif block.type == "text":
        print()


def show_result(result):
    if result.type != "bash_code_execution_result":
        print(f"\033[2mno result: {result.error_code}\033[0m")
        return
    print(f"\033[2moutput (exit status {result.return_code})\033[0m")
    print(textwrap.indent((result.stdout + result.stderr).rstrip() or "(none)", "  │ "))


def turn(client, content, container=None):
    """Streams one turn and prints it as it comes; returns the finished message."""
    more = {"container": container} if container else {}
    messages = [{"role": "user", "content": content}]
    with client.messages.stream(model=MODEL, max_tokens=4096, tools=[TOOL], messages=messages, **more) as stream:
        for event in stream:
            if event.type == "text":
                print(event.text, end="", flush=True)
            elif event.type == "content_block_stop":
                show_block(event.content_block)
        message = stream.get_final_message()
    usage = message.usage
    print(f"\033[2m[{message.stop_reason}; {message.container.id}; {usage.input_tokens} tokens in, {usage.output_tokens} out]\033[0m")
    return message


def download(client, message, folder):
    """Saves every file that the turn's code left in $OUTPUT_DIR; returns where."""
    saved = []
    for block in message.content:
        if block.type != "bash_code_execution_tool_result" or block.content.type != "bash_code_execution_result":
            continue
        for entry in block.content.content:
            about = client.files.retrieve_metadata(entry.file_id)
            path = folder / Path(about.filename).name
            path.write_bytes(client.files.download(entry.file_id).read())
            saved.append((path, about))
    return saved


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base-url", default="http://127.0.0.1:8484")
    parser.add_argument("--api-key", default="local", help="any key will do until `belljar keys create` makes one")
    parser.add_argument("--data", type=Path, required=True, help="a CSV file")
    parser.add_argument("--output-dir", type=Path, default=Path("."), help="where to save what the code made")
    arguments = parser.parse_args()
    client = anthropic.Anthropic(base_url=arguments.base_url, api_key=arguments.api_key)

    heading("1. Upload")
    uploaded = client.files.upload(file=(arguments.data.name, arguments.data.open("rb"), "text/csv"))
    print(f"{uploaded.filename}: {uploaded.size_bytes} bytes as {uploaded.id}")

    heading("2. Ask for an analysis")
    print("> Analyse this data and draw me a chart.\n")
    attachment = {"type": "container_upload", "file_id": uploaded.id}
    first = turn(client, [attachment, {"type": "text", "text": "Analyse this data and draw me a chart."}])

    heading("3. In the same container, code of one's own")
    question = WITH_CODE.format(name=uploaded.filename)
    print(textwrap.indent(question, "> "))
    second = turn(client, question, first.container.id)

    heading("4. Files")
    saved = download(client, first, arguments.output_dir) + download(client, second, arguments.output_dir)
    for path, about in saved:
        print(f"{about.mime_type}, {about.size_bytes} bytes: {path.resolve()}")
    if not any(about.mime_type.startswith("image/") for _, about in saved):
        raise SystemExit("no chart came back")
    print("\nNo language model took part: the server's built-in scripted model ran the code by a fixed rule."
          "\nREADME.md tells how to put a real one behind it.")


if __name__ == "__main__":
    main()
