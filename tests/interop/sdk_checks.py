"""A table of checks that go on after a failure, and what both SDKs are asked."""

import sys
import traceback

CHECKS = []

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
    failed = 0
    for function in CHECKS:
        name = function.__name__
        if only and name not in only:
            continue
        try:
            function()
        except Exception:
            failed += 1
            print(f"FAILED {name}\n{traceback.format_exc(limit=-2)}")
        else:
            print(f"ok {name}")
    print(f"{len(CHECKS)} checks, {failed} failed")
    sys.exit(1 if failed else 0)
