"""What the scripts of all SDKs share: what they are told, what they ask, and a table of checks that
go on after a failure.

SCRIPT BASE_URL KEY PREFIX UPSTREAM [CHECK...]

PREFIX stands before each model's name ("oai:" at a gateway). UPSTREAM says what answers in the end:
"openai", "responses", "anthropic", "gemini", or "ollama", which is asked in OpenAI's protocol and has
only part of it.
"""

import sys
import traceback

BASE_URL, KEY, PREFIX, UPSTREAM = sys.argv[1:5]
DIRECT = PREFIX == ""

CHECKS = []
# What the check that runs now found refused: capability and the gateway's words.
REFUSED = []
# What it found that the provider passes over.
IGNORED = set()
# What it could not look at.
UNTESTED = set()

# Line and paragraph separators, "next line", an emoji, a combining accent, right-to-left text, and
# what JSON escapes.
UNICODE = "a\u2028b\u2029c\u0085d 😀 e\u0301 שלום \t\"\\ \u0001 end"

PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PIXEL_BYTES = 70

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "units": {"type": "array", "items": {"type": "string"}},
        "days": {"type": "integer"},
    },
    "required": ["city"],
}
TIME = {"type": "object", "properties": {}}
ARGUMENTS = {"city": "Zürich", "units": ["°C", "K"], "days": 3}

# What a gateway is told and no provider.
PRIVATE = {"x-evo-run-id": "run-of-the-sdk-checks", "x-evo-stage": "learning", "cookie": "session=1"}

LONG_PROMPT = "word " * 800_000


def check(function):
    CHECKS.append(function)
    return function


def proves(*capabilities):
    """What works when the check passes, in the words of the matrix."""

    def mark(function):
        function.capabilities = capabilities
        return function

    return mark


def refused(capability, words):
    """Notes that the gateway refuses this, as it should, and says so."""
    assert len(words or "") > 10, f"{capability} was refused without a reason: {words!r}"
    # A route that is not there is no answer to the question.
    assert "There is no" not in words, f"{capability}: {words}"
    REFUSED.append((capability, " ".join(words.split())))


def ignored(capability):
    """Notes that the provider passes over what asks for this, which a gateway cannot know."""
    IGNORED.add(capability)


def untested(capability, error=None):
    """Notes that nothing is known: the provider tells nothing, or the gateway has no such route."""
    if error and not any(words in str(error) for words in ("There is no POST", "does not take POST")):
        raise error
    UNTESTED.add(capability)


def thinker(model):
    """A model of which a gateway may think that it thinks."""
    return {"responses": "gpt-5-", "gemini": "gemini-2.5-flash-"}.get(UPSTREAM, "") + model


# Whether the provider loads images from the net.
FETCHES = UPSTREAM != "ollama"
# What the model is shown of a question with images.
SHOWN_IMAGES = f"user: What is this? | [image image/png {PIXEL_BYTES}]"
SHOWN_IMAGES += " | [image https://example.com/cat.jpg]" if FETCHES else ""


def loadable(parts):
    """Without the last, which is an image in the net, where the provider does not load it."""
    return parts if FETCHES else parts[:-1]


# What a list calls the model `echo`.
LISTED = "echo:latest" if UPSTREAM == "ollama" else "echo"


def tokens(text):
    return -(-len(text) // 4)


def equal(found, wanted):
    if found != wanted:
        raise AssertionError(f"\n  found  {found!r}\n  wanted {wanted!r}")


def raises(kinds, function):
    try:
        result = function()
    except kinds as error:
        return error
    raise AssertionError(f"no error, but {result!r}")


def run():
    only = sys.argv[5:]
    failed = ran = 0
    for function in CHECKS:
        name = function.__name__
        if only and name not in only:
            continue
        ran += 1
        REFUSED.clear()
        IGNORED.clear()
        UNTESTED.clear()
        try:
            function()
        except Exception:
            failed += 1
            print(f"FAILED {name}\n{traceback.format_exc(limit=-2)}")
            continue
        print(f"ok {name}")
        no = UNTESTED | IGNORED | {capability for capability, _ in REFUSED}
        for capability, words in REFUSED:
            print(f"refused: {capability}: {words}")
        for capability in sorted(IGNORED):
            print(f"ignored: {capability}")
        for capability in getattr(function, "capabilities", ()):
            if capability not in no:
                print(f"works: {capability}")
    print(f"{ran} checks, {failed} failed")
    sys.exit(1 if failed else 0)
