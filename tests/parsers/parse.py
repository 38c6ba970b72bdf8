"""Runs in the parsers' environment: JSON command lines in, what the parser refuses out.

`parse.py vllm` or `parse.py sglang`; one list of argument lists on standard input, a list of null
or the refusal on standard output.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys

import real_parsers


def refusal(parser: argparse.ArgumentParser, words: list[str]) -> str | None:
    """What the parser says against these words; None when it takes them."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            parser.parse_args(words)
    except SystemExit as end:
        return (said.getvalue().strip().splitlines() or [f"exit {end.code}"])[-1]
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


parser = real_parsers.PARSERS[sys.argv[1]]()
lines = json.load(sys.stdin)
json.dump([refusal(parser, words) for words in lines], sys.stdout)
