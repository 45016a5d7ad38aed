"""Google's SDK at the address given."""

import asyncio
import base64
import json
import warnings

import httpx2
from google import genai
from google.genai import errors, types
from sdk_checks import *

NATIVE = UPSTREAM == "gemini"
# What the SDK says of answers that hold more than text.
warnings.filterwarnings("ignore")


def connect(key=KEY, timeout=20_000, **more):
    return genai.Client(
        api_key=key,
        http_options=types.HttpOptions(base_url=BASE_URL, api_version="v1beta", headers=PRIVATE, timeout=timeout, **more),
    )


client = connect()

TOOLS = [
    types.Tool(
        function_declarations=[
            types.FunctionDeclaration(name="weather", description="Weather of a city", parameters_json_schema=WEATHER),
            types.FunctionDeclaration(name="time", parameters_json_schema=TIME),
        ]
    )
]
# Otherwise the SDK calls functions by itself.
BY_HAND = types.AutomaticFunctionCallingConfig(disable=True)


def config(more):
    if "tools" in more:
        more.setdefault("automatic_function_calling", BY_HAND)
    return types.GenerateContentConfig(**more) if more else None


def create(model, contents="Hello", **more):
    return client.models.generate_content(model=PREFIX + model, contents=contents, config=config(more))


def stream(model, contents="Hello", **more):
    return client.models.generate_content_stream(model=PREFIX + model, contents=contents, config=config(more))


def said(parts):
    return "".join(part.text for part in parts or [] if part.text and not part.thought)


class Whole:
    """What an answer, whole or streamed, says altogether."""

    def __init__(self, answers):
        self.parts, self.reason, self.usage, self.count, self.model = [], None, None, 0, None
        for answer in answers:
            self.count += 1
            candidate = answer.candidates[0]
            self.parts += (candidate.content and candidate.content.parts) or []
            self.reason = candidate.finish_reason or self.reason
            self.usage = answer.usage_metadata or self.usage
            self.model = answer.model_version or self.model

    @property
    def text(self):
        return said(self.parts)

    @property
    def calls(self):
        return [part.function_call for part in self.parts if part.function_call]

    @property
    def thoughts(self):
        return "".join(part.text for part in self.parts if part.thought)


def both_ways(model, contents="Hello", **more):
    return [Whole([create(model, contents, **more)]), Whole(stream(model, contents, **more))]


def text(model, contents="Hello", **more):
    return Whole([create(model, contents, **more)]).text


def user(*parts):
    return types.Content(role="user", parts=[types.Part(text=part) if isinstance(part, str) else part for part in parts])


def model_says(*parts):
    return types.Content(role="model", parts=[types.Part(text=part) if isinstance(part, str) else part for part in parts])


def result(name, response, identifier=None):
    return types.Part(function_response=types.FunctionResponse(name=name, response=response, id=identifier))


# Content


@check
@proves("text", "streaming")
def generate():
    for answer in both_ways("echo", "Hello, Grüße 👋"):
        equal((answer.text, answer.reason), ("Hello, Grüße 👋", types.FinishReason.STOP))
        assert answer.model.endswith("echo"), answer.model


@check
@proves("usage")
def usage():
    for answer in both_ways("echo", "one two three"):
        found = (answer.usage.prompt_token_count, answer.usage.candidates_token_count, answer.usage.total_token_count)
        equal(found, (3, tokens("one two three"), 3 + tokens("one two three")))


@check
@proves("cached tokens in usage")
def cached_tokens():
    if UPSTREAM == "ollama":
        return untested("cached tokens in usage")
    for answer in both_ways("cached", "one two"):
        equal((answer.usage.prompt_token_count, answer.usage.cached_content_token_count), (66, 64))


@check
@proves("system, multi-turn")
def conversation():
    contents = [user("One"), model_says("Two"), user("Three", "Four")]
    lines = text(
        "mirror", contents, system_instruction="Be brief.", temperature=0.5, top_p=0.25, max_output_tokens=400
    ).replace("\n\n", " | ")
    equal(
        lines.splitlines(),
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
        "What is this?",
        types.Part.from_bytes(data=base64.b64decode(PIXEL), mime_type="image/png"),
        types.Part.from_uri(file_uri="https://example.com/cat.jpg", mime_type="image/jpeg"),
    ]
    equal(text("mirror", [user(*loadable(parts))]).splitlines()[0], SHOWN_IMAGES)


@check
@proves("thinking")
def thinking():
    wanted = types.ThinkingConfig(include_thoughts=True, thinking_budget=1024)
    for answer in both_ways(thinker("thinks"), thinking_config=wanted, max_output_tokens=2000):
        equal(answer.text, "It is 42.")
        equal(answer.thoughts, "Let me think: 6 × 7.")
        if NATIVE:
            equal(answer.usage.thoughts_token_count, tokens("Let me think: 6 × 7."))
            assert any(part.thought_signature for part in answer.parts), answer.parts


@check
@proves("thinking with signatures, multi-turn")
def signatures():
    wanted = types.ThinkingConfig(include_thoughts=True, thinking_budget=1024)
    model = thinker("signed")
    for answer in both_ways(model, "How is it?", tools=TOOLS, thinking_config=wanted, max_output_tokens=2000):
        [call] = answer.calls
        history = [
            user("How is it?"),
            types.Content(role="model", parts=answer.parts),
            user(result("weather", {"output": "22 °C"}, call.id)),
        ]
        found = text(model, history, tools=TOOLS, thinking_config=wanted, max_output_tokens=2000)
        equal(found, "The tools say: weather=22 °C.")


@check
def an_empty_answer():
    for answer in both_ways("empty"):
        equal((answer.text, answer.reason), ("", types.FinishReason.STOP))


@check
def a_long_prompt():
    equal(create("empty", LONG_PROMPT).usage_metadata.prompt_token_count, 800_000)


@check
@proves("structured output")
def structured_output():
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city", "days"],
        "additionalProperties": False,
    }
    more = {"response_mime_type": "application/json", "response_json_schema": schema}
    for answer in both_ways("structured", **more):
        equal(json.loads(answer.text), {"city": "Zürich", "days": 3})


@check
@proves("structured output")
def structured_output_in_the_sdks_own_words():
    import pydantic

    class Weather(pydantic.BaseModel):
        city: str
        days: int

    answer = create("structured", response_mime_type="application/json", response_schema=Weather)
    equal(answer.parsed, Weather(city="Zürich", days=3))


# How answers end


@check
@proves("finish reasons")
def length():
    long = "Hello world " * 20
    for answer in both_ways("echo", long, max_output_tokens=16):
        equal((answer.text, answer.reason), (long[:64], types.FinishReason.MAX_TOKENS))


@check
@proves("stop sequences")
def stop_sequences():
    if UPSTREAM == "responses":
        # This API has none.
        error = raises(errors.ClientError, lambda: create("echo", "Hello END world", stop_sequences=["END"]))
        equal(error.code, 400)
        return refused("stop sequences", error.message)
    for answer in both_ways("echo", "Hello END world", stop_sequences=["never", "END"]):
        equal((answer.text, answer.reason), ("Hello ", types.FinishReason.STOP))


@check
@proves("finish reasons")
def filtered():
    if UPSTREAM == "ollama":
        return
    for answer in both_ways("filtered"):
        equal(answer.reason, types.FinishReason.SAFETY)


# Streams


@check
@proves("streaming")
def stream_pieces():
    answer = Whole(stream("echo", "Hello, brave new world"))
    equal((answer.text, answer.reason), ("Hello, brave new world", types.FinishReason.STOP))
    assert answer.count >= tokens("Hello, brave new world"), "the pieces were put together"


@check
def stream_line_ends():
    for model in ["crlf", "lf"]:
        equal(Whole(stream(model, "Hello, world")).text, "Hello, world")


@check
def stream_of_many_words():
    found = Whole(stream("words-3000", max_output_tokens=20_000)).text
    equal(len(found.split(" ")), 3000)
    equal(found, text("words-3000", max_output_tokens=20_000))


@check
def unicode():
    for answer in both_ways("echo", UNICODE):
        equal(answer.text, UNICODE)


# Tools


@check
@proves("tools")
def one_tool_call():
    for answer in both_ways("tools", "How is it?", tools=TOOLS):
        equal(answer.text, "Let me look.")
        [call] = answer.calls
        equal((call.name, call.args), ("weather", ARGUMENTS))


@check
@proves("parallel tools and results")
def parallel_tool_calls_and_their_results():
    for answer in both_ways("tools", "both, please", tools=TOOLS):
        weather, clock = answer.calls
        equal([(weather.name, weather.args), (clock.name, clock.args or {})], [("weather", ARGUMENTS), ("time", {})])
        history = [
            user("both, please"),
            types.Content(role="model", parts=answer.parts),
            user(
                result("weather", {"output": "22 °C"}, weather.id),
                result("time", {"output": "12:00"}, clock.id),
            ),
        ]
        equal(text("tools", history, tools=TOOLS), "The tools say: weather=22 °C; time=12:00.")


@check
@proves("tool_choice")
def tool_choice():
    def choose(mode, *names):
        chosen = types.FunctionCallingConfig(mode=mode, allowed_function_names=list(names) or None)
        return {"tools": TOOLS, "tool_config": types.ToolConfig(function_calling_config=chosen)}

    answer = Whole([create("tools", "x", **choose("ANY", "time"))])
    if UPSTREAM == "ollama":
        return ignored("tool_choice")
    equal([call.name for call in answer.calls], ["time"])
    answer = Whole([create("tools", "x", **choose("NONE"))])
    equal((answer.text, answer.calls), ("I call no tools.", []))
    assert "choice: any\n" in text("mirror", "x", **choose("ANY"))


@check
@proves("tools")
def the_sdk_calls_functions_itself():
    def weather(city: str, units: list[str], days: int) -> str:
        """Weather of a city."""
        return f"{days} days of sun in {city}"

    answer = client.models.generate_content(
        model=PREFIX + "tools", contents="How is it?", config=types.GenerateContentConfig(tools=[weather])
    )
    assert "3 days of sun in Zürich" in answer.text, answer.text


# Counting, embeddings, models


@check
@proves("count_tokens")
def count_tokens():
    count = lambda model: client.models.count_tokens(model=PREFIX + model, contents=[user("one two three")])
    total = count("echo").total_tokens
    # Where the provider cannot count, the gateway estimates.
    equal(total, 3) if UPSTREAM in ("anthropic", "gemini", "responses") else equal(0 < total < 20, True)
    if UPSTREAM in ("anthropic", "gemini", "responses"):
        equal(raises(errors.ClientError, lambda: count("no-such-model")).code, 404)


@check
@proves("embeddings", "embeddings for a purpose")
def embeddings():
    def embed(contents, **more):
        config = types.EmbedContentConfig(**more)
        answer = client.models.embed_content(model=PREFIX + "echo", contents=contents, config=config)
        return [it.values for it in answer.embeddings]

    if UPSTREAM == "anthropic":
        error = raises(errors.ClientError, lambda: embed("one"))
        equal(error.code, 400)
        refused("embeddings for a purpose", error.message)
        return refused("embeddings", error.message)
    equal(embed(["one two", "three"]), [[7 / 1024, 2 / 1024, 7 / 1024], [5 / 1024, 1 / 1024, 5 / 1024]])
    equal([len(it) for it in embed("one", output_dimensionality=2)], [2])
    purpose = lambda: embed("one", task_type="RETRIEVAL_DOCUMENT", title="Numbers")
    if UPSTREAM == "gemini":
        equal(len(purpose()), 1)
    else:
        error = raises(errors.ClientError, purpose)
        equal(error.code, 400)
        refused("embeddings for a purpose", error.message)


@check
@proves("models")
def models():
    names = {model.name for model in client.models.list()}
    assert "models/" + PREFIX + LISTED in names, names
    equal(client.models.get(model=PREFIX + LISTED).name, "models/" + PREFIX + LISTED)


# Errors

CLASSES = {
    "fault-400": (errors.ClientError, "INVALID_ARGUMENT"),
    "fault-403": (errors.ClientError, "PERMISSION_DENIED"),
    "fault-404": (errors.ClientError, "NOT_FOUND"),
    "fault-429": (errors.ClientError, "RESOURCE_EXHAUSTED"),
    "fault-500": (errors.ServerError, "INTERNAL"),
    "fault-503": (errors.ServerError, "UNAVAILABLE"),
    "fault-502-html": (errors.ServerError, None),
    "fault-500-empty": (errors.ServerError, None),
}


@check
@proves("errors")
def error_classes():
    for model, (kind, name) in CLASSES.items():
        for ask in [create, lambda model: list(stream(model))]:
            error = raises(errors.APIError, lambda: ask(model))
            status = int(model.split("-")[1])
            equal((model, type(error), error.code), (model, kind, status))
            if name:
                equal((model, error.status), (model, name))
                assert error.message, (model, error.details)


@check
@proves("errors")
def an_unknown_model():
    error = raises(errors.ClientError, lambda: create("no-such-model"))
    equal((error.code, error.status), (404, "NOT_FOUND"))
    assert "no-such-model" in error.message, error


@check
@proves("errors")
def wrong_requests():
    wrong = {
        "no contents": {"contents": []},
        "a role": {"contents": [{"role": "wizard", "parts": [{"text": "x"}]}]},
        "an image": {"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": "%%"}}]}]},
        "temperature": {"contents": [{"parts": [{"text": "x"}]}], "generationConfig": {"temperature": "warm"}},
        "a result without a call": {
            "contents": [{"role": "user", "parts": [{"functionResponse": {"name": "time", "response": {}}}]}]
        },
    }
    for name, body in wrong.items():
        url = f"{BASE_URL}/v1beta/models/{PREFIX}echo:generateContent"
        answer = httpx2.post(url, headers={"x-goog-api-key": KEY}, json=body)
        equal((name, answer.status_code, answer.json()["error"]["status"]), (name, 400, "INVALID_ARGUMENT"))


@check
@proves("keys")
def wrong_key():
    stranger = connect("evo_gw_wrong")
    for ask in [stranger.models.generate_content, lambda **more: list(stranger.models.generate_content_stream(**more))]:
        error = raises(errors.ClientError, lambda: ask(model=PREFIX + "echo", contents="x"))
        # Google answers 400 to a wrong key.
        assert error.code == (400 if DIRECT else 401), error
        assert error.message, error


@check
@proves("keys")
def a_key_in_the_url():
    url = f"{BASE_URL}/v1beta/models/{PREFIX}echo:generateContent?key={KEY}"
    answer = httpx2.post(url, json={"contents": [{"parts": [{"text": "Hello"}]}]})
    equal((answer.status_code, answer.json()["candidates"][0]["content"]["parts"][0]["text"]), (200, "Hello"))


# Streams that break: never an answer that looks whole.


@check
@proves("broken streams")
def broken_streams():
    broken = (errors.APIError, errors.UnknownApiResponseError, httpx2.HTTPError, ValueError)
    for model in ["cut-stream", "bad-chunk", "error-in-stream", "drop"]:
        raises(broken, lambda: Whole(stream(model, max_output_tokens=900)))
    for model in ["cut-stream", "bad-chunk", "drop"]:
        raises(broken, lambda: create(model, max_output_tokens=900))


# Clients that go: the provider must hear of it. Six requests that end before their answer does.


@check
@proves("cancellation")
def closed_streams():
    for _ in range(2):
        with connect() as other:
            answers = other.models.generate_content_stream(model=PREFIX + "slow", contents="x")
            for _, _ in zip(range(5), answers):
                pass
            answers.close()


@check
@proves("timeouts")
def timeouts():
    hasty = connect(timeout=400)
    gone = (httpx2.TimeoutException, errors.APIError)

    def ask(model):
        return hasty.models.generate_content(model=PREFIX + model, contents="x")

    def listen(model):
        return list(hasty.models.generate_content_stream(model=PREFIX + model, contents="x"))

    for ways in [ask, listen]:
        for model in ["silent", "stall"]:
            error = raises(gone, lambda: ways(model))
            assert isinstance(error, httpx2.TimeoutException), error


@check
@proves("async")
def many_at_once():
    async def ask(other, at):
        wanted = f"number {at} " + "x" * at
        if at % 2 == 0:
            answers = await other.models.generate_content_stream(model=PREFIX + "echo", contents=wanted)
            found = "".join([said(it.candidates[0].content.parts) async for it in answers])
        else:
            answer = await other.models.generate_content(model=PREFIX + "echo", contents=wanted)
            found = answer.text
        equal(found, wanted)

    async def main():
        async with connect().aio as other:
            await asyncio.gather(*(ask(other, at) for at in range(40)))

    asyncio.run(main())


run()
