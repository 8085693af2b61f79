#!/usr/bin/env python3
"""Answers the handshake of the stdio_bus family: which extensions it has, in which version."""

import json
import sys

KNOWN = {"audit": "1.0", "identity": "1.0"}

for request in map(json.loads, sys.stdin.buffer):
    answer = {"jsonrpc": "2.0", "id": request["id"]}
    if request["method"] == "stdio_bus/hello":
        offered = request["params"]["extensions"]
        answer["result"] = {
            "negotiatedProtocolVersion": "0.1.0",
            "sessionId": "agent-1",
            "extensions": {
                name: {"selected": KNOWN.get(name, ""), "active": name in KNOWN} for name in offered
            },
        }
    else:
        answer["error"] = {"code": -32601, "message": "Method not found"}
    print(json.dumps(answer), flush=True)
