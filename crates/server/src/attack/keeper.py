"""Runs in the neighbour: keeps the content of a file in memory, and answers with its digest whenever it is asked."""

import hashlib
import sys

with open(sys.argv[1]) as file:
    SECRET = file.read()

while True:
    with open("/tmp/ask") as ask:
        ask.read()
    with open("/tmp/answer", "w") as answer:
        answer.write(hashlib.sha256(b"kept:" + SECRET.encode()).hexdigest() + "\n")
