"""Streams the request on standard input through the official SDK; prints the folded message: upstream_sdk.py BASE_URL."""

import json
import sys

import anthropic


def main():
    client = anthropic.Anthropic(api_key="sk-test-local", base_url=sys.argv[1], max_retries=0)
    with client.messages.stream(**json.load(sys.stdin)) as stream:
        print(stream.get_final_message().to_json(indent=None))


if __name__ == "__main__":
    main()
