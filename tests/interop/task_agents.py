"""A dashboard makes tasks; a user agent joins, streams, and reports; an evaluation agent says how it
went. Over polling and over websocket, with acknowledgements and without.

Usage: task_agents.py KING OPERATOR_TOKEN RUNNER_TOKEN USER_TOKEN
"""

import sys

from client import Client, Http, done, equal, register

king, operator_token, runner_token, user_token = sys.argv[1:]
http = Http(king, operator_token)
PIECES = ["The pond ", "has a heron: ", "苍鹭."]


class Worker(Client):
    """A user agent that does every task in the same way."""

    def __init__(self, name, transport, acks):
        super().__init__(king, user_token, transport)
        self.name, self.acks, self.invited = name, acks, []
        self.answers("task:invite", self.work)
        register(self, name, "user", acks, protocol=2, session_id="s", capacity=2)

    def work(self, task):
        self.invited.append(task)
        mine = {"task_id": task["task_id"], "attempt": task["attempt"]}
        self.say("task:join", {**mine, "agent_id": self.name}, self.acks)
        if not self.acks:
            # Without acknowledgements nothing says in which order two messages are handled.
            self.call("king:system_info", {})
        # The order in which pieces come does not matter, the place in them does.
        for place in [1, 0, 2]:
            piece = {"task_id": task["task_id"], "request_id": "r", "source": "llm", "delta": PIECES[place], "chunk_index": place}
            self.say("task:output", {**piece, "is_final": place == 2}, self.acks)
        line = {"id": 0, "level": "info", "message": "looked twice", "created_at": "2026-01-01T00:00:00Z"}
        self.say("task:log", {"task_id": task["task_id"], "log": line}, self.acks)
        payload = {"result": {"birds": 1, "about": task["payload"]}, "tool_calls": []}
        report = {**mine, "status": "completed", "payload": payload, "req_id": f"end of {task['task_id']}", "steps": 1}
        self.say("task:update", report, self.acks)


class Evaluator(Client):
    """An evaluation agent that likes everything."""

    def __init__(self, name, transport, acks):
        super().__init__(king, runner_token, transport)
        self.name, self.acks, self.asked = name, acks, []
        self.answers("task:evaluate", self.look)
        self.say("agent:register", {"agent_id": name, "role": "evaluation", "capabilities": ["evaluate"], "protocol": 2}, acks)
        self.wait("king:system_info")

    def look(self, task):
        self.asked.append(task)
        summary = {"task_id": task["task_id"], "agent_id": self.name, "summary": "It saw the heron.", "score": 0.9}
        told = {**summary, "tags": ["birds"], "evaluation": {"seen": True}, "request_id": task["request_id"]}
        self.say("task:summary", told, self.acks)


def carry(transport, acks):
    what = f"{transport}-{'acks' if acks else 'plain'}"
    dashboard = Client(king, operator_token, transport)
    dashboard.say("dashboard:subscribe", {}, True)
    worker, evaluator = Worker(f"worker-{what}", transport, acks), Evaluator(f"evaluator-{what}", transport, acks)
    wanted = {"task_type": "user", "summary": what, "payload": {"where": "pond"}}
    if acks:
        task_id = dashboard.call("task:create", wanted)["task"]["id"]
    else:
        dashboard.emit("task:create", wanted)
        told = dashboard.wait("dashboard:event", lambda told: told["event"] == "task:created")
        task_id = told["data"]["task"]["id"]
    dashboard.say("task:join", {"task_id": task_id, "agent_id": ""}, acks)

    def of_task(told):
        return told.get("task_id") == task_id

    dashboard.wait("task:changed", lambda told: of_task(told) and told["action"] == "evaluated")
    # What people see while it goes on: created, the pieces, lines of the log, the end.
    for place, piece in enumerate(PIECES):
        seen = dashboard.wait("task:output", lambda told: of_task(told) and told["chunk_index"] == place)
        equal("a piece", (seen["delta"], seen["source"], seen["is_final"]), (piece, "llm", place == 2))
    dashboard.wait("task:log", lambda told: of_task(told) and told["log"]["message"] == "looked twice")
    dashboard.wait("task:changed", lambda told: of_task(told) and told["action"] == "created")
    if not acks:
        reply = worker.wait("king:reply", lambda reply: reply["req_id"] == f"end of {task_id}")
        equal("the answer to the report", reply["status"], "accepted")

    # The same over HTTP.
    result = http.get(f"/tasks/{task_id}/result")
    equal("the result", (result["status"], result["ended"]), ("evaluated", True))
    equal("what came out", result["result"], {"birds": 1, "about": {"where": "pond"}})
    verdict = result["evaluation"]
    equal("how it went", (verdict["agent_id"], verdict["summary"], verdict["score"]), (evaluator.name, "It saw the heron.", 0.9))
    task = http.get(f"/tasks/{task_id}")
    equal("the task", (task["agent_id"], task["status"], task["summary"]), (worker.name, "evaluated", what))
    equal("its output", task["output"], "".join(PIECES))
    lines = [line["message"] for line in http.get(f"/task/{task_id}/logs")["logs"]]
    assert "looked twice" in lines, lines
    memories = http.get(f"/task/{task_id}/memories")["memories"]
    equal("what is remembered", [memory["key"] for memory in memories], [f"task:{task_id}"])
    # Each was asked once, with what it needs.
    equal("invitations", [(told["task_id"], told["attempt"]) for told in worker.invited], [(task_id, 1)])
    asked = [(told["task_id"], told["task_type"]) for told in evaluator.asked]
    equal("questions", asked, [(task_id, "user")])
    assert "birds" in evaluator.asked[0]["output_summary"], evaluator.asked
    for client, name in [(worker, worker.name), (evaluator, evaluator.name)]:
        client.call("agent:status", {"agent_id": name, "status": "shutting", "metrics": {}})
        client.close()
    equal("it is gone", dashboard.call("task:delete", {"task_id": task_id})["deleted_count"], 1)
    dashboard.wait("task:changed", lambda told: of_task(told) and told["action"] == "deleted")
    dashboard.close()


for transport in ["websocket", "polling"]:
    for acks in [True, False]:
        carry(transport, acks)
done()
