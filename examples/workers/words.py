#!/usr/bin/env python3
"""Does things to words; a method that it doesn't know is an error."""

import json
import sys

METHODS = {"upper": str.upper, "reverse": lambda text: text[::-1]}

for request in map(json.loads, sys.stdin.buffer):
    answer = {"jsonrpc": "2.0", "id": request["id"]}
    if request["method"] in METHODS:
        answer["result"] = METHODS[request["method"]](request["params"]["text"])
    else:
        message = f"Method not found: {request['method']}"
        answer["error"] = {"code": -32601, "message": message}
    print(json.dumps(answer), flush=True)
