"""Runs a command in a session of the gateway and talks to it.

Usage: sessions_client.py GATEWAY TOKEN
"""

import sys
import threading

import socketio

gateway, token = sys.argv[1:]


def refused(auth):
    client = socketio.Client(reconnection=False)
    try:
        client.connect(gateway, auth=auth, wait_timeout=10)
    except socketio.exceptions.ConnectionError as error:
        return str(error)
    client.disconnect()
    raise SystemExit(f"let in with {auth}")


for wrong in [None, {}, {"token": "evo_op_wrong"}]:
    refused(wrong)
print("strangers are kept out", flush=True)

client = socketio.Client(reconnection=False)
lines, statuses, heard = [], [], threading.Condition()


@client.on("session:output")
def output(payload):
    with heard:
        lines.append(payload)
        heard.notify_all()


@client.on("session:status")
def status(payload):
    with heard:
        statuses.append(payload["status"])
        heard.notify_all()


def until(what, probe):
    with heard:
        if not heard.wait_for(probe, timeout=30):
            raise SystemExit(f"{what} did not come: {lines} {statuses}")


def said(text):
    until(text, lambda: any(text in line["line"] for line in lines))


def call(event, payload):
    return client.call(event, payload, timeout=20)


client.connect(gateway, auth={"token": token}, wait_timeout=10)

refusal = call("session:create", {"command": "/bin/sh"})
assert refusal["success"] is False and refusal["code"] == "unknown_command", refusal
assert "error" in refusal, refusal
refusal = call("session:create", {"command": "cat", "env": {"LD_PRELOAD": "x"}})
assert refusal["code"] == "invalid_request", refusal

created = call("session:create", {"provider": "cat", "cols": 60})
assert created["status"] == "running", created
session = created["session_id"]
said("ready 24 60")
call("session:input", {"session_id": session, "input": "hello from python\n"})
said("got hello from python")
captured = call("session:capture", {"session_id": session})
assert "got hello from python" in captured["content"], captured
listed = call("session:list", {})
assert [it["session_id"] for it in listed["sessions"]] == [session], listed
assert call("session:subscribe", {"session_id": session})["success"] is True
call("session:keys", {"session_id": session, "keys": ["C-d"]})
until("the end", lambda: "exited" in statuses)
assert any(line["is_final"] for line in lines), lines

second = call("session:create", {"command": "cat"})["session_id"]
assert call("session:kill", {"session_id": second})["success"] is True
until("the kill", lambda: "killed" in statuses)
assert call("session:capture", {"session_id": "no"})["code"] == "session_not_found"

third = call("session:create", {"command": "cat"})["session_id"]
client.disconnect()
again = socketio.Client(reconnection=False)
again.connect(gateway, auth={"token": token}, transports=["websocket"], wait_timeout=10)
for _ in range(100):
    found = {it["session_id"]: it["status"] for it in again.call("session:list", {})["sessions"]}
    if found.get(third) != "running":
        break
    again.sleep(0.1)
assert found.get(third) == "killed", found
again.disconnect()
print("all well", flush=True)
