"""Five runners, one per stage, carry direct runs to their end: over polling and over websocket, with
acknowledgements and without, and as runners of the original, which know no attempts.

Usage: stage_runners.py KING OPERATOR_TOKEN RUNNER_TOKEN
"""

import sys

from client import Client, Http, done, equal, register

king, operator_token, runner_token = sys.argv[1:]
http = Http(king, operator_token)
STAGES = ["learning", "building", "pre_load", "evaluation", "skill_manage"]


class Runner(Client):
    """The runner of one stage. What it did is in `worked`."""

    def __init__(self, stage, transport, acks, legacy):
        super().__init__(king, runner_token, transport)
        self.stage, self.acks, self.legacy = stage, acks, legacy
        self.agent_id = f"{stage}-{transport}-{'acks' if acks else 'plain'}{'-legacy' if legacy else ''}"
        self.worked = []
        self.answers("pipeline:next", self.work)
        # Runners of the original write `pre-load`.
        role = stage.replace("_", "-") if legacy else stage
        more = {} if legacy else {"protocol": 2, "session_id": "s", "capacity": 4, "in_hand": []}
        register(self, self.agent_id, role, acks, **more)

    def work(self, told):
        equal("the stage that was given out", told["stage"], self.stage)
        self.worked.append(told)
        attempt = {} if self.legacy else {"attempt": told["attempt"]}
        mine = {"agent_id": self.agent_id, "run_id": told["run_id"], "stage": self.stage, **attempt}
        if not self.legacy:
            self.say("pipeline:accepted", mine, self.acks)
        result = {
            **mine,
            "status": "completed",
            "artifact_id": f"package of {self.stage}",
            "output": {f"{self.stage}_said": told["artifact_id"]},
            "error": None,
        }
        self.say("pipeline:stage_result", result, self.acks)

    def close(self):
        self.call("agent:status", {"agent_id": self.agent_id, "status": "shutting", "metrics": {}})
        super().close()


def carry(transport, acks, legacy):
    what = f"{transport}, acks: {acks}, legacy: {legacy}"
    runners = [Runner(stage, transport, acks, legacy) for stage in STAGES]
    started = http.post("/pipeline/start", {"kind": "direct", "trigger": {"about": what}})
    run_id = started["run_id"]
    run = http.until(f"/pipeline/runs/{run_id}", lambda run: run["status"] != "running")
    equal(f"the end of the run ({what})", (run["status"], run["run_id"]), ("completed", run_id))
    equal("its stages", [stage["stage"] for stage in run["stages"]], STAGES)
    earlier = ""
    for place, (runner, stage) in enumerate(zip(runners, run["stages"])):
        equal("who did it", (stage["agent_id"], stage["status"]), (runner.agent_id, "completed"))
        equal("what it said", stage["result"], {f"{runner.stage}_said": earlier})
        equal("how often it was asked", [told["run_id"] for told in runner.worked], [run_id])
        told = runner.worked[0]
        equal("the package that it was told of", told["artifact_id"], earlier)
        # A stage knows the trigger and what every stage before it has said.
        if legacy:
            said = {f"{before}_said" for before in STAGES[:place]}
            equal("what it was told", set(told["metadata"]), {"about", *said})
        else:
            equal("what it was told", set(told["metadata"]["outputs"]), set(STAGES[:place]))
            equal("the trigger", told["metadata"]["trigger"], {"about": what})
        earlier = f"package of {runner.stage}"
    equal("the package of the run", run["artifact_id"], earlier)
    for runner in runners:
        runner.close()


for transport in ["websocket", "polling"]:
    for acks in [True, False]:
        carry(transport, acks, legacy=False)
    carry(transport, False, legacy=True)
done()
