#!/usr/bin/env python3
"""A small ACP agent: whatever it is asked, it thinks, then tells a story bit by bit."""

import json
import sys
import time

STORY = ["Once upon a time", " there was a bus.", " Everybody got off", " where they wanted."]


def send(**message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def tell(session, kind, text):
    update = {"sessionUpdate": kind, "content": {"type": "text", "text": text}}
    send(method="session/update", params={"sessionId": session, "update": update})


for request in map(json.loads, sys.stdin.buffer):
    method, params = request.get("method"), request.get("params")
    if method == "initialize":
        send(id=request["id"], result={"protocolVersion": 1, "agentCapabilities": {}})
    elif method == "session/new":
        send(id=request["id"], result={"sessionId": "story-1"})
    elif method == "session/prompt":
        tell(params["sessionId"], "agent_thought_chunk", "Which one do I know?")
        for text in STORY:
            time.sleep(0.1)  # a model takes longer
            tell(params["sessionId"], "agent_message_chunk", text)
        send(id=request["id"], result={"stopReason": "end_turn"})
    elif "id" in request:
        send(id=request["id"], error={"code": -32601, "message": "Method not found"})
