"""Every route of the original's HTTP API, with the keys that its clients read, and every event that
its dashboards, agents and runners hear.

Usage: surface.py KING OPERATOR_TOKEN RUNNER_TOKEN
"""

import sys

from client import Client, Http, done, equal, register

king, operator_token, runner_token = sys.argv[1:]
http = Http(king, operator_token)

AGENT = (
    "agent_id role status last_heartbeat capabilities skills pid preferred_model reasoning_effort soul_content "
    "binary_path version first_registered_at registration_count crash_count socket_id"
)
STAGE = "id run_id stage artifact_id status agent_id result error created_at updated_at"
TASK = "id task_type status agent_id run_id current_stage summary parent_id payload created_at updated_at"
MEMORY = "id scope category key metadata tags agent_id run_id skill_id relevance_score access_count created_at updated_at"
TIER = "tier content"
MACHINE = "discovered_at king_version system tools evo_components checklist"

missing = []


def need(what, body, shape):
    """Notes keys that are not there. `{field: shape}` looks deeper, `[shape]` into each entry of a
    list, of which there must be one."""
    if isinstance(shape, str):
        absent = [key for key in shape.split() if not isinstance(body, dict) or key not in body]
        if absent:
            missing.append(f"{what} lacks {absent}: {str(body)[:300]}")
    elif isinstance(shape, list):
        if not isinstance(body, list) or not body:
            missing.append(f"{what} is not a list with something in it: {str(body)[:300]}")
        else:
            need(f"{what}[0]", body[0], shape[0])
    else:
        need(what, body, " ".join(shape))
        for key, inner in shape.items():
            if isinstance(body, dict) and key in body and inner is not None:
                need(f"{what}.{key}", body[key], inner)


def row(method, path, shape, body=None, status=200):
    """One row of the table: this request is answered so, with these keys."""
    found, answer = http.send(method, path, body)
    if found != status:
        missing.append(f"{method} {path}: {found}, not {status}: {str(answer)[:300]}")
    need(f"{method} {path}", answer, shape)
    return answer


def agents(walker):
    equal("health", {key: http.get("/health").get(key) for key in ["status", "service"]}, {"status": "ok", "service": "evo-king"})
    row("GET", "/agents", {"agents": [AGENT], "count": None})
    row("PUT", f"/agents/{walker}/model", "success agent_id model reasoning_effort", {"model": "openai:m", "reasoning_effort": "high"})
    row("GET", f"/agents/{walker}/model", "agent_id model")
    history = "id agent_id prev_status new_status trigger detail pid created_at"
    row("GET", f"/agents/{walker}/history?limit=5&offset=0", {"history": [history], "count": None, "limit": None, "offset": None})
    row("GET", f"/agents/{walker}/detail", {"agent": AGENT, "recent_history": [history]})


def gateway():
    row("GET", "/gateway/models", "data")
    row("POST", "/gateway/models/refresh", "data", {})
    config = row("GET", "/gateway/config", "server providers")
    row("PUT", "/gateway/config", "success", config)
    entry = "id config_hash action backup_path timestamp"
    http.until("/config-history", lambda body: body["count"] > 0)
    row("GET", "/config-history", {"history": [entry], "count": None})


def pipeline():
    run_id = row("POST", "/pipeline/start", "success run_id", {"trigger": "manual"}, status=201)["run_id"]
    row("GET", "/pipeline/runs", {"runs": [STAGE], "count": None})
    http.until(f"/pipeline/runs/{run_id}", lambda run: run["stages"])
    row("GET", f"/pipeline/runs/{run_id}", {"run_id": None, "stages": [STAGE], "count": None})
    row("GET", "/task/current", {"task": TASK})
    return run_id


def tasks():
    # The original's dashboard sends the payload as a text.
    made = row("POST", "/tasks", {"success": None, "task": TASK}, {"task_type": "walk", "summary": "a and then b", "payload": '{"a": 1}'}, status=201)
    task = made["task"]["id"]
    equal("the payload", made["task"]["payload"], {"a": 1})
    row("GET", "/tasks?status=pending&agent_id=&parent_id=&limit=50", {"tasks": [TASK], "count": None})
    line = "id task_id level message detail agent_id stage created_at"
    row("GET", f"/task/{task}/logs?limit=100&offset=0", {"logs": [line], "count": None})
    row("POST", "/tasks", "success", {"task_type": "walk", "summary": "a", "parent_id": task}, status=201)
    row("GET", f"/task/{task}/subtasks", {"subtasks": [TASK], "count": None, "progress": "total completed"})
    return task


def memories(task):
    wanted = {"scope": "system", "category": "fact", "key": "pond", "tags": ["birds"], "tiers": [{"tier": "l0", "content": "a heron"}]}
    made = row("POST", "/memories", {"success": None, "memory": MEMORY}, wanted, status=201)
    memory = made["memory"]["id"]
    row("POST", f"/task/{task}/memories", "success", {"memory_id": memory})
    row("GET", f"/task/{task}/memories", {"memories": [MEMORY], "count": None})
    row("GET", "/memories?scope=system&category=fact&agent_id=&run_id=&skill_id=&tag=birds&limit=50", {"memories": [MEMORY], "count": None})
    row("POST", "/memories/search", {"memories": [MEMORY], "count": None}, {"query": "heron", "limit": 20})
    row("GET", "/memories/stats", {"stats": "system"})
    row("GET", f"/memories/{memory}", {"memory": f"{MEMORY} tiers task_ids"})
    row("PUT", f"/memories/{memory}", "success", {"metadata": {"a": 1}, "tags": ["x"], "relevance_score": 0.7, "tiers": [{"tier": "l1", "content": "more"}]})
    row("GET", f"/memories/{memory}/tiers", {"tiers": [TIER]})
    row("POST", f"/memories/{memory}/tiers", "success", {"tier": "l2", "content": "all"})
    row("GET", f"/memories/{memory}/tiers/l2", {"tier": TIER})
    row("DELETE", f"/memories/{memory}/tiers/l2", "success")
    row("GET", f"/memories/{memory}/tasks", {"task_ids": None, "count": None})
    row("DELETE", f"/memories/{memory}", "success")
    row("POST", f"/tasks/{task}/decompose", "success", {})
    row("DELETE", f"/tasks/{task}", "success deleted_count")


def traces():
    span = {"traceId": "1" * 32, "spanId": "2" * 16, "name": "walk", "startTimeUnixNano": "1700000000000000000", "endTimeUnixNano": "1700000001000000000"}
    row("POST", "/v1/traces", "", {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]})
    row("GET", "/traces?min_duration_ms=1&limit=50&offset=0", {"traces": ["trace_id root_span_name span_count"], "count": None})
    row("GET", f"/traces/{'1' * 32}", {"trace": "trace_id", "spans": ["span_id parent_span_id name"]})


def operations():
    row("POST", "/debug/prompt", "success request_id task_id", {"agent_role": "user:walker", "prompt": "how many?", "model": "m"})
    row("POST", "/debug/bash", "success request_id task_id", {"command": "hello", "request_id": "mine"})
    row("POST", "/admin/config-sync", "success", {})
    row("GET", "/admin/crons", {"crons": ["name schedule enabled last_run"], "count": None})
    row("POST", "/admin/crons/gateway_health_check/run", "success cron", {})
    row("GET", "/system-info", MACHINE)
    row("POST", "/system-info/refresh", MACHINE, {})
    entry = "id event_name direction agent_id payload timestamp"
    http.until("/logs/events", lambda body: body["count"] > 0)
    row("GET", "/logs/events?limit=100&offset=0", {"events": [entry], "count": None, "limit": None, "offset": None})
    row("GET", "/logs/system?lines=100&component=king", "lines")


# What is heard, by whom, with which keys. `dashboard:event` has its event's name behind a slash.
HEARD = {
    "dashboard": {
        "dashboard:event/agent:register": "agent_id role capabilities",
        "dashboard:event/agent:status": "agent_id status",
        "dashboard:event/pipeline:next": "run_id stage artifact_id",
        "dashboard:event/pipeline:stage_result": "run_id stage agent_id status artifact_id output error",
        "dashboard:event/debug:stream": "request_id delta chunk_index",
        "dashboard:event/debug:response": "request_id agent_id role model response latency_ms task_id",
        "dashboard:event/memory:changed": "action memory_id",
        "dashboard:event/task:created": {"task": TASK},
        "dashboard:event/task:changed": "action task_id",
        "task:changed": {"action": None, "task": TASK},
        "task:log": {"task_id": None, "log": "id level message detail agent_id stage created_at"},
        "king:config_update": "config_type new_config_hash config_hash",
        "king:system_info": MACHINE,
    },
    "agent": {
        "king:system_info": MACHINE,
        "king:config_update": "config_type new_config_hash config_hash",
        "debug:prompt": "request_id task_id model prompt provider temperature max_tokens",
    },
    "kernel": {
        "king:system_info": MACHINE,
        "king:config_update": "config_type new_config_hash config_hash",
        "task:invite": "task_id task_type payload",
        "task:changed": "action",
        "memory:changed": "action memory_id",
    },
}


def listen(who, client):
    """Notes what this client should have heard and has not, and keys that were missing."""
    for name, shape in HEARD[who].items():
        event, _, inner = name.partition("/")
        fits = (lambda told: told["event"] == inner) if inner else complete_task if name == "task:changed" else (lambda told: True)
        try:
            told = client.wait(event, fits)
        except AssertionError:
            missing.append(f"{who} did not hear {name}")
            continue
        need(f"{who} hears {name}", told["data"] if inner else told, shape)


def complete_task(told):
    return told["action"] != "deleted"


dashboard = Client(king, operator_token)
dashboard.call("dashboard:subscribe", {})
kernel = Client(king, runner_token)
# A runner that takes no work: the others of this system do it.
register(kernel, "walk-kernel", "pre-load")
kernel.call("agent:status", {"agent_id": "walk-kernel", "status": "starting", "metrics": {}})
agent = Client(king, runner_token)


def answer(asked):
    agent.call("debug:stream", {"request_id": asked["request_id"], "delta": "two", "chunk_index": 0})
    said = {"request_id": asked["request_id"], "agent_id": "walker", "role": "user", "model": asked["model"], "response": "two", "latency_ms": 1}
    agent.call("debug:response", said)


agent.answers("debug:prompt", answer)
register(agent, "walker", "user:walker")
agent.call("agent:status", {"agent_id": "walker", "status": "alive", "metrics": {}})
agents("walker")
gateway()
pipeline()
memories(tasks())
traces()
operations()
listen("dashboard", dashboard)
listen("agent", agent)
listen("kernel", kernel)
assert not missing, "\n".join(["not as in the original:", *missing])
done()
