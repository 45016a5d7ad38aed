"""Every event with every kind of token: who is refused where, and who gets through.

Usage: walk.py KING SETUP, where SETUP is a JSON text: `tokens`, the names of the events that king
takes (`taken`) and of all that the protocol knows (`known`).
"""

import json
import sys
import threading

import requests
import websocket

from client import WAIT, Client, Refused, equal, verdict

king = sys.argv[1]
setup = json.loads(sys.argv[2])
tokens = setup["tokens"]

# Tokens that don't open a connection at all; none and a wrong one among them.
STRANGERS = ["none", "wrong", "empty", "invoke", "gateway", "made invoke", "revoked"]
# What a connection is by its token and by what it has registered.
CALLERS = {
    "viewer": ["viewer", "made viewer"],
    "operator": ["operator", "made operator"],
    "runner": ["runner", "made user", "made building"],
    "user agent": ["made user"],
    "kernel agent": ["made building"],
}
REGISTERS = {"user agent": "user", "kernel agent": "building"}

NR, NO = "not_registered", "forbidden"


def everybody(code):
    """The same for all who are connected."""
    return dict.fromkeys(CALLERS, code)


def row(viewer, operator, runner, agent):
    """What each caller gets; agents of both kinds the same."""
    return {"viewer": viewer, "operator": operator, "runner": runner, "user agent": agent, "kernel agent": agent}


def agents(code):
    """Only for those who have registered."""
    return row(NR, NR, NR, code)


NO_RUN = {"run_id": "run-none", "stage": "building"}
RESULT = {**NO_RUN, "status": "completed", "artifact_id": "", "output": {}, "error": None}
LINE = {"id": 0, "level": "info", "message": "walked", "created_at": "2026-01-01T00:00:00Z"}
MEMORY = {"scope": "system", "category": "fact", "key": "walk", "tiers": [{"tier": "l0", "content": "walked"}]}
PROMPT = {"request_id": "none", "model": "m", "response": "x"}
ADVICE = {"request_id": "none", "run_id": "run-none", "task_id": "none", "action": "retry"}
PART = {"request_id": "none", "chunk_index": 0, "delta": "x"}

# Event, what is sent (given the fixtures of this caller), and who gets which answer. `ok` is an
# accepted message, anything else the code of its refusal. `agent:register` has a table of its own.
TABLE = [
    ("agent:status", lambda f: {"agent_id": f["me"], "status": "alive", "metrics": {}}, agents("ok")),
    ("agent:health", lambda f: {"agent_id": f["me"], "health_checks": []}, agents("ok")),
    ("agent:skill_report", lambda f: {"agent_id": f["me"], "skill_id": "s", "result": "success", "score": None}, agents("ok")),
    ("agent:command_result", lambda f: {"agent_id": f["me"], "req_id": "walk"}, agents("ok")),
    ("agent:command_progress", lambda f: {"agent_id": f["me"], "req_id": "walk", "step": 1, "message": "x"}, agents("ok")),
    ("pipeline:accepted", lambda f: {"agent_id": f["me"], **NO_RUN, "attempt": 1}, agents("stale_attempt")),
    ("pipeline:stage_result", lambda f: {"agent_id": f["me"], **RESULT}, agents("unknown_run")),
    ("king:system_info", lambda f: {}, everybody("ok")),
    ("king:command", lambda f: {"command": "x", "target_agent": "nobody", "params": {}}, row(NO, "not_found", NO, NO)),
    ("task:create", lambda f: {"task_type": "walk", "payload": {}}, row(NO, "ok", "ok", "ok")),
    ("task:get", lambda f: {"task_id": f["task"]}, everybody("ok")),
    ("task:list", lambda f: {"limit": 2}, everybody("ok")),
    ("task:join", lambda f: {"task_id": f["task"], "agent_id": f["me"]}, everybody("ok")),
    ("task:join", lambda f: {"task_id": f["task"], "agent_id": f["me"], "attempt": 1}, agents("stale_attempt")),
    ("task:output", lambda f: {"task_id": f["task"], **PART}, agents("not_your_task")),
    ("task:log", lambda f: {"task_id": f["task"], "log": LINE}, agents("not_your_task")),
    ("task:update", lambda f: {"task_id": f["task"], "status": "in_progress"}, row(NO, "ok", NO, "not_your_task")),
    ("task:update", lambda f: {"task_id": f["task"], "status": "completed", "attempt": 1}, agents("stale_attempt")),
    ("task:summary", lambda f: {"task_id": f["task"], "agent_id": "", "summary": "fine"}, row(NO, "ok", NO, "not_asked")),
    ("task:decompose_result", lambda f: {"request_id": "none", "task_id": f["task"]}, agents("not_asked")),
    ("memory:store", lambda f: MEMORY, row(NO, "ok", "ok", "ok")),
    ("memory:store", lambda f: {**MEMORY, "agent_id": "somebody"}, row(NO, "ok", "not_your_agent", "not_your_agent")),
    ("memory:query", lambda f: {"query": "walked"}, everybody("ok")),
    ("memory:update", lambda f: {"memory_id": f["memory"], "tags": ["a"]}, row(NO, "ok", "not_your_agent", "not_your_agent")),
    ("memory:delete", lambda f: {"memory_id": f["memory"]}, row(NO, "ok", "not_your_agent", "not_your_agent")),
    ("task:delete", lambda f: {"task_id": f["task"]}, row(NO, "ok", NO, NO)),
    ("error:recovery_response", lambda f: ADVICE, agents("unknown_request")),
    ("debug:stream", lambda f: PART, agents("not_asked")),
    ("debug:response", lambda f: {"agent_id": f["me"], **PROMPT}, agents("not_asked")),
    ("observer:subscribe", lambda f: {}, everybody("ok")),
    ("dashboard:subscribe", lambda f: {}, everybody("ok")),
]

KERNEL = ["learning", "building", "pre-load", "pre_load", "evaluation", "skill_manage"]
USER = ["user", "user:translator"]
# `agent:register`: which roles a token may take.
ROLES = {
    "viewer": [], "made viewer": [],
    "operator": KERNEL + USER, "made operator": KERNEL + USER,
    "runner": KERNEL + USER,
    "made user": USER,
    "made building": ["building"],
}

# What only king says. From a client it means nothing: no answer, and nothing happens.
IGNORED = [
    "king:config_update", "king:welcome", "king:reply", "pipeline:next", "pipeline:cancel",
    "task:changed", "task:invite", "task:evaluate", "task:decompose", "task:cancel", "memory:changed",
    "error:recovery_request", "debug:prompt", "dashboard:event", "no:such_event",
]

# Events whose payload may be missing.
NO_PAYLOAD = ["king:system_info", "dashboard:subscribe"]


def complete():
    """No event without a verdict, and no verdict without an event."""
    rows = sorted({event for event, _, _ in TABLE} | {"agent:register"})
    equal("events that king takes and this table", rows, sorted(setup["taken"]))
    equal("events of the protocol", sorted({*rows, *IGNORED} - {"no:such_event"}), sorted(setup["known"]))
    equal("tokens", sorted([*STRANGERS, *ROLES]), sorted({*tokens, "none", "empty"}))
    callers = {token for kinds in CALLERS.values() for token in kinds}
    equal("tokens that connect", sorted(callers), sorted(ROLES))


def refused_at_connect(name):
    token = {"none": None, "empty": ""}.get(name, tokens.get(name))
    try:
        Client(king, token)
    except Refused as refusal:
        assert "unauthorized" in str(refusal), f"{name}: {refusal}"
    else:
        raise AssertionError(f"the token {name!r} opened a connection")
    # The same by polling, request by request: the client would wait for its last poll.
    address = f"{king}/socket.io/?EIO=4&transport=polling"
    sid = json.loads(requests.get(address, timeout=WAIT).text[1:])["sid"]
    auth = "40" if token is None else "40" + json.dumps({"token": token})
    requests.post(f"{address}&sid={sid}", data=auth, timeout=WAIT)
    answer = requests.get(f"{address}&sid={sid}", timeout=WAIT).text
    while answer == "2":
        # A ping may come before the answer.
        requests.post(f"{address}&sid={sid}", data="3", timeout=WAIT)
        answer = requests.get(f"{address}&sid={sid}", timeout=WAIT).text
    assert "44{" in answer and "unauthorized" in answer, f"{name}: {answer}"
    # Whoever goes on all the same is not heard: no answer, and (see below) nothing has happened.
    address = king.replace("http", "ws", 1) + "/socket.io/?EIO=4&transport=websocket"
    raw, told = websocket.create_connection(address, timeout=WAIT), []
    raw.send("40" + json.dumps({"token": token or "x"}))
    try:
        while not (told and told[-1].startswith("44")):
            told.append(raw.recv())
        for place, event in enumerate(setup["taken"]):
            raw.send(f"42{place}" + json.dumps([event, {"task_type": "smuggled", **MEMORY}]))
        raw.settimeout(0.1)
        while told[-1] not in ("", "1"):
            told.append(raw.recv())
    except (websocket.WebSocketException, ConnectionError):
        pass
    raw.close()
    equal(f"answers to {name}", [text[:2] for text in told if text[:2] not in ("0{", "2", "44", "1", "")], [])


def fixtures(me):
    """What the events speak of: a task of nobody's, and a memory of another agent's."""
    task = operator.call("task:create", {"task_type": "walk"})["task"]["id"]
    memory = operator.call("memory:store", {**MEMORY, "key": f"of {task}", "agent_id": "somebody"})
    return {"me": me, "task": task, "memory": memory["memory_id"]}


def walk(caller, token):
    me = f"walk-{caller}-{token}".replace(" ", "-")
    client = Client(king, tokens[token])
    if caller in REGISTERS:
        client.call("agent:register", {"agent_id": me, "role": REGISTERS[caller], "capabilities": [], "protocol": 2})
    given = fixtures(me)
    silent = []
    for event in IGNORED:
        client.sio.emit(event, {"agent_id": me}, callback=lambda *answer, event=event: silent.append((event, answer)))
    for event, payload, wanted in TABLE:
        found = verdict(client.call(event, payload(given)))
        equal(f"{event} {payload(given)} of {caller} with the token {token!r}", found, wanted[caller])
    equal(f"answers to what only king says, to {caller}", silent, [])
    # A refusal has changed nothing.
    if caller != "operator":
        task = operator.call("task:get", {"task_id": given["task"]})["task"]
        equal(f"the task after {caller}", (task["status"], task["agent_id"]), ("pending", ""))
        memories = operator.call("memory:query", {"query": "walked", "agent_id": "somebody", "limit": 100})["memories"]
        memory = next(found for found in memories if found["id"] == given["memory"])
        equal(f"the memory after {caller}", memory["tags"], [])
    client.close()


def roles(token):
    """Which roles a token may take. A connection speaks for one agent, whatever its role."""
    me = f"roles-{token}".replace(" ", "-")
    client = Client(king, tokens[token])
    for role in KERNEL + USER:
        asked = {"agent_id": me, "role": role, "capabilities": []}
        found = verdict(client.call("agent:register", asked))
        equal(f"{role} with the token {token!r}", found, "ok" if role in ROLES[token] else NO)
    found = verdict(client.call("agent:register", {"agent_id": me, "role": "update", "capabilities": []}))
    equal("a role that is none", found, "invalid_field")
    if ROLES[token]:
        asked = {"agent_id": f"{me}-2", "role": ROLES[token][-1], "capabilities": []}
        equal("a second agent", verdict(client.call("agent:register", asked)), "already_registered")
        status = {"agent_id": f"{me}-2", "status": "alive"}
        equal("its heartbeat", verdict(client.call("agent:status", status)), "not_your_agent")
    client.close()


def names():
    """An agent's name is its token's, as far as created tokens are concerned."""
    asked = {"agent_id": "named", "role": "building", "capabilities": []}
    for token, wanted in [("runner", "ok"), ("made building", NO), ("runner", "ok")]:
        client = Client(king, tokens[token])
        equal(f"the name with {token!r}", verdict(client.call("agent:register", asked)), wanted)
        client.close()


def malformed():
    """Whatever is sent is answered, with the field that is wrong."""
    for event in setup["taken"]:
        wanted = "ok" if event in NO_PAYLOAD else "invalid_payload"
        equal(f"{event} without a payload", verdict(operator.call(event)), wanted)
        wanted = "ok" if event in NO_PAYLOAD else "invalid_field"
        equal(f"{event} with a number", verdict(operator.call(event, 5)), wanted)
        equal(f"{event} with a text", verdict(operator.call(event, "no JSON")), wanted)
    task = operator.call("task:create", json.dumps({"task_type": "walk", "payload": '{"a": 1}'}))
    equal("a payload as a text", task["task"]["payload"], {"a": 1})


def revoked_while_connected():
    """A connection ends with its token."""
    gone = threading.Event()
    client = Client(king, tokens["made viewer"])
    client.sio.on("disconnect", lambda *_: gone.set())
    listed = requests.get(f"{king}/tokens", headers=head, timeout=WAIT).json()["tokens"]
    token_id = next(token["token_id"] for token in listed if token["name"] == "made viewer")
    answer = requests.delete(f"{king}/tokens/{token_id}", headers=head, timeout=WAIT)
    assert answer.ok, answer.text
    assert gone.wait(WAIT), "the connection of a revoked token stays open"


def tasks():
    listed = operator.call("task:list", {"limit": 500})["tasks"]
    return sorted({task["task_type"] for task in listed})


head = {"authorization": f"Bearer {tokens['operator']}"}
complete()
operator = Client(king, tokens["operator"])
for stranger in STRANGERS:
    refused_at_connect(stranger)
equal("tasks of strangers", tasks(), [])
for kind, names_of_tokens in CALLERS.items():
    for token in names_of_tokens:
        walk(kind, token)
for token in ROLES:
    roles(token)
names()
malformed()
revoked_while_connected()
equal("kinds of tasks", tasks(), ["walk"])
operator.close()
print("all is well", flush=True)
