"""LangChain's chat models at the address given: all of them at a gateway, one at a provider itself."""

import asyncio

import anthropic
import openai
import pydantic
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_google_genai import ChatGoogleGenerativeAI
from langchain_google_genai.chat_models import ChatGoogleGenerativeAIError
from langchain_openai import ChatOpenAI
from sdk_checks import *


def chat(model, **more):
    base = BASE_URL if DIRECT else f"{BASE_URL}/v1"
    return ChatOpenAI(model=PREFIX + model, base_url=base, api_key=KEY, max_retries=0, timeout=20, stream_usage=True, **more)


def responses(model, **more):
    return chat(model, use_responses_api=True, **more)


def messages(model, **more):
    more = {"max_tokens": 900, **more}
    return ChatAnthropic(model=PREFIX + model, base_url=BASE_URL, api_key=KEY, max_retries=0, timeout=20, **more)


def gemini(model, **more):
    more = {"max_output_tokens" if name == "max_tokens" else name: value for name, value in more.items()}
    return ChatGoogleGenerativeAI(
        model=PREFIX + model, base_url=BASE_URL, google_api_key=KEY, max_retries=1, timeout=20, **more
    )


MODELS = {
    "ChatOpenAI": (chat, "openai", openai.RateLimitError, openai.AuthenticationError),
    "ChatOpenAI (Responses)": (responses, "responses", openai.RateLimitError, openai.AuthenticationError),
    "ChatAnthropic": (messages, "anthropic", anthropic.RateLimitError, anthropic.AuthenticationError),
    "ChatGoogleGenerativeAI": (gemini, "gemini", ChatGoogleGenerativeAIError, ChatGoogleGenerativeAIError),
}


def each(capability):
    """A check of every chat model that fits."""

    def register(function):
        for name, (make, protocol, *errors) in MODELS.items():
            if DIRECT and protocol != UPSTREAM:
                continue

            def ask(make=make, name=name, errors=errors):
                function(make, name, *errors)

            ask.__name__ = f"{function.__name__}[{name}]"
            check(proves(f"{name}: {capability}")(ask))
        return function

    return register


class Weather(pydantic.BaseModel):
    """Weather of a city."""

    city: str
    days: int


class time(pydantic.BaseModel):
    """The time."""


@each("invoke")
def invoke(make, name, *_):
    answer = make("mirror", max_tokens=400).invoke([SystemMessage("Be brief."), HumanMessage("Grüße 👋")])
    equal(answer.text.splitlines()[:2], ["system: Be brief.", "user: Grüße 👋"])
    answer = make("echo").invoke("one two three")
    equal(answer.text, "one two three")
    found = answer.usage_metadata
    equal((found["input_tokens"], found["output_tokens"]), (3, tokens("one two three")))


@each("stream")
def stream(make, name, *_):
    whole, count = None, 0
    for chunk in make("echo").stream("Hello, brave new world"):
        whole = chunk if whole is None else whole + chunk
        count += 1
    equal(whole.text, "Hello, brave new world")
    assert count >= 5, count
    equal(whole.usage_metadata["output_tokens"], tokens("Hello, brave new world"))


@each("bind_tools")
def bind_tools(make, name, *_):
    model = make("tools").bind_tools([Weather, time])
    question = HumanMessage("both, please")
    whole = None
    for chunk in model.stream([question]):
        whole = chunk if whole is None else whole + chunk
    for answer in [model.invoke([question]), whole]:
        equal([call["name"] for call in answer.tool_calls], ["Weather", "time"])
        equal([call["args"] for call in answer.tool_calls], [ARGUMENTS, {}])
        results = [ToolMessage("22 °C", tool_call_id=call["id"], name=call["name"]) for call in answer.tool_calls]
        said = model.invoke([question, AIMessage(answer.content, tool_calls=answer.tool_calls), *results])
        equal(said.text, "The tools say: Weather=22 °C; time=22 °C.")


@each("with_structured_output")
def with_structured_output(make, name, *_):
    model = make("structured")
    if UPSTREAM == "ollama" and name == "ChatAnthropic":
        # It has the model call a tool, which Ollama does not do.
        return ignored(f"{name}: with_structured_output")
    equal(model.with_structured_output(Weather).invoke("x"), Weather(city="Zürich", days=3))


@each("batch, async")
def batch(make, name, *_):
    texts = [f"number {at}" for at in range(8)]
    equal([answer.text for answer in make("echo").batch(texts)], texts)

    async def main():
        model = make("echo")
        equal((await model.ainvoke("Hello")).text, "Hello")
        equal("".join([chunk.text async for chunk in model.astream("Hello, world")]), "Hello, world")

    asyncio.run(main())


@each("images")
def images(make, name, *_):
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image", "base64": PIXEL, "mime_type": "image/png"},
    ]
    answer = make("mirror", max_tokens=400).invoke([HumanMessage(content=parts)])
    equal(answer.text.splitlines()[0], SHOWN_IMAGES.partition(" | [image http")[0])


@each("errors")
def errors(make, name, limited, stranger):
    error = raises(limited, lambda: make("fault-429").invoke("x"))
    assert "429" in str(error) or "RESOURCE_EXHAUSTED" in str(error), error
    error = raises(Exception, lambda: make("fault-401").invoke("x"))
    assert isinstance(error, stranger), type(error)
    raises(Exception, lambda: list(make("cut-stream", max_tokens=900).stream("x")))


run()
