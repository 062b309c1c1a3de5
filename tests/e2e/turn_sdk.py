"""One turn with code, streamed by the official SDK: turn_sdk.py BASE_URL MODEL TEXT. Prints the message as JSON."""

import sys

import anthropic

TOOL = {"type": "code_execution_20250825", "name": "code_execution"}


def main():
    base_url, model, text = sys.argv[1:]
    client = anthropic.Anthropic(api_key="sk-test-local", base_url=base_url, max_retries=0)
    with client.messages.stream(model=model, max_tokens=1024, tools=[TOOL], messages=[{"role": "user", "content": text}]) as stream:
        print(stream.get_final_message().to_json(indent=None))


if __name__ == "__main__":
    main()
