"""The OpenAI SDK at the address given."""

import asyncio
import json
import time

import httpx2
import openai
import pydantic
from sdk_checks import *

# Both of OpenAI's protocols tell of errors and limits alike.
FROM_OPENAI = UPSTREAM in ("openai", "responses")
client = openai.OpenAI(base_url=BASE_URL, api_key=KEY, max_retries=0, timeout=20, default_headers=PRIVATE)

TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "Weather of a city", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "time", "parameters": TIME}},
]


def create(model, text="Hello", **more):
    messages = more.pop("messages", [{"role": "user", "content": text}])
    return client.chat.completions.create(model=PREFIX + model, messages=messages, **more)


def content(model, text="Hello", **more):
    return create(model, text, **more).choices[0].message.content


def collect(stream):
    """What a stream said: text, finish reasons, tool calls by index, usage, number of chunks."""
    text, ends, calls, usage, chunks = "", [], {}, None, 0
    for chunk in stream:
        equal(chunk.object, "chat.completion.chunk")
        chunks += 1
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            if choice.finish_reason:
                ends.append(choice.finish_reason)
            for part in choice.delta.tool_calls or []:
                call = calls.setdefault(part.index, {"id": "", "name": "", "arguments": ""})
                call["id"] += part.id or ""
                call["name"] += part.function.name or ""
                call["arguments"] += part.function.arguments or ""
    return text, ends, calls, usage, chunks


# Chat


@check
@proves("text")
def chat():
    answer = create("echo", "Hello, Grüße 👋")
    equal(answer.object, "chat.completion")
    equal(len(answer.choices), 1)
    choice = answer.choices[0]
    equal((choice.index, choice.message.role, choice.finish_reason), (0, "assistant", "stop"))
    equal(choice.message.content, "Hello, Grüße 👋")
    equal(choice.message.tool_calls, None)
    assert answer.id and answer.created > 0, answer
    assert answer.model.endswith("echo"), answer.model


@check
@proves("usage")
def usage():
    answer = create("echo", "one two three")
    found = (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens)
    equal(found, (3, tokens("one two three"), 3 + tokens("one two three")))


@check
@proves("cached tokens in usage")
def cached_tokens():
    if UPSTREAM == "ollama":
        return untested("cached tokens in usage")
    usage = create("cached", "one two").usage
    equal((usage.prompt_tokens, usage.prompt_tokens_details.cached_tokens), (66, 64))


@check
@proves("system, multi-turn")
def conversation():
    text = content(
        "mirror",
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "One"},
            {"role": "assistant", "content": "Two"},
            {"role": "user", "content": [{"type": "text", "text": "Three"}, {"type": "text", "text": "Four"}]},
        ],
        max_tokens=400,
        temperature=0.5,
        top_p=0.25,
    )
    equal(
        text.splitlines(),
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
def several_system_messages():
    messages = [
        {"role": "developer", "content": "First."},
        {"role": "system", "content": [{"type": "text", "text": "Second."}]},
        {"role": "user", "content": "Go"},
    ]
    equal(content("mirror", messages=messages, max_tokens=400).replace("\n\n", " | ").splitlines()[0], "system: First. | Second.")


@check
def without_max_tokens():
    equal(content("echo", "Hello"), "Hello")


@check
def max_completion_tokens():
    # Ollama knows the older name only.
    assert UPSTREAM == "ollama" or "max_tokens: 77\n" in content("mirror", max_completion_tokens=77)


@check
@proves("images")
def images():
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
        {"type": "image_url", "image_url": {"url": "https://example.com/cat.jpg", "detail": "low"}},
    ]
    text = content("mirror", messages=[{"role": "user", "content": loadable(parts)}], max_tokens=400)
    equal(text.splitlines()[0], SHOWN_IMAGES)


@check
def harmless_parameters():
    equal(content("echo", "Hello", user="someone", seed=7, presence_penalty=0, logprobs=False), "Hello")


@check
def a_temperature_that_only_openai_knows():
    # Anthropic's go from 0 to 1; another one in its place would be a lie.
    if UPSTREAM != "anthropic":
        assert "temperature: 1.5\n" in content("mirror", temperature=1.5, max_tokens=400)
    else:
        error = raises(openai.BadRequestError, lambda: create("mirror", temperature=1.5))
        assert "temperature" in error.message, error


@check
@proves("several choices")
def two_choices():
    if UPSTREAM == "ollama":
        equal(len(create("echo", "Hello", n=2).choices), 1)
        ignored("several choices")
    elif UPSTREAM == "openai":
        answer = create("echo", "Hello", n=2)
        equal([choice.message.content for choice in answer.choices], ["Hello", "Hello"])
    else:
        error = raises(openai.BadRequestError, lambda: create("echo", "Hello", n=2))
        assert "n" in str(error.param or error.message), error
        refused("several choices", error.message)


class Weather(pydantic.BaseModel):
    city: str
    days: int


@check
@proves("structured output")
def structured_output():
    question = [{"role": "user", "content": "x"}]
    answer = client.chat.completions.parse(model=PREFIX + "structured", messages=question, response_format=Weather)
    equal(answer.choices[0].message.parsed, Weather(city="Zürich", days=3))
    with client.chat.completions.stream(
        model=PREFIX + "structured", messages=question, response_format=Weather
    ) as stream:
        answer = stream.get_final_completion()
    equal(answer.choices[0].message.parsed, Weather(city="Zürich", days=3))


@check
@proves("JSON mode")
def json_mode():
    answer = content("structured", "JSON, please", response_format={"type": "json_object"})
    assert isinstance(json.loads(answer), dict), answer


@check
@proves("thinking")
def thinking():
    answer = create(thinker("thinks"), reasoning_effort="low", max_completion_tokens=4000)
    equal(answer.choices[0].message.content, "It is 42.")
    if UPSTREAM == "responses":
        # OpenAI's models tell chat completions no thoughts, only how many tokens they were.
        equal(answer.usage.completion_tokens_details.reasoning_tokens, tokens("Let me think: 6 × 7."))
        return untested("thinking")
    field = "reasoning" if UPSTREAM == "ollama" else "reasoning_content"
    equal(getattr(answer.choices[0].message, field, None), "Let me think: 6 × 7.")


@check
@proves("thinking with signatures, multi-turn")
def signatures():
    user = {"role": "user", "content": "How is it?"}
    more = {"tools": TOOLS, "reasoning_effort": "low", "max_completion_tokens": 4000}
    model = thinker("signed")
    message = create(model, messages=[user], **more).choices[0].message
    [call] = message.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": "22 °C"}
    # Whatever the answer held goes back, as clients do that keep what they do not know.
    history = [user, message.model_dump(exclude_none=True), result]
    if DIRECT:
        for field in ("reasoning_content", "annotations"):
            history[1].pop(field, None)
    equal(content(model, messages=history, **more), "The tools say: weather=22 °C.")


@check
@proves("embeddings", "embeddings of tokens")
def embeddings():
    embed = lambda input, model="echo", **more: client.embeddings.create(model=PREFIX + model, input=input, **more)
    if UPSTREAM == "anthropic":
        error = raises(openai.BadRequestError, lambda: embed("one"))
        equal(error.code, "embeddings_not_supported")
        refused("embeddings of tokens", error.message)
        return refused("embeddings", error.message)
    # The SDK asks for base64 unless it is told otherwise.
    for more in ({}, {"encoding_format": "float"}):
        answer = embed(["one two", "three"], **more)
        equal([(it.index, it.object, len(it.embedding)) for it in answer.data], [(0, "embedding", 3), (1, "embedding", 3)])
        equal(answer.data[0].embedding, [7 / 1024, 2 / 1024, 7 / 1024])
        assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0, answer.usage
    equal([len(it.embedding) for it in embed("one", dimensions=2).data], [2])
    raises(openai.BadRequestError, lambda: embed(""))
    raises(openai.NotFoundError, lambda: embed("one", "no-such-model"))
    raises(openai.RateLimitError, lambda: embed("one", "fault-429"))

    async def asynchronous():
        async with openai.AsyncOpenAI(base_url=BASE_URL, api_key=KEY, max_retries=0) as other:
            return await other.embeddings.create(model=PREFIX + "echo", input="one")

    equal(len(asyncio.run(asynchronous()).data[0].embedding), 3)
    of_tokens = lambda: embed([[1, 2], [3]])
    if FROM_OPENAI:
        equal(len(of_tokens().data), 2)
    else:
        refused("embeddings of tokens", raises(openai.BadRequestError, of_tokens).message)


@check
def thinking_is_not_the_answer():
    equal(content("thinks"), "It is 42.")
    equal(collect(create("thinks", stream=True))[0], "It is 42.")


@check
def an_empty_answer():
    assert not content("empty")
    text, ends, calls, _, _ = collect(create("empty", stream=True))
    equal((text, ends, calls), ("", ["stop"], {}))


@check
def a_long_prompt():
    answer = create("empty", LONG_PROMPT)
    equal(answer.usage.prompt_tokens, 800_000)


# How answers end


@check
@proves("finish reasons")
def length():
    long = "Hello world " * 20
    answer = create("echo", long, max_tokens=16)
    equal((answer.choices[0].message.content, answer.choices[0].finish_reason), (long[:64], "length"))
    text, ends, *_ = collect(create("echo", long, max_tokens=16, stream=True))
    equal((text, ends), (long[:64], ["length"]))


@check
@proves("stop sequences")
def stop_sequences():
    for stop in ["END", ["never", "END"]]:
        ask = lambda: create("echo", "Hello END world", stop=stop)
        if UPSTREAM == "responses":
            # This API has none.
            error = raises(openai.BadRequestError, ask)
            assert "stop" in str(error), error
            refused("stop sequences", error.message)
            continue
        answer = ask()
        equal((answer.choices[0].message.content, answer.choices[0].finish_reason), ("Hello ", "stop"))


@check
@proves("finish reasons")
def content_filter():
    if UPSTREAM == "ollama":
        return
    equal(create("filtered").choices[0].finish_reason, "content_filter")
    equal(collect(create("filtered", stream=True))[1], ["content_filter"])


# Streams


@check
@proves("streaming")
def stream():
    first = next(iter(create("echo", "Hello", stream=True)))
    equal((first.choices[0].delta.role, first.choices[0].index), ("assistant", 0))
    text, ends, calls, usage, chunks = collect(create("echo", "Hello, brave new world", stream=True))
    equal((text, ends, calls, usage), ("Hello, brave new world", ["stop"], {}, None))
    assert chunks >= tokens(text), "the pieces were put together"


@check
@proves("usage")
def stream_with_usage():
    options = {"include_usage": True}
    chunks = list(create("echo", "one two three", stream=True, stream_options=options))
    last = chunks[-1]
    equal(last.choices, [])
    found = (last.usage.prompt_tokens, last.usage.completion_tokens, last.usage.total_tokens)
    equal(found, (3, tokens("one two three"), 3 + tokens("one two three")))
    equal([chunk.usage for chunk in chunks[:-1]], [None] * (len(chunks) - 1))


@check
def stream_with_cached_tokens():
    if UPSTREAM == "ollama":
        return
    options = {"include_usage": True}
    usage = collect(create("cached", "one two", stream=True, stream_options=options))[3]
    equal((usage.prompt_tokens, usage.prompt_tokens_details.cached_tokens), (66, 64))


@check
def stream_with_carriage_returns():
    equal(collect(create("crlf", "Hello, world", stream=True))[:2], ("Hello, world", ["stop"]))


@check
def stream_of_many_words():
    text = collect(create("words-3000", stream=True, max_tokens=100_000))[0]
    equal(len(text.split(" ")), 3000)
    equal(text, content("words-3000", max_tokens=100_000))


@check
@proves("streaming")
def sdk_stream_helper():
    with client.chat.completions.stream(
        model=PREFIX + "tools", messages=[{"role": "user", "content": "both"}], tools=TOOLS
    ) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "tool_calls.function.arguments.delta"} <= kinds, kinds
    calls = final.choices[0].message.tool_calls
    equal([call.function.name for call in calls], ["weather", "time"])
    equal([json.loads(call.function.arguments) for call in calls], [ARGUMENTS, {}])
    equal(final.choices[0].finish_reason, "tool_calls")


@check
def unicode():
    equal(content("echo", UNICODE), UNICODE)
    equal(collect(create("echo", UNICODE, stream=True))[0], UNICODE)


# Tools


@check
@proves("tools")
def one_tool_call():
    answer = create("tools", "How is it?", tools=TOOLS).choices[0]
    equal(answer.finish_reason, "tool_calls")
    equal(answer.message.content, "Let me look.")
    [call] = answer.message.tool_calls
    equal((call.type, call.function.name), ("function", "weather"))
    equal(json.loads(call.function.arguments), ARGUMENTS)
    assert call.id


@check
@proves("parallel tools and results")
def parallel_tool_calls_and_their_results():
    user = {"role": "user", "content": "both, please"}
    answer = create("tools", messages=[user], tools=TOOLS).choices[0]
    weather, clock = answer.message.tool_calls
    equal([weather.function.name, clock.function.name], ["weather", "time"])
    equal([json.loads(weather.function.arguments), json.loads(clock.function.arguments)], [ARGUMENTS, {}])
    assert weather.id != clock.id
    results = [
        {"role": "tool", "tool_call_id": clock.id, "content": "12:00"},
        {"role": "tool", "tool_call_id": weather.id, "content": [{"type": "text", "text": "22 °C"}]},
    ]
    history = [user, answer.message.model_dump(exclude_none=True), *results]
    equal(content("tools", messages=history, tools=TOOLS), "The tools say: time=12:00; weather=22 °C.")
    text = content("mirror", messages=[*history, {"role": "user", "content": "And?"}], tools=TOOLS, max_tokens=400)
    arguments = json.dumps(ARGUMENTS, ensure_ascii=False, separators=(",", ":"))
    equal(
        text.splitlines(),
        [
            "user: both, please",
            f"assistant: Let me look. | [call weather {arguments}] | [call time {{}}]",
            "user: [result of time: 12:00] | [result of weather: 22 °C] | And?",
            "tools: weather, time",
            "choice: auto",
            "parallel: yes",
            "max_tokens: 400",
        ],
    )


@check
def an_assistant_message_with_calls_and_no_text():
    call = {"id": "call_1", "type": "function", "function": {"name": "time", "arguments": "{}"}}
    for nothing in [None, ""]:
        history = [
            {"role": "user", "content": "When?"},
            {"role": "assistant", "content": nothing, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "12:00"},
        ]
        equal(content("tools", messages=history, tools=TOOLS), "The tools say: time=12:00.")


@check
def one_call_at_a_time():
    if UPSTREAM == "gemini":
        # Gemini has no such switch, and two calls would break the caller's word.
        error = raises(openai.BadRequestError, lambda: create("tools", "both", tools=TOOLS, parallel_tool_calls=False))
        assert "parallel_tool_calls" in str(error), error
        return
    answer = create("tools", "both", tools=TOOLS, parallel_tool_calls=False)
    equal(len(answer.choices[0].message.tool_calls), 2) if UPSTREAM == "ollama" else equal(len(answer.choices[0].message.tool_calls), 1)


@check
@proves("tool_choice")
def tool_choice():
    named = {"type": "function", "function": {"name": "time"}}
    if UPSTREAM == "ollama":
        calls = create("tools", "x", tools=TOOLS, tool_choice=named).choices[0].message.tool_calls
        equal([call.function.name for call in calls], ["weather"])
        return ignored("tool_choice")
    calls = create("tools", "x", tools=TOOLS, tool_choice=named).choices[0].message.tool_calls
    equal([call.function.name for call in calls], ["time"])
    message = create("tools", "x", tools=TOOLS, tool_choice="none").choices[0].message
    equal((message.content, message.tool_calls), ("I call no tools.", None))
    text = content("mirror", "x", tools=TOOLS, tool_choice="required", max_tokens=400)
    assert "choice: any\n" in text, text


@check
@proves("tools")
def streamed_tool_calls():
    text, ends, calls, _, _ = collect(create("tools", "both", tools=TOOLS, stream=True))
    equal((text, ends), ("Let me look.", ["tool_calls"]))
    equal(sorted(calls), [0, 1])
    equal([calls[at]["name"] for at in (0, 1)], ["weather", "time"])
    equal([json.loads(calls[at]["arguments"] or "{}") for at in (0, 1)], [ARGUMENTS, {}])
    assert calls[0]["id"] and calls[1]["id"] and calls[0]["id"] != calls[1]["id"], calls


# Models


@check
@proves("models")
def models():
    deadline = time.monotonic() + 10
    # A gateway learns the provider's list in the background.
    while (ids := {model.id for model in client.models.list()}) and PREFIX + LISTED not in ids:
        assert time.monotonic() < deadline, ids
        time.sleep(0.1)
    assert DIRECT or all(":" in identifier for identifier in ids), ids
    model = client.models.retrieve(PREFIX + LISTED)
    equal((model.id, model.object), (PREFIX + LISTED, "model"))


@check
@proves("errors")
def an_unknown_model():
    error = raises(openai.NotFoundError, lambda: create("no-such-model"))
    assert "no-such-model" in error.message, error
    raises(openai.NotFoundError, lambda: client.models.retrieve(PREFIX + "no-such-model"))


# Errors

CLASSES = {
    "fault-400": openai.BadRequestError,
    "fault-401": openai.AuthenticationError,
    "fault-403": openai.PermissionDeniedError,
    "fault-404": openai.NotFoundError,
    "fault-413": openai.APIStatusError,
    "fault-429": openai.RateLimitError,
    "fault-500": openai.InternalServerError,
    "fault-503": openai.InternalServerError,
    "fault-529": openai.InternalServerError,
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
            waits = error.response.headers.get("retry-after")
            if UPSTREAM != "gemini":
                # Google says it in the body, and only of limits.
                equal((model, waits), (model, "7" if status in (429, 503, 529) else None))
            if not DIRECT and not model.endswith(("html", "empty")):
                # Another protocol's shape would leave these empty.
                assert isinstance(error.body, dict) and error.body["message"] and error.type, (model, error.body)


@check
def error_details():
    error = raises(openai.BadRequestError, lambda: create("fault-400"))
    if FROM_OPENAI:
        equal((error.code, error.param, error.type), ("context_length_exceeded", "messages", "invalid_request_error"))
        error = raises(openai.RateLimitError, lambda: create("fault-429"))
        equal(error.response.headers["x-ratelimit-remaining-requests"], "499")
    else:
        equal(error.type, "invalid_request_error")
        assert "too long" in error.message or "exceeds the maximum" in error.message, error


@check
@proves("errors")
def wrong_requests():
    orphan = [{"role": "user", "content": "x"}, {"role": "tool", "tool_call_id": "call_9", "content": "y"}]
    call = {"id": "call_1", "type": "function", "function": {"name": "time", "arguments": "{}"}}
    unanswered = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "user", "content": "y"},
    ]
    wrong = {
        "no messages": {"messages": []},
        "a role": {"messages": [{"role": "wizard", "content": "x"}]},
        "a result without a call": {"messages": orphan, "tools": TOOLS},
        "a call without a result": {"messages": unanswered, "tools": TOOLS},
        "max_tokens": {"max_tokens": -1},
        "temperature": {"temperature": "warm"},
        "a tool that is not there": {
            "tools": TOOLS,
            "tool_choice": {"type": "function", "function": {"name": "dance"}},
        },
        "a tool's name": {"tools": [{"type": "function", "function": {"name": "a b", "parameters": TIME}}]},
        "an image": {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,%%"}}]}
            ]
        },
    }
    if UPSTREAM == "ollama":
        # It takes the others as well as it can.
        wrong = {name: wrong[name] for name in ("no messages", "a role", "temperature", "an image")}
    for name, more in wrong.items():
        try:
            error = raises(openai.APIStatusError, lambda: create("echo", **more))
        except AssertionError as reason:
            raise AssertionError(f"{name}: {reason}") from None
        equal((name, type(error)), (name, openai.BadRequestError))
        equal((name, error.type), (name, "invalid_request_error"))


@check
def no_json():
    url = f"{BASE_URL}/chat/completions"
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    answer = httpx2.post(url, headers=headers, content=b'{"model": ')
    equal((answer.status_code, answer.json()["error"]["type"]), (400, "invalid_request_error"))


@check
@proves("keys")
def wrong_key():
    stranger = client.with_options(api_key="evo_gw_wrong")
    for stream in [False, True]:
        error = raises(
            openai.AuthenticationError,
            lambda: stranger.chat.completions.create(
                model=PREFIX + "echo", messages=[{"role": "user", "content": "x"}], stream=stream
            ),
        )
        assert error.body["message"], error.body
    raises(openai.AuthenticationError, lambda: stranger.models.list())


@check
def the_sdk_tries_again():
    patient = client.with_options(max_retries=2)
    for model in ["fault-503-bare-x1", "fault-429-bare-x1"]:
        answer = patient.chat.completions.create(
            model=PREFIX + model, messages=[{"role": "user", "content": "Hello"}], max_tokens=99
        )
        equal(answer.choices[0].message.content, "Hello")


@check
def request_ids():
    answer = client.chat.completions.with_raw_response.create(
        model=PREFIX + "echo", messages=[{"role": "user", "content": "x"}]
    )
    assert answer.headers.get("x-request-id") or (DIRECT and UPSTREAM == "ollama"), answer.headers


# Streams that break: never an answer that looks whole.


@check
@proves("broken streams")
def broken_streams():
    broken = (openai.APIError, httpx2.HTTPError, ValueError)
    for model in ["cut-stream", "bad-chunk", "error-in-stream"]:
        error = raises(broken, lambda: collect(create(model, stream=True, max_tokens=900)))
        assert str(error), model
    raises(broken, lambda: collect(create("cut-tool", "both", tools=TOOLS, stream=True)))
    for model in ["cut-stream", "bad-chunk", "drop"]:
        raises(broken, lambda: create(model, max_tokens=900))
    raises(broken, lambda: create("drop", stream=True))


@check
def a_stream_without_its_end_mark():
    if UPSTREAM == "responses":
        # There the last event says why the answer ended.
        raises((openai.APIError, ValueError), lambda: collect(create("no-done", stream=True, max_tokens=900)))
        return
    # All was said, and why it ended; only the mark behind it is missing.
    text, ends, *_ = collect(create("no-done", stream=True, max_tokens=900))
    equal((len(text.split(" ")), ends), (40, ["stop"]))


# Clients that go: the provider must hear of it. Six requests that end before their answer does.


@check
@proves("cancellation")
def closed_streams():
    for _ in range(2):
        stream = create("slow", stream=True, max_tokens=900)
        for _, _ in zip(range(5), stream):
            pass
        stream.close()


@check
@proves("timeouts")
def timeouts():
    hasty = client.with_options(timeout=0.4)

    def ask(model, **more):
        return hasty.chat.completions.create(
            model=PREFIX + model, messages=[{"role": "user", "content": "x"}], max_tokens=900, **more
        )

    raises(openai.APITimeoutError, lambda: ask("silent"))
    raises(openai.APITimeoutError, lambda: ask("silent", stream=True))
    raises((openai.APITimeoutError, httpx2.TimeoutException), lambda: collect(ask("stall", stream=True)))
    raises((openai.APITimeoutError, httpx2.TimeoutException), lambda: ask("stall"))


@check
@proves("async")
def many_at_once():
    async def ask(other, at):
        text = f"number {at} " + "x" * at
        stream = at % 2 == 0
        answer = await other.chat.completions.create(
            model=PREFIX + "echo", messages=[{"role": "user", "content": text}], stream=stream, max_tokens=900
        )
        if stream:
            found = "".join([part.choices[0].delta.content or "" async for part in answer if part.choices])
        else:
            found = answer.choices[0].message.content
        equal(found, text)

    async def main():
        async with openai.AsyncOpenAI(base_url=BASE_URL, api_key=KEY, max_retries=0, timeout=30) as other:
            await asyncio.gather(*(ask(other, at) for at in range(40)))

    asyncio.run(main())


run()
