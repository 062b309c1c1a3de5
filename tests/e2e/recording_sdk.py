"""A turn with code and a file, and the next one, through the official SDK: recording_sdk.py BASE_URL MODEL [TEXT].

Prints both messages as JSON, one a line; with TEXT, asks that alone. An error is printed as its class, status and message.
"""

import io
import json
import sys

import anthropic

TOOL = {"type": "code_execution_20250825", "name": "code_execution"}


def main():
    base_url, model, *text = sys.argv[1:]
    client = anthropic.Anthropic(api_key="sk-test-local", base_url=base_url, max_retries=0)
    ask = {"model": model, "max_tokens": 1024, "tools": [TOOL]}
    try:
        if text:
            print(client.messages.create(messages=[{"role": "user", "content": text[0]}], **ask).to_json(indent=None))
        else:
            converse(client, ask)
    except anthropic.APIStatusError as error:
        print(json.dumps([type(error).__name__, error.status_code, error.body["error"]["message"]]))


def converse(client, ask):
    uploaded = client.files.upload(file=("in.csv", io.BytesIO(b"1\n2\n3\n"), "text/csv"))
    question = [{"type": "container_upload", "file_id": uploaded.id}, {"type": "text", "text": "Sum it up."}]
    messages = [{"role": "user", "content": question}]
    with client.messages.stream(messages=messages, **ask) as stream:
        first = stream.get_final_message()
    print(first.to_json(indent=None))
    messages += [{"role": "assistant", "content": first.content}, {"role": "user", "content": "Thanks."}]
    print(client.messages.create(messages=messages, container=first.container.id, **ask).to_json(indent=None))


if __name__ == "__main__":
    main()
