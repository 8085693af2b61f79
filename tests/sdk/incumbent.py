"""A user of the incumbent's Python SDK, as tests/incumbent_sdk.rs runs it.

incumbent.py BACKEND WORKER PLACE: BACKEND is subprocess or native, WORKER is the zoo, PLACE is the
program for the one, a path for a Unix socket for the other.
"""

import asyncio
import json
import sys
import time

from stdiobus import (
    AsyncStdioBus,
    BusConfig,
    NativeOptions,
    PoolConfig,
    RequestOptions,
    StdioBus,
    SubprocessOptions,
)

backend, worker, place = sys.argv[1:]


def options():
    config = BusConfig(pools=[PoolConfig(id="zoo", command=worker, args=["echo"], instances=2)])
    if backend == "subprocess":
        return {"config": config, "backend": backend, "subprocess": SubprocessOptions(binary_path=place)}
    native = NativeOptions(listen_mode="unix", unix_path=place)
    return {"config": config, "backend": backend, "native": native}


async def requests(bus):
    assert await bus.request("echo", {"a": "\u00e9\n"}) == {"a": "\u00e9\n"}
    answers = await asyncio.gather(*(bus.request("echo", {"i": i}) for i in range(1000)))
    assert answers == [{"i": i} for i in range(1000)]
    large = {"text": "x" * (1 << 20)}
    assert await bus.request("echo", large) == large
    pids = {await bus.request("pid", session_id="one") for _ in range(10)}
    assert len(pids) == 1, pids


async def failure(request):
    try:
        await request
    except Exception as error:  # the SDK has a class for each kind
        return f"{error} {vars(error)}"
    raise AssertionError("no error")


async def failures(bus):
    assert "zoo error" in await failure(bus.request("error"))
    # The SDK doesn't say that it gives up; the answer comes to nobody.
    slow = bus.request("sleep", {"ms": 200}, timeout_ms=100)
    assert "Request timeout" in await failure(slow)
    # Its worker dies; the next request of that session gets another one.
    before = await bus.request("pid", session_id="two")
    ended = await failure(bus.request("exit", {"code": 0}, session_id="two"))
    assert "worker_exited" in ended, ended
    assert await bus.request("pid", session_id="two") != before


async def streams(bus):
    texts = ["one ", "two ", "three"]
    events = [event async for event in bus.stream_request("session/prompt", {"texts": texts, "ms": 10})]
    assert [event.text for event in events[:-1]] == texts, events
    assert events[-1].type == "result", events
    assert events[-1].result["text"] == "".join(texts), events
    assert events[-1].result["stopReason"] == "end_turn", events


async def notifications(bus):
    pushed = []
    bus.on_notification(lambda message: pushed.append(message))
    subscription = bus.subscribe_notifications()
    await bus.request("notify", {"n": 5})
    pulled = [await anext(subscription) for _ in range(5)]
    assert [note["params"]["i"] for note in pulled] == list(range(5)), pulled
    assert len(pushed) == 5, pushed
    subscription.close()
    session = "counted"
    before = await bus.request("seen", session_id=session)
    await bus.notify("said", {"x": 1}, options=RequestOptions(session_id=session))
    assert await bus.request("seen", session_id=session) == before + 1


async def driven_by_its_descriptor(bus):
    """No timer runs, so nothing happens while there is nothing to do."""
    native = bus._backend
    assert native._poll_fd is not None and native._poll_timer is None, "it polls by a timer"
    steps = []
    step = native._step_nonblocking
    native._step_nonblocking = lambda: (steps.append(1), step())
    # What the loop calls now; the reader keeps the method that looks this one up.
    await bus.request("echo")
    busy = len(steps)
    assert busy > 0
    await asyncio.sleep(0.3)
    # Its timer would make 300.
    assert len(steps) - busy < 10, f"{len(steps) - busy} steps for nothing"
    # Others come in through the socket.
    reader, writer = await asyncio.open_unix_connection(place)
    writer.write(b'{"jsonrpc":"2.0","id":1,"method":"echo","params":[7]}\n')
    answer = json.loads(await asyncio.wait_for(reader.readline(), 10))
    assert answer == {"jsonrpc": "2.0", "id": 1, "result": [7]}, answer
    assert bus.get_client_count() == 1 and bus.get_worker_count() == 2
    writer.close()


async def main():
    bus = AsyncStdioBus(**options())
    await bus.start()
    await requests(bus)
    await failures(bus)
    await streams(bus)
    await notifications(bus)
    if backend == "native":
        await driven_by_its_descriptor(bus)
    assert bus.get_stats().messages_in >= 1000, bus.get_stats()
    assert bus.get_backend_type() == backend
    start = time.monotonic()
    await bus.stop()
    took = time.monotonic() - start
    assert took < 1, f"stop took {took} s"
    assert not bus.is_running()
    bus.destroy()
    return took


def without_async():
    with StdioBus(**options()) as bus:
        assert bus.request("echo", {"a": 1}) == {"a": 1}


took = asyncio.run(main())
without_async()
print(f"stopped in {took * 1000:.0f} ms")
