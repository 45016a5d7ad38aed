"""Follows stage results, from the beginning of the event log on.

Usage: observer.py KING TOKEN
"""

import json
import sys

import socketio

king, token = sys.argv[1:]
client = socketio.Client()


@client.on("pipeline:stage_result")
def stage_result(payload):
    print("result", json.dumps(payload), flush=True)


client.connect(king, auth={"token": token})
client.emit("observer:subscribe", {"after_seq": 0})
client.wait()
