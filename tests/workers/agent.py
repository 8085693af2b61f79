"""An agent that repeats what it is told, with a quirk where an argument asks for one.

agent.py [name NAME] [reverse N] [stderr N] [die TEXT]

- name: what it repeats comes behind this name
- reverse: reads N requests, then answers them, the last one first
- stderr: first writes N bytes to stderr, without a newline
- die: says this on stderr and exits with 3 when a task comes

Methods: tasks/send, where the text `fail` is a task that fails; `late`, answered when `release` comes,
before that; others get an error.
"""

import json
import sys

options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
late = []


def answer(request, **outcome):
    print(json.dumps({"jsonrpc": "2.0", "id": request["id"], **outcome}), flush=True)


def task(request):
    if "die" in options:
        print(options["die"], file=sys.stderr, flush=True)
        sys.exit(3)
    params = request["params"]
    text = params["message"]["parts"][0]["text"]
    if text == "fail":
        status = {"state": "failed", "message": "as it was told"}
        return answer(request, result={"id": params["id"], "status": status})
    if "name" in options:
        text = f"{options['name']}: {text}"
    artifacts = [{"parts": [{"type": "text", "text": text}]}]
    answer(request, result={"id": params["id"], "status": {"state": "completed"}, "artifacts": artifacts})


def handle(request):
    method = request["method"]
    if method == "tasks/send":
        task(request)
    elif method == "late":
        late.append(request)
    elif method == "release":
        for held in late:
            answer(held, result="late")
        late.clear()
        answer(request, result="released")
    else:
        answer(request, error={"code": -32601, "message": f"method not found: {method}"})


sys.stderr.write("x" * int(options.get("stderr", 0)))
sys.stderr.flush()
batch = []
for line in sys.stdin:
    batch.append(json.loads(line))
    if len(batch) >= int(options.get("reverse", 1)):
        for request in reversed(batch):
            handle(request)
        batch.clear()
