"""Does what is on standard input through the official SDK: upstream_sdk.py BASE_URL ask|upload.

`ask` streams a request, and prints the folded message; `upload` uploads a file, and prints its metadata.
"""

import base64
import json
import sys

import anthropic


def main():
    base_url, what = sys.argv[1:3]
    client = anthropic.Anthropic(api_key="sk-test-local", base_url=base_url, max_retries=0)
    given = json.load(sys.stdin)
    if what == "upload":
        content = base64.b64decode(given["base64"])
        print(client.files.upload(file=(given["filename"], content, given["media_type"])).to_json(indent=None))
        return
    with client.messages.stream(**given) as stream:
        print(stream.get_final_message().to_json(indent=None))


if __name__ == "__main__":
    main()
