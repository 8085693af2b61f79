"""ACP v1 test agent on the official Python SDK (PyPI `agent-client-protocol`): `acp_agent.py [LOG]`.

LOG gets every line that it reads (tee.py). The prompt's text selects what it does:
  stream N     N message chunks, each tagged with the session and its number
  until PATH   the same until the file exists
  perm         asks session/request_permission, then says the outcome
  read PATH    asks fs/read_text_file, then says the content
  slow SECS    waits, ends with stopReason "cancelled" if session/cancel comes
  late PATH    waits for session/cancel, says "late", and ends once the file exists
  exit         ends the process
  pid          says the process's id
  other        says the text back
Its own requests start at id 0, as those of every agent on this SDK do.
"""
import asyncio
import os
import sys
import uuid

import acp
import tee
from acp import helpers
from acp.schema import (
    AgentCapabilities,
    InitializeResponse,
    NewSessionResponse,
    PermissionOption,
    PromptResponse,
    ToolCallUpdate,
)


class TestAgent(acp.Agent):
    def __init__(self):
        self.cancelled = {}

    def on_connect(self, conn):
        self.client = conn

    async def initialize(self, protocol_version, client_capabilities=None, client_info=None, **_):
        return InitializeResponse(protocol_version=protocol_version, agent_capabilities=AgentCapabilities())

    async def new_session(self, cwd, mcp_servers=None, **_):
        session = "sess_" + uuid.uuid4().hex[:8]
        self.cancelled[session] = asyncio.Event()
        return NewSessionResponse(session_id=session)

    async def cancel(self, session_id, **_):
        self.cancelled[session_id].set()

    async def say(self, session, text):
        await self.client.session_update(session_id=session, update=helpers.update_agent_message_text(text))

    async def prompt(self, session_id, prompt, **_):
        try:
            return await self.turn(session_id, prompt)
        finally:
            self.cancelled[session_id].clear()

    async def turn(self, session_id, prompt):
        text = "".join(getattr(block, "text", "") for block in prompt)
        word, _, rest = text.partition(" ")
        if word == "stream":
            for i in range(int(rest)):
                await self.say(session_id, f"[{session_id}:{i}]")
                await asyncio.sleep(0)
        elif word == "until":
            i = 0
            while not os.path.exists(rest):
                await self.say(session_id, f"[{session_id}:{i}]")
                await asyncio.sleep(0.001)
                i += 1
        elif word == "perm":
            answer = await self.client.request_permission(
                session_id=session_id,
                tool_call=ToolCallUpdate(tool_call_id="call_1", title="write"),
                options=[
                    PermissionOption(option_id="ok", name="Allow", kind="allow_once"),
                    PermissionOption(option_id="no", name="Reject", kind="reject_once"),
                ],
            )
            chosen = getattr(answer.outcome, "option_id", "")
            await self.say(session_id, f"outcome={answer.outcome.outcome}:{chosen}")
        elif word == "read":
            answer = await self.client.read_text_file(session_id=session_id, path=rest)
            await self.say(session_id, answer.content)
        elif word == "slow":
            try:
                await asyncio.wait_for(self.cancelled[session_id].wait(), float(rest))
                return PromptResponse(stop_reason="cancelled")
            except asyncio.TimeoutError:
                await self.say(session_id, "done")
        elif word == "late":
            await self.cancelled[session_id].wait()
            await self.say(session_id, "late")
            while not os.path.exists(rest):
                await asyncio.sleep(0.005)
            await self.say(session_id, "later")
            return PromptResponse(stop_reason="cancelled")
        elif word == "exit":
            os._exit(0)
        elif word == "pid":
            await self.say(session_id, str(os.getpid()))
        else:
            await self.say(session_id, text)
        return PromptResponse(stop_reason="end_turn")


if len(sys.argv) > 1:
    tee.stdin(sys.argv[1])
asyncio.run(acp.run_agent(TestAgent()))
