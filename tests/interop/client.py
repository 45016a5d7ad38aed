"""A connection that remembers what it was told, for the tests that speak with king in Python."""

import os
import threading
import time

import requests
import socketio

WAIT = 30


class Refused(Exception):
    """King did not let a connection in; the text says why."""


class Client:
    """One Socket.IO connection. `heard` holds every event that came, in the order of handling."""

    def __init__(self, king, token=None, transport="websocket"):
        self.heard = []
        self.refusal = None
        self._news = threading.Condition()
        self._answers = {}
        self.sio = socketio.Client(reconnection=False)
        self.sio.on("*", self._hear)
        self.sio.on("connect_error", self._refused)
        auth = None if token is None else {"token": token}
        try:
            self.sio.connect(king, auth=auth, transports=[transport], wait_timeout=WAIT)
        except socketio.exceptions.ConnectionError as error:
            with self._news:
                self._news.wait_for(lambda: self.refusal is not None, 1)
            raise Refused(self.refusal) from error

    def answers(self, event, reply):
        """Calls `reply` with the payload of every such event."""
        self._answers[event] = reply

    def call(self, event, payload=None):
        """Sends an event and gives what king acknowledges it with."""
        return self.sio.call(event, payload, timeout=WAIT)

    def emit(self, event, payload=None):
        """Sends an event without asking for an answer."""
        self.sio.emit(event, payload)

    def say(self, event, payload, acks):
        """Sends an event that king takes, with an answer or without."""
        if acks:
            equal(f"{event} {payload}", verdict(self.call(event, payload)), "ok")
        else:
            self.emit(event, payload)

    def wait(self, event, fits=lambda payload: True, since=0):
        """The first event of this name that fits, once it has come."""

        def found():
            return next((p for e, p in self.heard[since:] if e == event and fits(p)), None)

        with self._news:
            if not self._news.wait_for(lambda: found() is not None, WAIT):
                raise AssertionError(f"{event} did not come; what did: {self.heard[-20:]}")
            return found()

    def count(self, event, fits=lambda payload: True):
        """How many events of this name have come."""
        with self._news:
            return sum(1 for e, p in self.heard if e == event and fits(p))

    def close(self):
        """Says goodbye. By polling the client waits for its last poll, which nobody else has to."""
        goodbye = threading.Thread(target=self.sio.disconnect, daemon=True)
        goodbye.start()
        if self.sio.transport() == "websocket":
            goodbye.join(WAIT)

    def _hear(self, event, payload=None):
        with self._news:
            self.heard.append((event, payload))
            self._news.notify_all()
        reply = self._answers.get(event)
        if reply is not None:
            reply(payload)

    def _refused(self, reason):
        with self._news:
            self.refusal = reason
            self._news.notify_all()


class Http:
    """King over HTTP with one token."""

    def __init__(self, king, token):
        self.king, self.head = king, {"authorization": f"Bearer {token}"}

    def send(self, method, path, body=None):
        """Status and body of any request."""
        answer = requests.request(method, self.king + path, json=body, headers=self.head, timeout=WAIT)
        return answer.status_code, answer.json()

    def get(self, path):
        """The body of a GET that must succeed."""
        status, body = self.send("GET", path)
        assert status == 200, f"GET {path}: {status} {body}"
        return body

    def post(self, path, body):
        """The body of a POST that must succeed."""
        status, answer = self.send("POST", path, body)
        assert status in (200, 201, 202), f"POST {path}: {status} {answer}"
        return answer

    def until(self, path, fits):
        """The body of a GET, once it is as it should be."""
        end = time.monotonic() + WAIT
        while True:
            body = self.get(path)
            if fits(body):
                return body
            assert time.monotonic() < end, f"{path} stays so: {body}"
            time.sleep(0.02)


def register(client, agent_id, role, acks=True, **more):
    """Registers an agent and waits until king has taken it in, which `king:system_info` tells."""
    client.say("agent:register", {"agent_id": agent_id, "role": role, "capabilities": [], **more}, acks)
    client.wait("king:system_info")


def done(*clients):
    """The end of a script: nothing is waited for any more."""
    for client in clients:
        client.close()
    print("all is well", flush=True)
    os._exit(0)


def verdict(answer):
    """What an acknowledgement says: `ok`, or the code of a refusal."""
    if isinstance(answer, dict):
        if "success" in answer:
            return "ok" if answer["success"] else answer["code"]
        if "status" in answer:
            ok = answer["status"] in ("accepted", "duplicate")
            return "ok" if ok else answer.get("code", answer["status"])
        if "king_version" in answer:
            return "ok"
    return f"unclear: {answer!r}"


def equal(what, found, wanted):
    """Fails unless both are the same."""
    assert found == wanted, f"{what}: {found!r} is not {wanted!r}"
