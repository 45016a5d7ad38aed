"""litellm at the address given: by all of its ways at a gateway, by one at a provider itself."""

import asyncio
import json
import os

# Otherwise it asks the net for prices as soon as it is there.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
import pydantic
from sdk_checks import *

litellm.suppress_debug_info = True

WAYS = {
    "openai": ("openai", f"{BASE_URL}/v1"),
    "anthropic": ("anthropic", BASE_URL),
    "gemini": ("gemini", f"{BASE_URL}/v1beta"),
    "ollama_chat": ("ollama", BASE_URL),
}
if DIRECT:
    WAYS = {way: (protocol, BASE_URL) for way, (protocol, _) in WAYS.items() if protocol == UPSTREAM}

TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "Weather of a city", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "time", "parameters": TIME}},
]


class Weather(pydantic.BaseModel):
    city: str
    days: int


def each(capability):
    """A check of every way that fits."""

    def register(function):
        for way in WAYS:

            def ask(way=way):
                function(way)

            ask.__name__ = f"{function.__name__}[{way}]"
            check(proves(f"`{way}/…`: {capability}")(ask))
        return function

    return register


def request(way, model, text, more):
    messages = more.pop("messages", [{"role": "user", "content": text}])
    base = {"api_base": WAYS[way][1], "api_key": KEY, "num_retries": 0, "max_retries": 0, "timeout": 20}
    return {"model": f"{way}/{PREFIX}{model}", "messages": messages, **base, **more}


def create(way, model, text="Hello", **more):
    return litellm.completion(**request(way, model, text, more))


def whole(way, model, text="Hello", **more):
    """An answer that litellm puts together from a stream."""
    asked = request(way, model, text, more)
    chunks = list(litellm.completion(**asked, stream=True, stream_options={"include_usage": True}))
    return litellm.stream_chunk_builder(chunks, messages=asked["messages"])


@each("completion")
def completion(way):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Grüße 👋"}]
    answer = create(way, "mirror", messages=messages, max_tokens=400, temperature=0.5)
    lines = answer.choices[0].message.content.splitlines()
    # Of models of Google's that it does not know, it thinks that they know no system text.
    equal(lines[:2], ["system: Be brief.", "user: Grüße 👋"]) if way != "gemini" else None
    assert "Be brief." in lines[0], lines
    assert {"temperature: 0.5", "max_tokens: 400"} <= set(lines), lines
    answer = create(way, "echo", "one two three")
    equal((answer.choices[0].message.content, answer.choices[0].finish_reason), ("one two three", "stop"))
    equal((answer.usage.prompt_tokens, answer.usage.completion_tokens), (3, tokens("one two three")))


@each("stream")
def stream(way):
    answer = whole(way, "echo", "Hello, brave new world")
    equal(answer.choices[0].message.content, "Hello, brave new world")
    equal(answer.usage.completion_tokens, tokens("Hello, brave new world"))


@each("tools")
def tools(way):
    question = {"role": "user", "content": "both, please"}
    # Of calls in lines of their own, as Ollama streams them, litellm keeps the last only.
    for ask in [create] if DIRECT and way == "ollama_chat" else [create, whole]:
        answer = ask(way, "tools", messages=[question], tools=TOOLS)
        equal(answer.choices[0].finish_reason, "tool_calls")
        message = answer.choices[0].message
        equal([call.function.name for call in message.tool_calls], ["weather", "time"])
        equal([json.loads(call.function.arguments or "{}") for call in message.tool_calls], [ARGUMENTS, {}])
        results = [
            {"role": "tool", "tool_call_id": call.id, "name": call.function.name, "content": "22 °C"}
            for call in message.tool_calls
        ]
        said = {"role": "assistant", "content": message.content, "tool_calls": [call.model_dump() for call in message.tool_calls]}
        answer = create(way, "tools", messages=[question, said, *results], tools=TOOLS)
        # Names and shapes of results are litellm's.
        equal(answer.choices[0].message.content.count("22 °C"), 2)


@each("structured output")
def structured_output(way):
    if way == "gemini":
        # It puts the schema in words for models that it does not know.
        return untested("`gemini/…`: structured output")
    if way == "anthropic" and UPSTREAM == "ollama":
        # It has the model call a tool, which Ollama does not do.
        return ignored("`anthropic/…`: structured output")
    answer = create(way, "structured", response_format=Weather)
    equal(Weather.model_validate_json(answer.choices[0].message.content), Weather(city="Zürich", days=3))


@each("async")
def asynchronous(way):
    async def main():
        answer = await litellm.acompletion(**request(way, "echo", "Hello", {}))
        equal(answer.choices[0].message.content, "Hello")
        stream = await litellm.acompletion(**request(way, "echo", "Hello, world", {}), stream=True)
        equal("".join([chunk.choices[0].delta.content or "" async for chunk in stream]), "Hello, world")

    asyncio.run(main())


KINDS = {
    400: litellm.BadRequestError,
    401: litellm.AuthenticationError,
    404: litellm.NotFoundError,
    429: litellm.RateLimitError,
    500: (litellm.InternalServerError, litellm.APIConnectionError, litellm.APIError),
    503: (litellm.ServiceUnavailableError, litellm.InternalServerError),
}


@each("errors")
def errors(way):
    for status, kind in KINDS.items():
        raises(kind, lambda: create(way, f"fault-{status}"))


run()
