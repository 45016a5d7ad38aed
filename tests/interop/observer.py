"""Follows stage results, from the beginning of the event log on.

Usage: observer.py KING TOKEN
"""

import json
import sys
import threading

import socketio

king, token = sys.argv[1:]
client = socketio.Client()
# The client handles each message on a thread of its own.
printing = threading.Lock()


@client.on("pipeline:stage_result")
def stage_result(payload):
    line = json.dumps(payload)
    with printing:
        print(f"result {line}", flush=True)


client.connect(king, auth={"token": token})
client.emit("observer:subscribe", {"after_seq": 0})
client.wait()
