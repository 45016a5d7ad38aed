"""An agent, an operator and a viewer of the original's kind store, find, change and forget memories,
and the operator commands the agent.

Usage: memory_client.py KING RUNNER_TOKEN OPERATOR_TOKEN VIEWER_TOKEN
"""

import queue
import sys

import socketio

king, runner_token, operator_token, viewer_token = sys.argv[1:]
WAIT = 30


def connect(token):
    client = socketio.Client()
    client.connect(king, auth={"token": token})
    return client


def equal(what, found, wanted):
    assert found == wanted, f"{what}: {found!r} is not {wanted!r}"


def change():
    """The next change of our memory; the pipeline remembers things meanwhile."""
    while True:
        told = changes.get(timeout=WAIT)
        if told["memory_id"] == name:
            return told


agent, operator, viewer = connect(runner_token), socketio.Client(), connect(viewer_token)
changes, commands = queue.Queue(), queue.Queue()
operator.on("memory:changed", changes.put)
operator.connect(king, auth={"token": operator_token})
operator.emit("dashboard:subscribe", {})


@agent.on("king:command")
def command(payload):
    commands.put(payload)
    answer = {"req_id": payload["params"]["req_id"], "agent_id": "memory-1", "output": {"did": payload["command"]}}
    agent.emit("agent:command_result", answer)


registered = agent.call(
    "agent:register",
    {"agent_id": "memory-1", "role": "user", "capabilities": [], "protocol": 2, "session_id": "s"},
    timeout=WAIT,
)
equal("registration", registered["status"], "accepted")

memory = {
    "scope": "agent",
    "category": "fact",
    "key": "pond",
    "agent_id": "memory-1",
    "tags": ["birds, and fish"],
    "tiers": [{"tier": "l0", "content": "池塘里有一只苍鹭"}],
}
stored = agent.call("memory:store", memory, timeout=WAIT)
equal("stored", stored["success"], True)
name = stored["memory_id"]
equal("change", change(), {"action": "stored", "memory_id": name})
equal("again", agent.call("memory:store", memory, timeout=WAIT)["memory_id"], name)
equal("change", change()["action"], "updated")

for client in (agent, operator, viewer):
    found = client.call("memory:query", {"query": "苍鹭", "agent_id": "memory-1", "touch": client is agent}, timeout=WAIT)
    equal("found", (found["success"], found["count"], found["memories"][0]["id"]), (True, 1, name))
equal("uses", found["memories"][0]["access_count"], 1)
equal("tags", found["memories"][0]["tags"], ["birds, and fish"])
equal("tiers", [tier["tier"] for tier in found["memories"][0]["tiers"]], ["l0"])

for client, event, payload, code in [
    (viewer, "memory:store", {**memory, "key": "x", "agent_id": ""}, "forbidden"),
    (viewer, "memory:delete", {"memory_id": name}, "forbidden"),
    (agent, "memory:store", {**memory, "agent_id": "somebody"}, "not_your_agent"),
    (agent, "memory:store", {**memory, "scope": "nowhere"}, "invalid_field"),
    (agent, "memory:store", {**memory, "tiers": [{"tier": "l9", "content": ""}]}, "invalid_field"),
    (agent, "memory:update", {"memory_id": "mem-0"}, "not_found"),
    (agent, "king:command", {"command": "x", "target_agent": "memory-1", "params": {}}, "forbidden"),
    (operator, "king:command", {"command": "x", "target_agent": "nobody", "params": {}}, "not_found"),
]:
    refused = client.call(event, payload, timeout=WAIT)
    equal(f"{event} {code}", (refused["success"], refused["code"]), (False, code))
    assert refused["error"], refused

changed = agent.call("memory:update", {"memory_id": name, "tiers": [{"tier": "l1", "content": "more"}]}, timeout=WAIT)
equal("tiers", [tier["tier"] for tier in changed["memory"]["tiers"]], ["l0", "l1"])
equal("change", change()["action"], "updated")
gone = operator.call("memory:delete", {"memory_id": name}, timeout=WAIT)
equal("gone", gone, {"success": True, "memory_id": name})
equal("change", change()["action"], "deleted")

done = operator.call("king:command", {"command": "dance", "target_agent": "memory-1", "params": {"how": "slowly"}}, timeout=WAIT)
equal("done", (done["success"], done["answered"], done["output"]), (True, True, {"did": "dance"}))
equal("params", commands.get(timeout=WAIT)["params"]["how"], "slowly")
print("all is well", flush=True)
for client in (agent, operator, viewer):
    client.disconnect()
