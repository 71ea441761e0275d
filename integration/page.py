"""What the reader of a story sees: headings, commands with what they printed, what was checked.

    page = Page()
    page.head("Two pods")
    page.show("ip route", output)
    page.expect(reached, "one reaches the other")      # Broken if it does not

In colours on a terminal only.
"""

from __future__ import annotations

import os
import sys
import textwrap

HEADING, COMMAND, GOOD, BAD = "1;36", "2", "32", "1;31"
WIDTH = 100


class Broken(Exception):
    """Something is not as it should be."""


class Page:
    """See above; `checks` counts what was found to hold."""

    def __init__(self) -> None:
        self._coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self._headings = 0
        self._below_heading = False
        self.checks = 0

    def write(self, text: str, colour: str = "") -> None:
        """A piece of text with its line end."""
        if colour and self._coloured:
            text = f"\033[{colour}m{text}\033[0m"
        print(text, flush=True)
        self._below_heading = False

    def head(self, text: str) -> None:
        """The next step's name."""
        self._headings += 1
        self.write(f"\n=== {self._headings}. {text} ===\n", HEADING)
        self._below_heading = True

    def say(self, text: str) -> None:
        """A paragraph of prose."""
        before = "" if self._below_heading else "\n"
        self.write(f"{before}{textwrap.fill(' '.join(text.split()), WIDTH)}\n")

    def show(self, command: str, output: str, prompt: str = "$") -> None:
        """A command, and what it printed."""
        self.write(f"{prompt} {command}", COMMAND)
        if output.strip():
            self.write(output.rstrip())
        elif command.startswith("ip "):
            self.write("(nothing)")

    def expect(self, holds: bool, sentence: str) -> None:
        """Say that something holds. Raises Broken if it does not."""
        if not holds:
            raise Broken(sentence)
        self.checks += 1
        self.write(f"  ok  {sentence}", GOOD)
