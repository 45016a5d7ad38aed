"""The MCP SDK at king's /mcp and at `evo mcp`: what it lists, calls and hears, and who is refused."""

import asyncio
import sys

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

URL, OPERATOR, INVOKE, VIEWER, EVO, DATA, HOME, SKILL = sys.argv[1:]
# Another skill in use, found at the start.
OTHER = ""
MODERN = "2026-07-28"


def http(token):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx2.AsyncClient(headers=headers, timeout=60)


async def act(name, what):
    async with http(OPERATOR) as client:
        answer = await client.post(f"{URL}/skills/{name}/{what}", json={"reason": "a test"})
        assert answer.status_code == 200, answer.text


async def listed(client):
    tools, cursor = [], None
    while True:
        page = await client.list_tools(cursor=cursor, cache_mode="bypass")
        tools += page.tools
        cursor = page.next_cursor
        if cursor is None:
            return {tool.name: tool for tool in tools}


async def eventually(what, check):
    for _ in range(200):
        if await check():
            return
        await asyncio.sleep(0.1)
    raise AssertionError(what)


async def use(name, transport, mode):
    """Everything that a client does with our skills."""
    heard = []

    async def hear(message):
        heard.append(getattr(message, "method", None) or type(message).__name__)

    async with Client(transport, mode=mode, message_handler=hear) as client:
        tools = await listed(client)
        assert SKILL in tools and OTHER in tools, sorted(tools)
        tool = tools[SKILL]
        assert tool.description and tool.input_schema["type"] == "object", tool
        assert tool.output_schema["type"] == "object", tool
        assert tool.annotations.read_only_hint is True, tool

        result = await client.call_tool(SKILL, {})
        assert not result.is_error, result
        assert result.structured_content["status"] == "ok", result
        assert "ok" in result.content[0].text, result

        wrong = await client.call_tool(SKILL, {"nothing": 1})
        assert wrong.is_error and wrong.content[0].text.startswith("invalid_input: "), wrong
        assert wrong.structured_content["error"]["code"] == "invalid_input", wrong
        unknown = await client.call_tool("no-such-skill", {})
        assert unknown.is_error and unknown.content[0].text.startswith("not_found: "), unknown

        many = await asyncio.gather(*(client.call_tool(SKILL, {}) for _ in range(20)))
        assert not any(result.is_error for result in many), many

        async def changed_by(what, gone):
            async def look():
                return (OTHER not in await listed(client)) == gone

            if mode == MODERN:
                async with client.listen(tools_list_changed=True) as changes:
                    await act(OTHER, what)
                    await asyncio.wait_for(anext(changes), 20)
            else:
                before = len(heard)
                await act(OTHER, what)

                async def told():
                    return any("ToolListChanged" in str(kind) or "list_changed" in str(kind) for kind in heard[before:])

                await eventually(f"{name}: the list of tools changed: {heard}", told)
            await eventually(f"{name}: {OTHER} after {what}", look)

        await changed_by("archive", True)
        away = await client.call_tool(OTHER, {})
        assert away.is_error and away.content[0].text.startswith(("not_active: ", "not_found: ")), away
        await changed_by("restore", False)
    print(f"{name} {mode}: well")


async def refused():
    body = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    accept = {"Accept": "application/json, text/event-stream"}
    for token, status in [(None, 401), ("wrong", 401), (VIEWER, 403)]:
        async with http(token) as client:
            for method, sent in [("POST", body), ("GET", None), ("DELETE", None)]:
                answer = await client.request(method, f"{URL}/mcp", json=sent, headers=accept)
                assert answer.status_code == status, (token, method, answer.status_code, answer.text)
                assert answer.json()["error"]["code"] in ("unauthorized", "forbidden"), answer.text
    for mode in ["legacy", MODERN]:
        try:
            async with http(None) as client:
                async with Client(streamable_http_client(f"{URL}/mcp", http_client=client), mode=mode) as session:
                    await session.list_tools()
        except BaseException:
            continue
        raise AssertionError(f"{mode}: a client without a token is let in")
    async with http(INVOKE) as client:
        evil = await client.post(f"{URL}/mcp", json=body, headers={**accept, "Host": "evil.example"})
        assert evil.status_code == 403, evil.text
        lost = await client.post(f"{URL}/mcp", json=body, headers={**accept, "Mcp-Session-Id": "nobody"})
        assert (lost.status_code, lost.json()["error"]["code"]) == (404, "no_such_session"), lost.text
        none = await client.get(f"{URL}/mcp", headers={"Accept": "text/event-stream"})
        assert (none.status_code, none.json()["error"]["code"]) == (400, "session_required"), none.text
        plain = await client.post(f"{URL}/mcp", json=body, headers={"Accept": "text/html"})
        assert (plain.status_code, plain.json()["error"]["code"]) == (406, "not_acceptable"), plain.text
        large = await client.post(f"{URL}/mcp", json={**body, "x": "y" * 2_000_000}, headers=accept)
        assert (large.status_code, large.json()["error"]["code"]) == (413, "body_too_large"), large.text


async def recorded():
    async with http(OPERATOR) as client:
        calls = (await client.get(f"{URL}/skills/{SKILL}/calls?limit=500")).json()["calls"]
        assert len([call for call in calls if call["result"] == "success"]) >= 80, len(calls)
        assert all(call["artifact_id"] and call["latency_ms"] is not None for call in calls), calls[0]
        audit = (await client.get(f"{URL}/audit?limit=500")).json()["entries"]
        own = [row for row in audit if row["action"] == "MCP tools/call"]
        assert own and all(row["scope"] == "invoke" and row["target"].startswith("/mcp/") for row in own), audit[:3]


async def other_skill():
    """A skill in use beside the one that is called."""
    async with http(OPERATOR) as client:
        skills = (await client.get(f"{URL}/skills?status=active&limit=500")).json()["skills"]
        return next(skill["name"] for skill in skills if skill["name"] != SKILL)


async def main():
    global OTHER
    OTHER = await other_skill()
    await refused()
    for mode in ["legacy", MODERN]:
        async with http(INVOKE) as client:
            await use("streamable HTTP", streamable_http_client(f"{URL}/mcp", http_client=client), mode)
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": HOME, "EVO_HOME": DATA}
    for mode in ["legacy", MODERN]:
        server = StdioServerParameters(command=EVO, args=["mcp"], env=env)
        await use("stdio", stdio_client(server), mode)
    await recorded()
    print("all is well")


asyncio.run(main())
