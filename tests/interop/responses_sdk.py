"""OpenAI's SDK at the address given, by the Responses API and what else is newer than chat."""

import asyncio
import json

import httpx2
import openai
import pydantic
from sdk_checks import *

NATIVE = UPSTREAM == "responses"
client = openai.OpenAI(base_url=BASE_URL, api_key=KEY, max_retries=0, timeout=20, default_headers=PRIVATE)

TOOLS = [
    {"type": "function", "name": "weather", "description": "Weather of a city", "parameters": WEATHER, "strict": False},
    {"type": "function", "name": "time", "parameters": TIME, "strict": False},
]
SEALED = {"include": ["reasoning.encrypted_content"], "store": False}


def create(model, text="Hello", **more):
    return client.responses.create(model=PREFIX + model, input=more.pop("input", text), **more)


def final(model, text="Hello", **more):
    """The whole answer at the end of a stream, after looking at every event."""
    deltas, order, answer = {}, 0, None
    for event in create(model, text, stream=True, **more):
        equal(event.sequence_number, order)
        order += 1
        kind = event.type
        if kind in ("response.output_text.delta", "response.function_call_arguments.delta"):
            deltas[event.output_index] = deltas.get(event.output_index, "") + event.delta
        elif kind == "response.output_text.done":
            equal(deltas.get(event.output_index, ""), event.text)
        elif kind == "response.function_call_arguments.done":
            equal(json.loads(deltas.get(event.output_index) or "{}"), json.loads(event.arguments or "{}"))
        elif kind in ("response.completed", "response.incomplete"):
            answer = event.response
    assert answer is not None, "the stream ended without its last event"
    return answer


def both_ways(model, text="Hello", **more):
    return [create(model, text, **more), final(model, text, **more)]


def said(model, text="Hello", **more):
    return create(model, text, **more).output_text


def calls(answer):
    return [item for item in answer.output if item.type == "function_call"]


def again(answer):
    """The items of an answer as a client gives them back."""
    return [item.model_dump(exclude_none=True) for item in answer.output]


# Answers


@check
@proves("text", "streaming")
def respond():
    for answer in both_ways("echo", "Hello, Grüße 👋"):
        equal((answer.object, answer.status, answer.output_text), ("response", "completed", "Hello, Grüße 👋"))
        equal([item.type for item in answer.output], ["message"])
        assert answer.id and answer.created_at > 0 and answer.model.endswith("echo"), answer


@check
@proves("usage")
def usage():
    for answer in both_ways("echo", "one two three"):
        found = (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens)
        equal(found, (3, tokens("one two three"), 3 + tokens("one two three")))


@check
@proves("cached tokens in usage")
def cached_tokens():
    if UPSTREAM == "ollama":
        return untested("cached tokens in usage")
    for answer in both_ways("cached", "one two"):
        equal((answer.usage.input_tokens, answer.usage.input_tokens_details.cached_tokens), (66, 64))


@check
@proves("system, multi-turn")
def conversation():
    items = [
        {"role": "user", "content": "One"},
        {"role": "assistant", "content": [{"type": "output_text", "text": "Two", "annotations": []}]},
        {"role": "user", "content": [{"type": "input_text", "text": "Three"}, {"type": "input_text", "text": "Four"}]},
    ]
    text = said("mirror", input=items, instructions="Be brief.", temperature=0.5, top_p=0.25, max_output_tokens=400)
    equal(
        text.replace("\n\n", " | ").splitlines(),
        [
            "system: Be brief.",
            "user: One",
            "assistant: Two",
            "user: Three | Four",
            "temperature: 0.5",
            "top_p: 0.25",
            "max_tokens: 400",
        ],
    )


@check
@proves("images")
def images():
    parts = [
        {"type": "input_text", "text": "What is this?"},
        {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}", "detail": "auto"},
        {"type": "input_image", "image_url": "https://example.com/cat.jpg", "detail": "auto"},
    ]
    equal(said("mirror", input=[{"role": "user", "content": loadable(parts)}]).splitlines()[0], SHOWN_IMAGES)


@check
def harmless_parameters():
    more = {"metadata": {"a": "b"}, "store": False, "user": "someone", "truncation": "disabled"}
    equal(said("echo", "Hello", **more), "Hello")


@check
@proves("thinking")
def thinking():
    more = {"reasoning": {"effort": "low", "summary": "auto"}, "max_output_tokens": 4000}
    for answer in both_ways(thinker("thinks"), **more):
        equal(answer.output_text, "It is 42.")
        # A seal alone, of what follows the thoughts, is an item as well.
        seen = [item.type for item in answer.output if item.type != "reasoning" or item.summary]
        equal(seen, ["reasoning", "message"])
        equal("".join(part.text for part in answer.output[0].summary), "Let me think: 6 × 7.")


@check
@proves("thinking with signatures, multi-turn")
def signatures():
    more = {**SEALED, "reasoning": {"effort": "low", "summary": "auto"}, "max_output_tokens": 4000, "tools": TOOLS}
    question = {"role": "user", "content": "How is it?"}
    model = thinker("signed")
    for answer in both_ways(model, input=[question], **more):
        [call] = calls(answer)
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "22 °C"}
        found = said(model, input=[question, *again(answer), result], **more)
        equal(found, "The tools say: weather=22 °C.")


@check
def an_empty_answer():
    for answer in both_ways("empty"):
        equal((answer.output_text, answer.status), ("", "completed"))


@check
def a_long_prompt():
    equal(create("empty", LONG_PROMPT).usage.input_tokens, 800_000)


class Weather(pydantic.BaseModel):
    city: str
    days: int


@check
@proves("structured output")
def structured_output():
    answer = client.responses.parse(model=PREFIX + "structured", input="x", text_format=Weather)
    equal(answer.output_parsed, Weather(city="Zürich", days=3))
    with client.responses.stream(model=PREFIX + "structured", input="x", text_format=Weather) as stream:
        answer = stream.get_final_response()
    equal(answer.output_parsed, Weather(city="Zürich", days=3))


@check
@proves("previous_response_id")
def previous_response():
    first = create("echo", "One")
    ask = lambda: create("mirror", "Two", previous_response_id=first.id)
    if NATIVE:
        equal(ask().output_text.splitlines()[:3], ["user: One", "assistant: One", "user: Two"])
        return
    error = raises(openai.BadRequestError, ask)
    assert "previous_response_id" in str(error), error
    refused("previous_response_id", error.message)


# How answers end


@check
@proves("finish reasons")
def length():
    long = "Hello world " * 20
    for answer in both_ways("echo", long, max_output_tokens=16):
        equal((answer.status, answer.incomplete_details.reason), ("incomplete", "max_output_tokens"))
        equal(answer.output_text, long[:64])


@check
@proves("finish reasons")
def filtered():
    if UPSTREAM == "ollama":
        return
    for answer in both_ways("filtered"):
        equal((answer.status, answer.incomplete_details.reason), ("incomplete", "content_filter"))


# Streams


@check
@proves("streaming")
def stream_events():
    events = list(create("echo", "Hello, brave new world", stream=True))
    kinds = [event.type for event in events]
    equal(kinds[0], "response.created")
    added = ["response.output_item.added", "response.content_part.added"]
    done = ["response.output_text.done", "response.content_part.done", "response.output_item.done", "response.completed"]
    rest = [kind for kind in kinds if kind not in ("response.in_progress", "response.output_text.delta")]
    equal(rest, ["response.created", *added, *done])
    assert kinds.count("response.output_text.delta") >= tokens("Hello, brave new world"), "the pieces were put together"


@check
@proves("streaming")
def sdk_stream_helper():
    with client.responses.stream(model=PREFIX + "tools", input="both", tools=TOOLS) as stream:
        kinds = {event.type for event in stream}
        answer = stream.get_final_response()
    assert {"response.output_text.delta", "response.function_call_arguments.delta"} <= kinds, kinds
    equal([(call.name, json.loads(call.arguments)) for call in calls(answer)], [("weather", ARGUMENTS), ("time", {})])


@check
def stream_of_many_words():
    found = final("words-3000", max_output_tokens=20_000).output_text
    equal(len(found.split(" ")), 3000)


@check
def unicode():
    for answer in both_ways("echo", UNICODE):
        equal(answer.output_text, UNICODE)


# Tools


@check
@proves("tools")
def one_tool_call():
    for answer in both_ways("tools", "How is it?", tools=TOOLS):
        equal((answer.status, answer.output_text), ("completed", "Let me look."))
        [call] = calls(answer)
        equal((call.name, json.loads(call.arguments)), ("weather", ARGUMENTS))
        assert call.call_id and call.id, call


@check
@proves("parallel tools and results")
def parallel_tool_calls_and_their_results():
    question = {"role": "user", "content": "both, please"}
    for answer in both_ways("tools", input=[question], tools=TOOLS):
        weather, clock = calls(answer)
        equal([weather.name, clock.name], ["weather", "time"])
        assert weather.call_id != clock.call_id
        results = [
            {"type": "function_call_output", "call_id": weather.call_id, "output": "22 °C"},
            {"type": "function_call_output", "call_id": clock.call_id, "output": [{"type": "input_text", "text": "12:00"}]},
        ]
        history = [question, *again(answer), *results]
        equal(said("tools", input=history, tools=TOOLS), "The tools say: weather=22 °C; time=12:00.")


@check
def one_call_at_a_time():
    ask = lambda: create("tools", "both", tools=TOOLS, parallel_tool_calls=False)
    if UPSTREAM == "gemini":
        # Gemini has no such switch, and two calls would break the caller's word.
        error = raises(openai.BadRequestError, ask)
        assert "parallel_tool_calls" in str(error), error
    else:
        equal(len(calls(ask())), 2 if UPSTREAM == "ollama" else 1)


@check
@proves("tool_choice")
def tool_choice():
    answer = create("tools", "x", tools=TOOLS, tool_choice={"type": "function", "name": "time"})
    if UPSTREAM == "ollama":
        return ignored("tool_choice")
    equal([call.name for call in calls(answer)], ["time"])
    answer = create("tools", "x", tools=TOOLS, tool_choice="none")
    equal((answer.output_text, calls(answer)), ("I call no tools.", []))
    assert "choice: any\n" in said("mirror", "x", tools=TOOLS, tool_choice="required", max_output_tokens=400)


@check
@proves("count_tokens")
def count_tokens():
    count = lambda **more: client.responses.input_tokens.count(model=PREFIX + "echo", input="one two three", **more)
    short, long = count().input_tokens, count(instructions="four five", tools=TOOLS).input_tokens
    assert short < long, (short, long)
    # Where the provider cannot count, the gateway estimates.
    equal(short, 3) if UPSTREAM in ("anthropic", "gemini", "responses") else equal(0 < short < 20, True)


# Errors

CLASSES = {
    "fault-400": openai.BadRequestError,
    "fault-401": openai.AuthenticationError,
    "fault-403": openai.PermissionDeniedError,
    "fault-404": openai.NotFoundError,
    "fault-429": openai.RateLimitError,
    "fault-500": openai.InternalServerError,
    "fault-503": openai.InternalServerError,
    "fault-502-html": openai.InternalServerError,
    "fault-500-empty": openai.InternalServerError,
}


@check
@proves("errors")
def error_classes():
    for model, kind in CLASSES.items():
        for stream in [False, True]:
            error = raises(openai.APIStatusError, lambda: create(model, stream=stream))
            status = int(model.split("-")[1])
            equal((model, stream, type(error), error.status_code), (model, stream, kind, status))
            assert error.message, model


@check
@proves("errors")
def wrong_requests():
    call = {"type": "function_call", "call_id": "call_1", "name": "time", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": "call_9", "output": "y"}
    user = {"role": "user", "content": "x"}
    wrong = {
        "a role": {"input": [{"role": "wizard", "content": "x"}]},
        "a result without a call": {"input": [user, result]},
        "a call without a result": {"input": [user, call, user]},
        "temperature": {"temperature": "warm"},
        "a tool that is not there": {"tools": TOOLS, "tool_choice": {"type": "function", "name": "dance"}},
        "an image": {
            "input": [{"role": "user", "content": [{"type": "input_image", "detail": "auto", "image_url": "data:image/png;base64,%%"}]}]
        },
    }
    if UPSTREAM == "ollama":
        # It takes the others as well as it can.
        wrong = {name: wrong[name] for name in ("a role", "temperature", "an image")}
    for name, more in wrong.items():
        try:
            error = raises(openai.APIStatusError, lambda: create("echo", **more))
        except AssertionError as reason:
            raise AssertionError(f"{name}: {reason}") from None
        equal((name, type(error), error.type), (name, openai.BadRequestError, "invalid_request_error"))


@check
@proves("errors")
def an_unknown_model():
    error = raises(openai.NotFoundError, lambda: create("no-such-model"))
    assert "no-such-model" in error.message, error


@check
@proves("keys")
def wrong_key():
    stranger = client.with_options(api_key="evo_gw_wrong")
    for stream in [False, True]:
        ask = lambda: stranger.responses.create(model=PREFIX + "echo", input="x", stream=stream)
        assert raises(openai.AuthenticationError, ask).message


# Streams that break: never an answer that looks whole.


@check
@proves("broken streams")
def broken_streams():
    broken = (openai.APIError, httpx2.HTTPError, ValueError, AssertionError)
    for model in ["cut-stream", "bad-chunk", "error-in-stream", "drop"]:
        raises(broken, lambda: final(model, max_output_tokens=900))
    raises(broken, lambda: final("cut-tool", "both", tools=TOOLS))
    for model in ["cut-stream", "bad-chunk", "drop"]:
        raises(broken, lambda: create(model, max_output_tokens=900))


# Clients that go: the provider must hear of it. Six requests that end before their answer does.


@check
@proves("cancellation")
def closed_streams():
    for _ in range(2):
        stream = create("slow", stream=True, max_output_tokens=900)
        for _, _ in zip(range(8), stream):
            pass
        stream.close()


@check
@proves("timeouts")
def timeouts():
    hasty = client.with_options(timeout=0.4)
    ask = lambda model, **more: hasty.responses.create(model=PREFIX + model, input="x", max_output_tokens=900, **more)
    gone = (openai.APITimeoutError, httpx2.TimeoutException)
    raises(openai.APITimeoutError, lambda: ask("silent"))
    raises(openai.APITimeoutError, lambda: ask("silent", stream=True))
    raises(gone, lambda: list(ask("stall", stream=True)))
    raises(gone, lambda: ask("stall"))


@check
@proves("async")
def many_at_once():
    async def ask(other, at):
        text = f"number {at} " + "x" * at
        if at % 2 == 0:
            async with other.responses.stream(model=PREFIX + "echo", input=text) as stream:
                found = (await stream.get_final_response()).output_text
        else:
            found = (await other.responses.create(model=PREFIX + "echo", input=text)).output_text
        equal(found, text)

    async def main():
        async with openai.AsyncOpenAI(base_url=BASE_URL, api_key=KEY, max_retries=0, timeout=30) as other:
            await asyncio.gather(*(ask(other, at) for at in range(40)))

    asyncio.run(main())


run()
