"""Runs one attack or its control, and says what became of it."""

import importlib
import json
import sys


class Blocked(Exception):
    """An attack that was stopped without an error of the system."""


def main():
    job = json.load(sys.stdin)
    function = getattr(importlib.import_module(job["module"]), f"{job['kind']}_{job['name']}")
    try:
        outcome, detail = "succeeded", function(job["parameters"])
    except (OSError, MemoryError, Blocked) as error:
        outcome, detail = "blocked", f"{type(error).__name__}: {error}"
    # Whatever else is raised ends this program: then the attack did not run.
    print(json.dumps({"outcome": outcome, "detail": str(detail)[:300]}), flush=True)


# Attacks import Blocked from the module of this name.
sys.modules["main"] = sys.modules[__name__]
if __name__ == "__main__":
    main()
