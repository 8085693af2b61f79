"""MCP test server on the official Python SDK (PyPI `mcp` 2.x): `mcp_server.py [LOG]`.

LOG gets every line that it reads (tee.py). It serves the handshake revisions and 2026-07-28.
"""
import os
import sys

import anyio
import tee
from mcp.server.mcpserver import Context, MCPServer
from mcp_types import SamplingMessage, TextContent

server = MCPServer("tests")


@server.tool()
async def echo(text: str) -> str:
    """Says the text back."""
    return text


@server.tool()
async def pid() -> str:
    """Says which process answers."""
    return str(os.getpid())


@server.tool()
async def steps(n: int, ctx: Context) -> str:
    """Reports progress n times, then says so."""
    for i in range(n):
        await ctx.report_progress(i + 1, n, f"step {i + 1}")
    return f"{n} steps"


@server.tool()
async def hold(ctx: Context) -> str:
    """Reports progress once, then waits until it is cancelled."""
    await ctx.report_progress(1)
    await anyio.sleep_forever()
    return "never"


@server.tool()
async def announce(ctx: Context) -> str:
    """Tells subscribers that the tools have changed."""
    await ctx.notify_tools_changed()
    return "announced"


@server.tool()
async def sample(question: str, ctx: Context) -> str:
    """Has the client's model answer the question."""
    message = SamplingMessage(role="user", content=TextContent(type="text", text=question))
    answer = await ctx.session.create_message([message], max_tokens=10)
    return answer.content.text


@server.tool()
async def roots(ctx: Context) -> str:
    """Says which roots the client has."""
    answer = await ctx.session.list_roots()
    return " ".join(str(root.uri) for root in answer.roots)


if len(sys.argv) > 1:
    tee.stdin(sys.argv[1])
server.run()
