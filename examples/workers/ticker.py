#!/usr/bin/env python3
"""Counts to `params.to`, tells each number in a notification, and then answers."""

import json
import sys


def send(**message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


for request in map(json.loads, sys.stdin.buffer):
    to = request["params"]["to"]
    for number in range(1, to + 1):
        send(method="tick", params={"number": number}, sessionId=request["sessionId"])
    send(id=request["id"], result=to)
