"""A runner as the original Evo had them: no protocol number, no attempts, plain heartbeats.

Usage: legacy_runner.py KING TOKEN
"""

import sys

import socketio

king, token = sys.argv[1:]
client = socketio.Client()


@client.on("king:system_info")
def system_info(payload):
    print("system_info", payload["king_version"], flush=True)
    client.emit("agent:status", {"agent_id": "legacy-1", "status": "alive", "metrics": {}})


@client.on("king:welcome")
def welcome(_payload):
    # Runners of the original never heard of this event and register on connect; a welcome only
    # tells that king listens now.
    register()


def register():
    client.emit(
        "agent:register",
        {"agent_id": "legacy-1", "role": "user", "capabilities": ["dance"], "skills": ["waltz"]},
    )


client.connect(king, auth={"token": token})
register()
client.wait()
