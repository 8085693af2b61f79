#!/usr/bin/env python3
"""Answers every request with what travelled beside its params: `desk.py NAME` is the desk NAME."""

import json
import sys

for request in map(json.loads, sys.stdin.buffer):
    result = {"desk": sys.argv[1], "agentId": request.get("agentId"), **request.get("_ext", {})}
    answer = {"jsonrpc": "2.0", "id": request["id"], "result": result}
    print(json.dumps(answer, sort_keys=True), flush=True)
