"""Ollama's client at the address given."""

import asyncio
import json

import httpx
import ollama
import pydantic
from sdk_checks import *


def connect(key=KEY, kind=ollama.Client, timeout=20):
    return kind(host=BASE_URL, timeout=timeout, headers={**PRIVATE, "authorization": f"Bearer {key}"})


client = connect()

TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "Weather of a city", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "time", "parameters": TIME}},
]


def request(model, text, more):
    return {"model": PREFIX + model, "messages": more.pop("messages", [user(text)]), **more}


def user(text, **more):
    return {"role": "user", "content": text, **more}


def create(model, text="Hello", **more):
    return client.chat(**request(model, text, more))


class Whole:
    """What the lines of an answer say altogether."""

    def __init__(self, lines):
        self.text, self.thoughts, self.calls, self.last, self.count = "", "", [], None, 0
        for line in lines:
            assert self.last is None or not self.last.done, "a line after the last"
            self.count += 1
            self.text += line.message.content or ""
            self.thoughts += line.message.thinking or ""
            self.calls += line.message.tool_calls or []
            self.last = line
        assert self.last is not None and self.last.done, "the stream ended without its last line"


def stream(model, text="Hello", **more):
    return Whole(client.chat(**request(model, text, more), stream=True))


def both_ways(model, text="Hello", **more):
    return [Whole([create(model, text, **more)]), stream(model, text, **more)]


def content(model, text="Hello", **more):
    return create(model, text, **more).message.content


def shown(*arguments, **more):
    """The lines of what the model was shown; a provider may be given several texts as one."""
    return content("mirror", *arguments, **more).replace("\n\n", " | ").splitlines()


# Chat


@check
@proves("text", "streaming")
def chat():
    for answer in both_ways("echo", "Hello, Grüße 👋"):
        equal((answer.text, answer.last.done_reason), ("Hello, Grüße 👋", "stop"))
        equal(answer.calls, [])
        assert answer.last.model.endswith("echo") and answer.last.created_at, answer.last


@check
@proves("usage")
def usage():
    for answer in both_ways("echo", "one two three"):
        equal((answer.last.prompt_eval_count, answer.last.eval_count), (3, tokens("one two three")))
        assert answer.last.total_duration >= answer.last.eval_duration >= 0, answer.last


@check
@proves("system, multi-turn")
def conversation():
    messages = [
        {"role": "system", "content": "Be brief."},
        user("One"),
        {"role": "assistant", "content": "Two"},
        user("Three"),
    ]
    options = {"temperature": 0.5, "top_p": 0.25, "num_predict": 400}
    equal(
        shown(messages=messages, options=options),
        [
            "system: Be brief.",
            "user: One",
            "assistant: Two",
            "user: Three",
            "temperature: 0.5",
            "top_p: 0.25",
            "max_tokens: 400",
        ],
    )


@check
@proves("images")
def images():
    found = shown(messages=[user("What is this?", images=[PIXEL])], options={"num_predict": 400})
    equal(found[0], SHOWN_IMAGES.partition(" | [image http")[0])


@check
def harmless_parameters():
    options = {"seed": 7, "num_ctx": 8192, "repeat_penalty": 1.1, "num_predict": -1}
    equal(content("echo", "Hello", options=options, keep_alive="5m"), "Hello")


@check
def unicode():
    # The client takes "next line" for the end of a line, which Ollama does not escape.
    text = UNICODE.replace("\u0085", "") if DIRECT else UNICODE
    for answer in both_ways("echo", text):
        equal(answer.text, text)


@check
def an_empty_answer():
    for answer in both_ways("empty"):
        equal((answer.text, answer.last.done_reason), ("", "stop"))


@check
@proves("thinking")
def thinking():
    model = thinker("thinks")
    for answer in both_ways(model, think=True, options={"num_predict": 4000}):
        equal(answer.text, "It is 42.")
        if UPSTREAM == "responses":
            # OpenAI's models tell no thoughts to those who ask for no summary.
            untested("thinking")
            continue
        equal(answer.thoughts, "Let me think: 6 × 7.")
    for answer in both_ways(model, think=False, options={"num_predict": 4000}):
        equal((answer.text, answer.thoughts), ("It is 42.", ""))


class Weather(pydantic.BaseModel):
    city: str
    days: int


@check
@proves("structured output")
def structured_output():
    for answer in both_ways("structured", "x", format=Weather.model_json_schema()):
        equal(Weather.model_validate_json(answer.text), Weather(city="Zürich", days=3))


@check
@proves("JSON mode")
def json_mode():
    for answer in both_ways("structured", "JSON, please", format="json"):
        assert isinstance(json.loads(answer.text), dict), answer.text


# How answers end


@check
@proves("finish reasons")
def length():
    long = "Hello world " * 20
    for answer in both_ways("echo", long, options={"num_predict": 16}):
        equal((answer.text, answer.last.done_reason), (long[:64], "length"))


@check
@proves("stop sequences")
def stop_sequences():
    ask = lambda: both_ways("echo", "Hello END world", options={"stop": ["never", "END"]})
    if UPSTREAM == "responses":
        # This API has none.
        error = raises(ollama.ResponseError, ask)
        equal(error.status_code, 400)
        return refused("stop sequences", error.error)
    for answer in ask():
        equal((answer.text, answer.last.done_reason), ("Hello ", "stop"))


@check
@proves("streaming")
def stream_pieces():
    answer = stream("echo", "Hello, brave new world")
    assert answer.count > tokens(answer.text), "the pieces were put together"


@check
def stream_of_many_words():
    options = {"num_predict": 20_000}
    found = stream("words-3000", options=options).text
    equal(len(found.split(" ")), 3000)
    equal(found, content("words-3000", options=options))


# Tools


@check
@proves("tools")
def one_tool_call():
    for answer in both_ways("tools", "How is it?", tools=TOOLS):
        equal((answer.text, answer.last.done_reason), ("Let me look.", "stop"))
        [call] = answer.calls
        equal((call.function.name, dict(call.function.arguments)), ("weather", ARGUMENTS))


@check
@proves("parallel tools and results")
def parallel_tool_calls_and_their_results():
    question = user("both, please")
    for answer in both_ways("tools", messages=[question], tools=TOOLS):
        equal([call.function.name for call in answer.calls], ["weather", "time"])
        equal([dict(call.function.arguments) for call in answer.calls], [ARGUMENTS, {}])
        said = {"role": "assistant", "content": answer.text, "tool_calls": answer.calls}
        results = [
            {"role": "tool", "content": "12:00", "tool_name": "time"},
            {"role": "tool", "content": "22 °C", "tool_name": "weather"},
        ]
        found = content("tools", messages=[question, said, *results], tools=TOOLS)
        equal(sorted(found.removeprefix("The tools say: ").rstrip(".").split("; ")), ["time=12:00", "weather=22 °C"])


@check
@proves("tools")
def a_function_as_a_tool():
    def weather(city: str, days: int = 1) -> str:
        """Weather of a city.

        Args:
            city: Its name.
            days: How many.
        """
        return city

    [call] = Whole([create("tools", "How is it?", tools=[weather])]).calls
    equal(call.function.name, "weather")


# Generate


@check
@proves("generate")
def generate():
    more = {"system": "Be brief.", "options": {"num_predict": 400, "temperature": 0.5}}
    answer = client.generate(model=PREFIX + "mirror", prompt="One", **more)
    equal(answer.response.splitlines(), ["system: Be brief.", "user: One", "temperature: 0.5", "max_tokens: 400"])
    equal((answer.done, answer.done_reason), (True, "stop"))
    lines = list(client.generate(model=PREFIX + "echo", prompt="Hello, brave new world", stream=True))
    equal("".join(line.response for line in lines), "Hello, brave new world")
    equal(([line.done for line in lines][-2:], lines[-1].eval_count), ([False, True], tokens("Hello, brave new world")))


@check
@proves("generate")
def generate_with_an_image_and_a_schema():
    answer = client.generate(model=PREFIX + "mirror", prompt="What?", images=[PIXEL], options={"num_predict": 400})
    equal(answer.response.splitlines()[0], f"user: What? | [image image/png {PIXEL_BYTES}]")
    answer = client.generate(model=PREFIX + "structured", prompt="x", format=Weather.model_json_schema())
    equal(json.loads(answer.response), {"city": "Zürich", "days": 3})


# Models


@check
@proves("models")
def models():
    names = {model.model for model in client.list().models}
    # Ollama's own list has tags.
    listed = "echo:latest" if DIRECT else PREFIX + LISTED
    assert listed in names, names
    shown = client.show(listed)
    assert "completion" in shown.capabilities and shown.modelinfo, shown
    error = raises(ollama.ResponseError, lambda: client.show(PREFIX + "no-such-model"))
    equal(error.status_code, 404)
    assert "no-such-model" in error.error, error


@check
@proves("embeddings")
def embeddings():
    try:
        answer = client.embed(model=PREFIX + "echo", input=["one two", "three"])
    except ollama.ResponseError as error:
        if UPSTREAM == "anthropic" and error.status_code == 400:
            return refused("embeddings", error.error)
        return untested("embeddings", error)
    equal([len(vector) for vector in answer.embeddings], [3, 3])
    equal(answer.embeddings[0][1], 2 / 1024)


# Errors


@check
@proves("errors")
def error_statuses():
    for status in [400, 401, 403, 404, 413, 429, 500, 503, 529]:
        if UPSTREAM == "gemini" and status == 413:
            continue
        for ask in [create, stream]:
            error = raises(ollama.ResponseError, lambda: ask(f"fault-{status}"))
            equal((type(error), error.status_code), (ollama.ResponseError, status))
            # The client shows another shape as it is.
            assert error.error and not error.error.startswith("{"), error.error
    for model in ["fault-502-html", "fault-500-empty"]:
        error = raises(ollama.ResponseError, lambda: create(model))
        equal(error.status_code, int(model.split("-")[1]))


@check
@proves("errors")
def an_unknown_model():
    error = raises(ollama.ResponseError, lambda: create("no-such-model"))
    equal(error.status_code, 404)
    assert "no-such-model" in error.error, error


@check
@proves("errors")
def wrong_requests():
    wrong = {
        "a role": {"messages": [{"role": "wizard", "content": "x"}]},
        "temperature": {"messages": [user("x")], "options": {"temperature": "warm"}},
        "a format": {"messages": [user("x")], "format": "prose"},
        "an image": {"messages": [user("x", images=["%%"])]},
        "think": {"messages": [user("x")], "think": "wildly"},
    }
    for name, body in wrong.items():
        headers = {"authorization": f"Bearer {KEY}"}
        answer = httpx.post(f"{BASE_URL}/api/chat", headers=headers, json={"model": PREFIX + "echo", **body})
        equal((name, answer.status_code), (name, 400))
        assert isinstance(answer.json()["error"], str), answer.text


@check
@proves("keys")
def wrong_key():
    stranger = connect("evo_gw_wrong")
    for ask in [lambda: stranger.chat(**request("echo", "x", {})), stranger.list]:
        error = raises(ollama.ResponseError, ask)
        equal(error.status_code, 401)


@check
@proves("broken streams")
def broken_streams():
    broken = (ollama.ResponseError, httpx.HTTPError, ValueError)
    options = {"num_predict": 900}
    for model in ["cut-stream", "bad-chunk", "error-in-stream"]:
        error = raises(broken, lambda: stream(model, options=options))
        assert str(error), model
    raises(broken, lambda: stream("cut-tool", "both", tools=TOOLS))
    for model in ["cut-stream", "bad-chunk", "drop"]:
        raises((*broken, ConnectionError), lambda: create(model, options=options))


# Clients that go: the provider must hear of it. Six requests that end before their answer does.


@check
@proves("cancellation")
def closed_streams():
    for _ in range(2):
        lines = client.chat(**request("slow", "x", {}), stream=True, options={"num_predict": 900})
        for _, _ in zip(range(5), lines):
            pass
        lines.close()


@check
@proves("timeouts")
def timeouts():
    hasty = connect(timeout=0.4)
    options = {"num_predict": 900}
    for model in ["silent", "stall"]:
        for streams in [False, True]:
            ask = lambda: hasty.chat(**request(model, "x", {}), stream=streams, options=options)
            raises(httpx.TimeoutException, lambda: list(ask()) if streams else ask())


@check
@proves("async")
def many_at_once():
    async def ask(other, at):
        text = f"number {at} " + "x" * at
        streams = at % 2 == 0
        answer = await other.chat(**request("echo", text, {}), stream=streams)
        if streams:
            found = "".join([line.message.content async for line in answer])
        else:
            found = answer.message.content
        equal(found, text)

    async def main():
        other = connect(kind=ollama.AsyncClient)
        await asyncio.gather(*(ask(other, at) for at in range(40)))

    asyncio.run(main())


run()
