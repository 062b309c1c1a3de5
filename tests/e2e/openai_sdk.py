"""Code execution with a file in and a file out, through the official SDK: openai_sdk.py BASE_URL MODEL."""

import io
import sys

import anthropic

TOOL = {"type": "code_execution_20250825", "name": "code_execution"}


def same(actual, expected, what):
    if actual != expected:
        raise SystemExit(f"{what}: got {actual!r}, expected {expected!r}")


def main():
    client = anthropic.Anthropic(api_key="sk-test-local", base_url=sys.argv[1], max_retries=0)
    uploaded = client.files.upload(file=("in.csv", io.BytesIO(b"1\n2\n3\n"), "text/csv"))
    question = [{"type": "container_upload", "file_id": uploaded.id}, {"type": "text", "text": "Sum it up."}]
    messages = [{"role": "user", "content": question}]
    ask = {"model": sys.argv[2], "max_tokens": 1024, "tools": [TOOL]}
    with client.messages.stream(messages=messages, **ask) as stream:
        first = stream.get_final_message()
    kinds = ["thinking", "server_tool_use", "bash_code_execution_tool_result", "text"]
    same([block.type for block in first.content], kinds, "blocks")
    same(first.content[0].thinking, "A sum.", "thinking")
    result = first.content[2].content
    same((result.stdout, result.stderr, result.return_code), ("6\n", "", 0), "result")
    same(first.stop_reason, "end_turn", "stop reason")
    [output] = result.content
    same(client.files.retrieve_metadata(output.file_id).filename, "sum.txt", "name of the file")
    same(client.files.download(output.file_id).read(), b"6\n", "the file")
    messages += [{"role": "assistant", "content": first.content}, {"role": "user", "content": "Thanks."}]
    second = client.messages.create(messages=messages, container=first.container.id, **ask)
    same([block.to_dict() for block in second.content], [{"type": "text", "text": "Not at all."}], "second reply")
    same(second.usage.input_tokens, 40, "input tokens")


if __name__ == "__main__":
    main()
