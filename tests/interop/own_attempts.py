"""An agent answers only for itself, and only for what was given to it.

Two runners of every kind; whichever gets the work is its owner, the other one is the intruder and
tries everything with it before the owner answers.

Usage: own_attempts.py KING OPERATOR_TOKEN RUNNER_TOKEN
"""

import sys
import threading

from client import Client, Http, WAIT, done, equal, register, verdict

king, operator_token, runner_token = sys.argv[1:]
http = Http(king, operator_token)


class Agent(Client):
    """An agent that only takes in what it is told."""

    def __init__(self, agent_id, role, *capabilities):
        super().__init__(king, runner_token)
        self.agent_id = agent_id
        asked = {"agent_id": agent_id, "role": role, "capabilities": list(capabilities), "protocol": 2}
        equal(agent_id, verdict(self.call("agent:register", asked)), "ok")

    def refused(self, event, payload, code):
        """What this agent may not say."""
        equal(f"{self.agent_id}: {event} {payload}", verdict(self.call(event, payload)), code)

    def accepted(self, event, payload):
        """What it may."""
        self.refused(event, payload, "ok")


def has(what, told, keys):
    """Fails when a key of the published message is not there."""
    absent = [key for key in keys.split() if key not in told]
    equal(f"keys that {what} lacks", absent, [])


def owner_of(pair, event, fits=lambda told: True):
    """Who of two was given something, who was not, and what it is."""
    found, came = [], threading.Event()

    def look(agent):
        try:
            found.append((agent, agent.wait(event, fits)))
            came.set()
        except AssertionError:
            pass

    for agent in pair:
        threading.Thread(target=look, args=[agent], daemon=True).start()
    assert came.wait(WAIT), f"nobody was given {event}"
    owner, told = found[0]
    intruder = next(agent for agent in pair if agent is not owner)
    return owner, intruder, told


def stages():
    pair = [Agent(f"learning-{place}", "learning") for place in "ab"]
    run_id = http.post("/pipeline/start", {"kind": "direct", "trigger": {}})["run_id"]
    owner, intruder, told = owner_of(pair, "pipeline:next")
    attempt = {"run_id": run_id, "stage": "learning", "attempt": told["attempt"]}
    result = {**attempt, "status": "completed", "artifact_id": "", "output": {"who": "intruder"}, "error": None}
    for name, code in [(intruder.agent_id, "not_your_attempt"), (owner.agent_id, "not_your_agent")]:
        intruder.refused("pipeline:stage_result", {**result, "agent_id": name}, code)
        confirms = "stale_attempt" if code == "not_your_attempt" else code
        intruder.refused("pipeline:accepted", {**attempt, "agent_id": name}, confirms)
    without = {key: value for key, value in result.items() if key != "attempt"}
    intruder.refused("pipeline:stage_result", {**without, "agent_id": intruder.agent_id}, "stale_attempt")
    for event in ["agent:status", "agent:health", "agent:skill_report", "agent:command_result"]:
        said = {"status": "error", "health_checks": [], "skill_id": "s", "result": "success", "score": 1, "req_id": "x"}
        intruder.refused(event, {**said, "agent_id": owner.agent_id}, "not_your_agent")
    equal("the owner is", http.get(f"/agents/{owner.agent_id}")["status"], "ready")
    mine = {**result, "agent_id": owner.agent_id, "output": {"who": "owner"}}
    owner.refused("pipeline:stage_result", {**mine, "attempt": 2}, "stale_attempt")
    owner.refused("pipeline:stage_result", {**mine, "stage": "building"}, "stale_attempt")
    owner.accepted("pipeline:accepted", {**attempt, "agent_id": owner.agent_id})
    owner.accepted("pipeline:stage_result", mine)
    equal("once more", owner.call("pipeline:stage_result", mine)["status"], "duplicate")
    owner.refused("pipeline:stage_result", {**mine, "output": {}}, "already_answered")
    intruder.refused("pipeline:stage_result", {**result, "agent_id": intruder.agent_id}, "already_answered")
    run = http.get(f"/pipeline/runs/{run_id}")
    equal("what king has", run["stages"][0]["result"], {"who": "owner"})
    recovery(run_id)
    for agent in pair:
        agent.close()


def recovery(run_id):
    """The second stage of the run fails; only who is asked how to go on may say it."""
    pair = [Agent(f"advisor-{place}", "evaluation", "recovery") for place in "ab"]
    builder = Agent("builder", "building")
    told = builder.wait("pipeline:next")
    failed = {"run_id": run_id, "stage": "building", "attempt": told["attempt"], "agent_id": "builder", "artifact_id": ""}
    builder.accepted("pipeline:stage_result", {**failed, "status": "failed", "output": None, "error": "no clay"})
    owner, intruder, asked = owner_of(pair, "error:recovery_request")
    equal("what failed", (asked["failed_stage"], asked["error_message"]), ("building", "no clay"))
    has("the question", asked, "request_id run_id task_id failed_stage error_message stage_output retry_count task_summary")
    advice = {key: asked[key] for key in ["request_id", "run_id", "task_id"]}
    advice |= {"action": "abort", "params": {}, "reasoning": "there is no clay"}
    intruder.refused("error:recovery_response", advice, "not_asked")
    builder.refused("error:recovery_response", advice, "not_asked")
    owner.refused("error:recovery_response", {**advice, "request_id": "another"}, "unknown_request")
    owner.accepted("error:recovery_response", advice)
    equal("once more", owner.call("error:recovery_response", advice)["status"], "duplicate")
    run = http.until(f"/pipeline/runs/{run_id}", lambda run: run["status"] != "running")
    equal("the end", run["status"], "failed")
    for agent in [*pair, builder]:
        agent.close()


def tasks():
    pair = [Agent(f"user-{place}", "user") for place in "ab"]
    pair_of_judges = [Agent(f"judge-{place}", "evaluation", "evaluate", "decompose") for place in "ab"]
    task_id = http.post("/tasks", {"task_type": "user", "summary": "count birds"})["task"]["id"]
    owner, intruder, told = owner_of(pair, "task:invite")
    mine = {"task_id": task_id, "attempt": told["attempt"]}
    ended = {**mine, "status": "completed", "payload": {"result": "forged"}, "req_id": "x"}
    piece = {"task_id": task_id, "request_id": "r", "delta": "forged", "chunk_index": 0}
    line = {"id": 0, "level": "info", "message": "forged", "created_at": "2026-01-01T00:00:00Z"}
    intruder.refused("task:join", {**mine, "agent_id": intruder.agent_id}, "not_your_attempt")
    intruder.refused("task:join", {**mine, "agent_id": owner.agent_id}, "not_your_attempt")
    intruder.refused("task:output", piece, "not_your_task")
    intruder.refused("task:log", {"task_id": task_id, "log": line}, "not_your_task")
    intruder.refused("task:update", ended, "not_your_attempt")
    intruder.refused("task:update", {"task_id": task_id, "status": "failed"}, "not_your_task")
    intruder.refused("task:update", {"task_id": task_id, "agent_id": intruder.agent_id}, "not_your_task")
    intruder.refused("task:delete", {"task_id": task_id}, "forbidden")
    owner.accepted("task:join", {**mine, "agent_id": owner.agent_id})
    owner.refused("task:update", {**ended, "attempt": 2}, "stale_attempt")
    owner.accepted("task:output", {**piece, "delta": "two herons"})
    owner.accepted("task:update", {**ended, "payload": {"result": 2}})
    owner.refused("task:update", {**ended, "payload": {"result": 3}}, "stale_attempt")

    judge, other, asked = owner_of(pair_of_judges, "task:evaluate")
    has("task:evaluate", asked, "task_id task_type output_summary exit_code latency_ms metadata request_id")
    summary = {"task_id": task_id, "agent_id": judge.agent_id, "summary": "well", "request_id": asked["request_id"]}
    for agent in [other, intruder, owner]:
        agent.refused("task:summary", summary, "not_asked")
    judge.refused("task:summary", {**summary, "request_id": "another"}, "not_asked")
    judge.accepted("task:summary", summary)
    judge.refused("task:summary", summary, "not_asked")
    task = http.get(f"/tasks/{task_id}")
    equal("the task", (task["status"], task["agent_id"], task["result"], task["output"]), ("evaluated", owner.agent_id, 2, "two herons"))

    whole = http.post("/tasks", {"task_type": "walk", "summary": "a and then b"})["task"]["id"]
    request_id = http.post(f"/tasks/{whole}/decompose", None)["request_id"]
    judge, other, asked = owner_of(pair_of_judges, "task:decompose", lambda told: told["task_id"] == whole)
    equal("the question", asked["request_id"], request_id)
    has("task:decompose", asked, "request_id run_id task_id task_type summary payload context trigger")
    parts = {"request_id": request_id, "task_id": whole, "should_decompose": True, "subtasks": [{"task_type": "walk", "summary": "a"}]}
    other.refused("task:decompose_result", parts, "not_asked")
    owner.refused("task:decompose_result", parts, "not_asked")
    judge.refused("task:decompose_result", {**parts, "request_id": "another"}, "not_asked")
    judge.accepted("task:decompose_result", parts)
    equal("its parts", http.get(f"/task/{whole}/subtasks")["count"], 1)

    asked = http.post("/debug/prompt", {"agent_role": "user", "prompt": "how many?", "model": "m"})
    owner, intruder, told = owner_of(pair, "debug:prompt")
    equal("the prompt", told["request_id"], asked["request_id"])
    piece = {"request_id": told["request_id"], "delta": "2", "chunk_index": 0}
    answer = {"request_id": told["request_id"], "model": "m", "response": "2"}
    intruder.refused("debug:stream", piece, "not_asked")
    intruder.refused("debug:response", {**answer, "agent_id": intruder.agent_id}, "not_asked")
    intruder.refused("debug:response", {**answer, "agent_id": owner.agent_id}, "not_your_agent")
    owner.accepted("debug:stream", piece)
    owner.accepted("debug:response", {**answer, "agent_id": owner.agent_id})
    owner.refused("debug:response", {**answer, "agent_id": owner.agent_id}, "not_asked")
    for agent in [*pair, *pair_of_judges]:
        agent.close()


def displaced():
    """Who registers on a newer connection speaks for the agent from then on, and nobody else."""
    old = Agent("moved", "user")
    new = Agent("moved", "user")
    old.refused("agent:status", {"agent_id": "moved", "status": "error", "metrics": {}}, "not_your_agent")
    old.refused("task:output", {"task_id": "t", "request_id": "r", "delta": "", "chunk_index": 0}, "displaced")
    new.accepted("agent:status", {"agent_id": "moved", "status": "busy", "metrics": {}})
    old.close()
    new.accepted("agent:status", {"agent_id": "moved", "status": "ready", "metrics": {}})
    equal("the agent", http.get("/agents/moved")["status"], "ready")
    new.close()
    http.until("/agents/moved", lambda agent: agent["status"] == "offline")


stages()
tasks()
displaced()
done()
