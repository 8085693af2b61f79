#!/usr/bin/env python3
"""The smallest worker: answers every request with its own params.

A worker reads one JSON object per line from stdin and writes one per line to
stdout. Whatever it wants to say to people goes to stderr.
"""

import json
import sys

for line in sys.stdin.buffer:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as error:
        # The bus checks how a message is built, not every value deep inside it.
        # A worker that dies of one bad line fails everybody it serves.
        print(f"not JSON: {error}", file=sys.stderr)
        continue
    if "id" not in request or "method" not in request:
        continue  # a notification, or an answer: nothing to reply to
    answer = {"jsonrpc": "2.0", "id": request["id"], "result": request.get("params")}
    if "sessionId" in request:
        answer["sessionId"] = request["sessionId"]
    print(json.dumps(answer), flush=True)
