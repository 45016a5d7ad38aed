"""What the gateway notes of the calls of every SDK, and which of them it answers from its cache.

usage_calls.py URL KEY - -
"""

import anthropic
import httpx
import ollama
import openai
from google import genai
from google.genai import types
from sdk_checks import *

URL = BASE_URL
ROUTES = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
    "gemini": "/v1beta/models/{model}:generateContent",
    "gemini stream": "/v1beta/models/{model}:streamGenerateContent",
    "ollama": "/api/chat",
}
FRONTS = ["chat", "responses", "messages", "gemini", "ollama"]
FAMILIES = {
    "oai": "",
    "rsp": "gpt-5-",
    "ant": "",
    "gem": "gemini-2.5-flash-",
    "oll": "",
}
TEXT = "one two three"
# USD for a million tokens, as the test configures them for the model `cached`.
INPUT, CACHED, OUTPUT = 2.0, 0.5, 8.0


def ask(front, model, stream, headers):
    """One request by the SDK of this front, read to its end."""
    if front in ("chat", "responses"):
        client = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0, default_headers=headers)
        if front == "chat":
            message = {"role": "user", "content": TEXT}
            # Otherwise this protocol tells nothing of tokens in a stream, and the gateway estimates.
            more = {"stream_options": {"include_usage": True}} if stream else {}
            answer = client.chat.completions.create(
                model=model, messages=[message], stream=stream, temperature=0, **more
            )
        else:
            answer = client.responses.create(model=model, input=TEXT, stream=stream, temperature=0)
    elif front == "messages":
        client = anthropic.Anthropic(base_url=URL, api_key=KEY, max_retries=0, default_headers=headers)
        answer = client.messages.create(
            model=model,
            max_tokens=900,
            messages=[{"role": "user", "content": TEXT}],
            stream=stream,
            extra_body={"temperature": 0},
            extra_headers={"anthropic-version": "2023-06-01"},
        )
    elif front == "gemini":
        client = genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=URL, headers=headers))
        call = client.models.generate_content_stream if stream else client.models.generate_content
        answer = call(model=model, contents=TEXT, config=types.GenerateContentConfig(temperature=0))
    else:
        client = ollama.Client(host=URL, headers={"authorization": f"Bearer {KEY}", **headers})
        messages = [{"role": "user", "content": TEXT}]
        answer = client.chat(model=model, messages=messages, stream=stream, options={"temperature": 0})
    if stream:
        for _ in answer:
            pass


def get(path, **query):
    answer = httpx.get(URL + path, params=query, headers={"authorization": f"Bearer {KEY}"})
    answer.raise_for_status()
    return answer


def rows(run):
    return get("/usage", run_id=run).json()["requests"]


def expect(row, wanted):
    equal({name: row[name] for name in wanted}, wanted)


def every(function):
    """A check for each front at each family, whole and streamed."""
    for front in FRONTS:
        for family in FAMILIES:
            for stream in (False, True):

                def run(front=front, family=family, stream=stream):
                    function(front, family, stream)

                run.__name__ = f"{function.__name__}[{front} {family}{' stream' if stream else ''}]"
                check(run)


@every
def rows_and_costs(front, family, stream):
    run = f"cached-{front}-{family}-{stream}"
    ask(front, f"{family}:cached", stream, {"x-evo-run-id": run, "x-evo-stage": "learning"})
    [row] = rows(run)
    # Ollama's protocol does not tell which tokens came from a cache.
    fresh, cached = (66 + 1, 0) if family == "oll" else (3, 64)
    written = tokens(TEXT)
    expect(
        row,
        {
            "provider": family,
            "model": "cached",
            "asked": f"{family}:cached",
            "route": ROUTES["gemini stream" if front == "gemini" and stream else front],
            "input_tokens": fresh,
            "cached_tokens": cached,
            "output_tokens": written,
            "reasoning_tokens": 0,
            "estimated": False,
            "status": 200,
            "outcome": "answered",
            "attempts": 1,
            "stream": stream,
            "error": None,
            "cache": "miss",
            "stage": "learning",
            "key": "gateway",
        },
    )
    cost = (fresh * INPUT + cached * CACHED + written * OUTPUT) / 1e6
    assert abs(row["cost_usd"] - cost) < 1e-12, (row["cost_usd"], cost)
    assert 0 < row["first_token_ms"] <= row["latency_ms"], row


@every
def reasoning_tokens(front, family, stream):
    run = f"thinks-{front}-{family}-{stream}"
    model = FAMILIES[family] + "thinks"
    ask(front, f"{family}:{model}", stream, {"x-evo-run-id": run})
    [row] = rows(run)
    # Neither Anthropic's nor Ollama's protocol tells how many they were.
    thought = 0 if family in ("ant", "oll") else tokens("Let me think: 6 × 7.")
    expect(row, {"provider": family, "model": model, "reasoning_tokens": thought, "status": 200, "estimated": False})
    assert row["output_tokens"] >= tokens("It is 42."), row


@every
def the_cache_answers(front, family, stream):
    run = f"again-{front}-{family}-{stream}"
    ask(front, f"{family}:cached", stream, {"x-evo-run-id": run})
    [row] = rows(run)
    expect(row, {"cache": "hit", "attempts": 0, "status": 200, "cost_usd": 0.0})


@every
def errors_are_rows(front, family, stream):
    run = f"fault-{front}-{family}-{stream}"
    raises(Exception, lambda: ask(front, f"{family}:fault-500", stream, {"x-evo-run-id": run}))
    found = rows(run)
    # The request, and its attempts that failed.
    [whole] = [row for row in found if row["outcome"] == "answered"]
    expect(whole, {"provider": family, "model": "fault-500", "status": 500, "output_tokens": 0})
    equal({(row["outcome"], row["provider"]) for row in found if row != whole}, {("failed", family)})


@check
def figures_name_models():
    text = get("/metrics").text
    for family, prefix in FAMILIES.items():
        for model in ["cached", prefix + "thinks"]:
            label = f'provider="{family}",model="{model}"'
            assert f"evo_gateway_model_requests_total{{{label}" in text, label
            for kind in ["input", "output"]:
                assert f'evo_gateway_tokens_total{{{label},kind="{kind}"}}' in text, (label, kind)
        assert f'evo_gateway_cost_usd_total{{provider="{family}",model="cached"}}' in text
    for route in ROUTES.values():
        assert f'route="{route}"' in text, route


run()
