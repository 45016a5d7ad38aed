"""An MCP server that speaks just enough of the protocol, and misbehaves when it is told to."""
import json
import os
import subprocess
import sys
import time


def say(message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def tool(name, **more):
    return {"name": name, "inputSchema": {"type": "object"}, **more}


mode = sys.argv[1] if len(sys.argv) > 1 else "plain"
if mode == "mute":
    print("nothing to say here", file=sys.stderr, flush=True)
    sys.exit(3)
child = subprocess.Popen(["sleep", "600"]) if mode == "family" else None
PAGES = {None: ([tool("pid"), tool("env")], "2"), "2": ([tool("die"), tool("hang")], None)}

for line in sys.stdin:
    message = json.loads(line)
    number, method, params = message.get("id"), message["method"], message.get("params") or {}
    if number is None:
        continue
    if method == "initialize":
        result = {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "fake", "version": "1"},
        }
    elif method == "tools/list" and mode == "circle":
        result = {"tools": [], "nextCursor": "again"}
    elif method == "tools/list":
        tools, following = PAGES[params.get("cursor")]
        result = {"tools": tools, **({"nextCursor": following} if following else {})}
    else:
        name = params["name"]
        if name == "die":
            print("out of luck", file=sys.stderr, flush=True)
            os._exit(1)
        if name == "hang":
            time.sleep(600)
        if name == "env":
            result = {"structuredContent": dict(os.environ), "content": []}
        elif name == "pid":
            pids = {"own": os.getpid(), "child": child and child.pid, "folder": os.getcwd()}
            result = {"content": [{"type": "text", "text": json.dumps(pids)}]}
        else:
            error = {"code": -32602, "message": f"no tool {name}"}
            say({"jsonrpc": "2.0", "id": number, "error": error})
            continue
    say({"jsonrpc": "2.0", "id": number, "result": result})
if mode == "family":
    time.sleep(600)
