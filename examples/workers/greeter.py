#!/usr/bin/env python3
"""Greets, and asks its client for the name; what it is told to ponder it never answers."""

import json
import os
import sys


def send(**message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


messages = map(json.loads, sys.stdin.buffer)
for request in messages:
    if request.get("method") != "greet":
        continue
    print(f"{request['method']}: asking for a name", file=sys.stderr)
    send(id="who", method="name", sessionId=request["sessionId"])
    name = next(message["result"] for message in messages if message.get("id") == "who")
    folder = os.path.basename(os.getcwd())
    send(id=request["id"], result=f"{os.environ['GREETING']}, {name}! ({folder})")
