"""The Anthropic SDK at the address given."""

import asyncio
import json
import time

import anthropic
import httpx2
from sdk_checks import *

NATIVE = UPSTREAM == "anthropic"
client = anthropic.Anthropic(base_url=BASE_URL, api_key=KEY, max_retries=0, timeout=20, default_headers=PRIVATE)

# Only the first version of the API knows these.
SAMPLING = {
    "extra_body": {"temperature": 0.5, "top_p": 0.25},
    "extra_headers": {"anthropic-version": "2023-06-01"},
}

TOOLS = [
    {"name": "weather", "description": "Weather of a city", "input_schema": WEATHER},
    {"name": "time", "input_schema": TIME},
]


def request(model, text, more):
    messages = more.pop("messages", [{"role": "user", "content": text}])
    return {"model": PREFIX + model, "messages": messages, "max_tokens": more.pop("max_tokens", 900), **more}


def create(model, text="Hello", **more):
    return client.messages.create(**request(model, text, more))


def said(answer):
    return "".join(block.text for block in answer.content if block.type == "text")


def content(model, text="Hello", **more):
    return said(create(model, text, **more))


def final(model, text="Hello", **more):
    """The whole message that the SDK puts together from a stream."""
    with client.messages.stream(**request(model, text, more)) as stream:
        return stream.get_final_message()


def shown(*arguments, **more):
    """The lines of what the model was shown; a provider may be given several texts as one."""
    return content("mirror", *arguments, **more).replace("\n\n", " | ").splitlines()


def both_ways(model, text="Hello", **more):
    return [create(model, text, **more), final(model, text, **more)]


def visible(kinds):
    """Without what carries the seal of another provider's model."""
    return [kind for kind in kinds if kind != "redacted_thinking"]


def uses(answer):
    return [block for block in answer.content if block.type == "tool_use"]


# Messages


@check
@proves("text")
def message():
    for answer in both_ways("echo", "Hello, Grüße 👋"):
        equal((answer.type, answer.role, answer.stop_reason), ("message", "assistant", "end_turn"))
        equal([(block.type, block.text) for block in answer.content], [("text", "Hello, Grüße 👋")])
        assert answer.id and answer.model.endswith("echo"), answer


@check
@proves("usage")
def usage():
    for answer in both_ways("echo", "one two three"):
        equal((answer.usage.input_tokens, answer.usage.output_tokens), (3, tokens("one two three")))


@check
@proves("cached tokens in usage")
def cached_tokens():
    if UPSTREAM == "ollama":
        return untested("cached tokens in usage")
    for answer in both_ways("cached", "one two"):
        equal((answer.usage.input_tokens, answer.usage.cache_read_input_tokens), (2, 64))


@check
@proves("system, multi-turn")
def conversation():
    lines = shown(
        system="Be brief.",
        messages=[
            {"role": "user", "content": "One"},
            {"role": "assistant", "content": [{"type": "text", "text": "Two"}]},
            {"role": "user", "content": [{"type": "text", "text": "Three"}, {"type": "text", "text": "Four"}]},
        ],
        max_tokens=400,
        **SAMPLING,
    )
    equal(
        lines,
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
def system_blocks():
    system = [
        {"type": "text", "text": "First."},
        {"type": "text", "text": "Second.", "cache_control": {"type": "ephemeral"}},
    ]
    equal(shown(system=system)[0], "system: First. | Second.")


@check
def a_system_message_in_between():
    messages = [
        {"role": "user", "content": "One"},
        {"role": "assistant", "content": "Two"},
        {"role": "system", "content": "From now on in French."},
        {"role": "user", "content": "Three"},
    ]
    lines = shown(system="Be brief.", messages=messages)
    equal(lines[0], "system: Be brief. | From now on in French.")


@check
@proves("images")
def images():
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
        {"type": "image", "source": {"type": "url", "url": "https://example.com/cat.jpg"}},
    ]
    text = content("mirror", messages=[{"role": "user", "content": loadable(parts)}])
    equal(text.splitlines()[0], SHOWN_IMAGES)


@check
def harmless_parameters():
    equal(content("echo", "Hello", metadata={"user_id": "someone"}, service_tier="auto"), "Hello")


@check
@proves("thinking")
def thinking():
    budget = {"type": "enabled", "budget_tokens": 1024}
    for answer in both_ways(thinker("thinks"), thinking=budget, max_tokens=2000):
        equal(said(answer), "It is 42.")
        equal([block.thinking for block in answer.content if block.type == "thinking"], ["Let me think: 6 × 7."])
        if NATIVE:
            equal([block.type for block in answer.content], ["thinking", "text"])
            thought = answer.content[0]
            equal(thought.thinking, "Let me think: 6 × 7.")
            # The signature must come back as it was, or the service refuses it.
            history = [
                {"role": "user", "content": "x"},
                {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in answer.content]},
                {"role": "user", "content": "y"},
            ]
            equal(content("echo", messages=history), "y")


@check
def an_empty_answer():
    for answer in both_ways("empty"):
        equal((said(answer), answer.stop_reason), ("", "end_turn"))


@check
def a_long_prompt():
    equal(create("empty", LONG_PROMPT).usage.input_tokens, 800_000)


@check
def the_version_of_the_api():
    # The SDK asks for a version without these parameters; the provider must hear which one.
    if NATIVE:
        error = raises(anthropic.BadRequestError, lambda: create("echo", extra_body={"temperature": 0.5}))
        assert "temperature: Extra inputs are not permitted" in error.message, error


@check
def beta():
    answer = client.beta.messages.create(
        model=PREFIX + "echo",
        max_tokens=99,
        betas=["context-1m-2025-08-07"],
        messages=[{"role": "user", "content": "x"}],
        # As SDKs before 2.0 and Claude Code ask.
        extra_query={"beta": "true"},
    )
    equal(answer.content[0].text, "x")


# How answers end


@check
@proves("finish reasons")
def length():
    long = "Hello world " * 20
    for answer in both_ways("echo", long, max_tokens=16):
        equal((said(answer), answer.stop_reason), (long[:64], "max_tokens"))


@check
@proves("stop sequences")
def stop_sequences():
    more = {"stop_sequences": ["never", "END"]}
    if UPSTREAM == "responses":
        # This API has none.
        error = raises(anthropic.BadRequestError, lambda: create("echo", "Hello END world", **more))
        assert "stop" in error.message, error
        refused("stop sequences", error.message)
        return
    for answer in both_ways("echo", "Hello END world", **more):
        equal(said(answer), "Hello ")
        # Others do not tell which sequence it was, nor that it was one.
        equal((answer.stop_reason, answer.stop_sequence), ("stop_sequence", "END") if NATIVE else ("end_turn", None))


@check
@proves("thinking with signatures, multi-turn")
def signatures():
    budget = {"type": "enabled", "budget_tokens": 1024}
    user = {"role": "user", "content": "How is it?"}
    model = thinker("signed")
    for answer in both_ways(model, "How is it?", tools=TOOLS, thinking=budget, max_tokens=2000):
        [use] = uses(answer)
        result = {"type": "tool_result", "tool_use_id": use.id, "content": "22 °C"}
        kept = {"type", "text", "id", "name", "input", "thinking", "signature", "data"}
        blocks = [block.model_dump(include=kept, exclude_none=True) for block in answer.content]
        history = [user, {"role": "assistant", "content": blocks}, {"role": "user", "content": [result]}]
        found = content(model, messages=history, tools=TOOLS, thinking=budget, max_tokens=2000)
        equal(found, "The tools say: weather=22 °C.")


@check
@proves("structured output")
def structured_output():
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city", "days"],
        "additionalProperties": False,
    }
    output = {"format": {"type": "json_schema", "schema": schema}}
    for answer in both_ways("structured", "x", output_config=output):
        equal(json.loads(said(answer)), {"city": "Zürich", "days": 3})


@check
@proves("count_tokens")
def count_tokens():
    messages = [{"role": "user", "content": "one two three"}]
    ask = lambda model="echo", **more: client.messages.count_tokens(model=PREFIX + model, messages=messages, **more)
    short, long = ask().input_tokens, ask(system="four five", tools=TOOLS).input_tokens
    equal(client.beta.messages.count_tokens(model=PREFIX + "echo", messages=messages).input_tokens, short)
    assert short < long, (short, long)
    # Where the provider cannot count, the gateway estimates, and says so.
    estimated = client.messages.with_raw_response.count_tokens(model=PREFIX + "echo", messages=messages)
    if UPSTREAM in ("anthropic", "gemini", "responses"):
        equal(short, 3)
        equal(estimated.headers.get("x-evo-estimated"), None)
        raises(anthropic.NotFoundError, lambda: ask("no-such-model"))
        raises(anthropic.RateLimitError, lambda: ask("fault-429"))
    elif UPSTREAM == "responses":
        equal((short, estimated.headers.get("x-evo-estimated")), (3, None))
    else:
        equal((short < 20, estimated.headers.get("x-evo-estimated")), (True, "true"))


@check
@proves("finish reasons")
def refusal():
    if UPSTREAM == "ollama":
        return
    for answer in both_ways("filtered"):
        equal(answer.stop_reason, "refusal")


# Streams


@check
@proves("streaming")
def stream_events():
    stream = create("echo", "Hello, brave new world", stream=True)
    events = list(stream)
    kinds = [event.type for event in events]
    equal(kinds[:2], ["message_start", "content_block_start"])
    equal(kinds[-3:], ["content_block_stop", "message_delta", "message_stop"])
    deltas = [event for event in events if event.type == "content_block_delta"]
    equal("".join(event.delta.text for event in deltas), "Hello, brave new world")
    assert len(deltas) >= tokens("Hello, brave new world"), "the pieces were put together"
    equal({event.index for event in deltas}, {0})
    start = events[0].message
    equal((start.role, start.content, start.stop_reason), ("assistant", [], None))
    assert start.usage is not None and start.model.endswith("echo") and start.id, start
    equal(events[-2].delta.stop_reason, "end_turn")
    equal(events[-2].usage.output_tokens, tokens("Hello, brave new world"))


@check
def stream_blocks_are_in_order():
    stream = create("tools", "both", tools=TOOLS, stream=True)
    open_block, seen = None, []
    for event in stream:
        if event.type == "content_block_start":
            equal((open_block, event.index), (None, len(seen)))
            open_block = event.index
            seen.append(event.content_block.type)
        elif event.type == "content_block_delta":
            equal(event.index, open_block)
        elif event.type == "content_block_stop":
            equal(event.index, open_block)
            open_block = None
        elif event.type in ("message_delta", "message_stop"):
            equal(open_block, None)
    equal(visible(seen), ["text", "tool_use", "tool_use"])


@check
@proves("streaming")
def stream_text():
    with client.messages.stream(**request("echo", "Hello, world", {})) as stream:
        equal("".join(stream.text_stream), "Hello, world")


@check
def stream_with_carriage_returns():
    equal(said(final("crlf", "Hello, world")), "Hello, world")


@check
def stream_of_many_words():
    text = said(final("words-3000", max_tokens=20_000))
    equal(len(text.split(" ")), 3000)
    equal(text, content("words-3000", max_tokens=20_000))


@check
def unicode():
    for answer in both_ways("echo", UNICODE):
        equal(said(answer), UNICODE)


# Tools


@check
@proves("tools")
def one_tool_call():
    for answer in both_ways("tools", "How is it?", tools=TOOLS):
        equal(answer.stop_reason, "tool_use")
        equal(visible(block.type for block in answer.content), ["text", "tool_use"])
        equal(said(answer), "Let me look.")
        [use] = uses(answer)
        equal((use.name, use.input), ("weather", ARGUMENTS))
        assert use.id


@check
@proves("parallel tools and results")
def parallel_tool_calls_and_their_results():
    for answer in both_ways("tools", "both, please", tools=TOOLS):
        weather, clock = uses(answer)
        equal([(weather.name, weather.input), (clock.name, clock.input)], [("weather", ARGUMENTS), ("time", {})])
        assert weather.id != clock.id
        results = [
            {"type": "tool_result", "tool_use_id": clock.id, "content": "12:00"},
            {"type": "tool_result", "tool_use_id": weather.id, "content": [{"type": "text", "text": "22 °C"}]},
        ]
        blocks = [block.model_dump(include={"type", "text", "id", "name", "input"}, exclude_none=True) for block in answer.content]
        history = [
            {"role": "user", "content": "both, please"},
            {"role": "assistant", "content": blocks},
            {"role": "user", "content": results},
        ]
        equal(content("tools", messages=history, tools=TOOLS), "The tools say: time=12:00; weather=22 °C.")
        history[-1] = {"role": "user", "content": [*results, {"type": "text", "text": "And?"}]}
        text = content("mirror", messages=history, tools=TOOLS, max_tokens=400)
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
def a_failed_tool_and_one_without_output():
    use = {"type": "tool_use", "id": "toolu_1", "name": "time", "input": {}}
    for result in [{"content": "no clock", "is_error": True}, {}]:
        history = [
            {"role": "user", "content": "When?"},
            {"role": "assistant", "content": [use]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", **result}]},
        ]
        text = content("tools", messages=history, tools=TOOLS)
        assert text.startswith("The tools say: time=") and result.get("content", "") in text, text


@check
def one_call_at_a_time():
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    if UPSTREAM == "gemini":
        # Gemini has no such switch, and two calls would break the caller's word.
        error = raises(anthropic.BadRequestError, lambda: create("tools", "both", tools=TOOLS, tool_choice=choice))
        assert "parallel_tool" in error.message, error
        return
    most = 2 if UPSTREAM == "ollama" else 1
    equal(len(uses(create("tools", "both", tools=TOOLS, tool_choice=choice))), most)


@check
@proves("tool_choice")
def tool_choice():
    answer = create("tools", "x", tools=TOOLS, tool_choice={"type": "tool", "name": "time"})
    if UPSTREAM == "ollama":
        return ignored("tool_choice")
    equal([use.name for use in uses(answer)], ["time"])
    answer = create("tools", "x", tools=TOOLS, tool_choice={"type": "none"})
    equal((said(answer), uses(answer)), ("I call no tools.", []))
    assert "choice: any\n" in content("mirror", "x", tools=TOOLS, tool_choice={"type": "any"})


# Models


@check
@proves("models")
def models():
    deadline = time.monotonic() + 10
    # A gateway learns the provider's list in the background.
    while (ids := {model.id for model in client.models.list()}) and PREFIX + LISTED not in ids:
        assert time.monotonic() < deadline, ids
        time.sleep(0.1)
    equal(client.models.retrieve(PREFIX + LISTED).id, PREFIX + LISTED)


@check
@proves("errors")
def an_unknown_model():
    error = raises(anthropic.NotFoundError, lambda: create("no-such-model"))
    equal(error.type, "not_found_error")
    assert "no-such-model" in error.message, error


# Errors

CLASSES = {
    "fault-400": (anthropic.BadRequestError, "invalid_request_error"),
    "fault-401": (anthropic.AuthenticationError, "authentication_error"),
    "fault-403": (anthropic.PermissionDeniedError, "permission_error"),
    "fault-404": (anthropic.NotFoundError, "not_found_error"),
    "fault-413": (anthropic.APIStatusError, "request_too_large"),
    "fault-429": (anthropic.RateLimitError, "rate_limit_error"),
    "fault-500": (anthropic.InternalServerError, "api_error"),
    "fault-503": (anthropic.InternalServerError, None),
    "fault-529": (anthropic.InternalServerError, "overloaded_error"),
    "fault-502-html": (anthropic.InternalServerError, None),
    "fault-500-empty": (anthropic.InternalServerError, None),
}


@check
@proves("errors")
def error_classes():
    for model, (kind, name) in CLASSES.items():
        for stream in [False, True]:
            error = raises(anthropic.APIStatusError, lambda: create(model, stream=stream))
            status = int(model.split("-")[1])
            equal((model, stream, error.status_code), (model, stream, status))
            assert isinstance(error, kind), (model, type(error))
            if name:
                equal((model, stream, error.type), (model, stream, name))
            waits = error.response.headers.get("retry-after")
            if UPSTREAM != "gemini":
                # Google says it in the body, and only of limits.
                equal((model, waits), (model, "7" if status in (429, 503, 529) else None))
            if not DIRECT and not model.endswith(("html", "empty")):
                equal((model, error.body["type"]), (model, "error"))
                assert error.api_message, (model, error.body)
    assert isinstance(raises(anthropic.APIStatusError, lambda: create("fault-529")), anthropic.OverloadedError)


@check
def error_details():
    error = raises(anthropic.RateLimitError, lambda: create("fault-429"))
    if NATIVE:
        equal(error.response.headers["anthropic-ratelimit-requests-remaining"], "49")
        assert error.request_id, error.response.headers


@check
@proves("errors")
def wrong_requests():
    use = {"type": "tool_use", "id": "toolu_1", "name": "time", "input": {}}
    user = {"role": "user", "content": "x"}
    orphan = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_9", "content": "y"}]}
    wrong = {
        "no messages": {"messages": []},
        "a role": {"messages": [{"role": "wizard", "content": "x"}]},
        "a result without a call": {"messages": [user, {"role": "assistant", "content": "z"}, orphan], "tools": TOOLS},
        "a call without a result": {"messages": [user, {"role": "assistant", "content": [use]}, user], "tools": TOOLS},
        "max_tokens": {"max_tokens": -1},
        "temperature": {"extra_body": {"temperature": "warm"}},
        "a tool that is not there": {"tools": TOOLS, "tool_choice": {"type": "tool", "name": "dance"}},
        "a tool's name": {"tools": [{"name": "a b", "input_schema": TIME}]},
        "an image": {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "%%"}}],
                }
            ]
        },
    }
    if UPSTREAM == "ollama":
        # It takes the others as well as it can.
        wrong = {name: wrong[name] for name in ("no messages", "a role", "temperature", "an image")}
    for name, more in wrong.items():
        try:
            error = raises(anthropic.APIStatusError, lambda: create("echo", **more))
        except AssertionError as reason:
            raise AssertionError(f"{name}: {reason}") from None
        equal((name, type(error), error.type), (name, anthropic.BadRequestError, "invalid_request_error"))


@check
def no_json():
    headers = {"x-api-key": KEY, "anthropic-version": "2023-06-01", "content-type": "application/json"}
    answer = httpx2.post(f"{BASE_URL}/v1/messages", headers=headers, content=b'{"model": ')
    body = answer.json()
    equal((answer.status_code, body["type"], body["error"]["type"]), (400, "error", "invalid_request_error"))


@check
def no_max_tokens():
    headers = {"x-api-key": KEY, "anthropic-version": "2023-06-01"}
    body = {"model": PREFIX + "echo", "messages": [{"role": "user", "content": "x"}]}
    answer = httpx2.post(f"{BASE_URL}/v1/messages", headers=headers, json=body)
    if NATIVE:
        equal((answer.status_code, answer.json()["error"]["message"]), (400, "max_tokens: Field required"))


@check
@proves("keys")
def wrong_key():
    stranger = client.with_options(api_key="evo_gw_wrong")
    for stream in [False, True]:
        more = request("echo", "x", {"stream": stream})
        error = raises(anthropic.AuthenticationError, lambda: stranger.messages.create(**more))
        equal(error.type, "authentication_error")
    raises(anthropic.AuthenticationError, lambda: stranger.models.list())


@check
def a_key_in_the_header_of_older_sdks():
    # This SDK sends a bearer token.
    headers = {"x-api-key": KEY, "anthropic-version": "2023-06-01"}
    body = request("echo", "Hello", {})
    answer = httpx2.post(f"{BASE_URL}/v1/messages", headers=headers, json=body)
    equal((answer.status_code, answer.json()["content"][0]["text"]), (200, "Hello"))


@check
def the_sdk_tries_again():
    patient = client.with_options(max_retries=2)
    for model in ["fault-503-bare-x1", "fault-429-bare-x1", "fault-529-bare-x1"]:
        equal(said(patient.messages.create(**request(model, "Hello", {}))), "Hello")


# Streams that break: never an answer that looks whole.


@check
@proves("broken streams")
def broken_streams():
    broken = (anthropic.APIError, httpx2.HTTPError, ValueError)
    for model in ["cut-stream", "bad-chunk", "error-in-stream"]:
        error = raises(broken, lambda: list(create(model, stream=True)))
        assert str(error), model
    raises(broken, lambda: list(create("cut-tool", "both", tools=TOOLS, stream=True)))
    for model in ["cut-stream", "bad-chunk", "drop"]:
        raises(broken, lambda: create(model))
    raises(broken, lambda: create("drop", stream=True))


@check
def an_error_in_a_stream_keeps_its_class():
    error = raises(anthropic.APIStatusError, lambda: list(create("error-in-stream", stream=True)))
    equal(error.type, "overloaded_error" if UPSTREAM in ("anthropic", "gemini") else "api_error")


# Clients that go: the provider must hear of it. Six requests that end before their answer does.


@check
@proves("cancellation")
def closed_streams():
    for _ in range(2):
        stream = create("slow", stream=True)
        for _, _ in zip(range(5), stream):
            pass
        stream.close()


@check
@proves("timeouts")
def timeouts():
    hasty = client.with_options(timeout=0.4)

    def ask(model, **more):
        return hasty.messages.create(**request(model, "x", more))

    raises(anthropic.APITimeoutError, lambda: ask("silent"))
    raises(anthropic.APITimeoutError, lambda: ask("silent", stream=True))
    raises((anthropic.APITimeoutError, httpx2.TimeoutException), lambda: list(ask("stall", stream=True)))
    raises((anthropic.APITimeoutError, httpx2.TimeoutException), lambda: ask("stall"))


@check
@proves("async")
def many_at_once():
    async def ask(other, at):
        text = f"number {at} " + "x" * at
        if at % 2 == 0:
            async with other.messages.stream(**request("echo", text, {})) as stream:
                found = await stream.get_final_text()
        else:
            found = said(await other.messages.create(**request("echo", text, {})))
        equal(found, text)

    async def main():
        async with anthropic.AsyncAnthropic(base_url=BASE_URL, api_key=KEY, max_retries=0, timeout=30) as other:
            await asyncio.gather(*(ask(other, at) for at in range(40)))

    asyncio.run(main())


run()
