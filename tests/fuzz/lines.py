"""Command lines as users and scripts get them wrong: every option of every command,
walked from the app itself."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from hypothesis import strategies as st

from minigpt.cli.main import app

WORDS = [
    "", " ", ".", "..", "/", "~", "~nobody", "~nosuchuser", "-", "--", "--help", "=", "%s", "{}", "$(ls)",
    "; ls", "*", "a/b", "a/../b",
    "0", "1", "2", "-1", "2.5", "1e3", "1e400", "-0.0", "nan", "NaN", "inf", "-inf", "0x10", "1_000",
    " 5 ", "\u0663", "\u00b2",
    "9" * 30, "-" + "9" * 30, "9" * 5000, str(2**63 - 1), str(2**63), "true", "off", "null", "None",
    "auto", "healthy",
    "cpu", "cpu:0", "cuda", "cuda:0", "cuda:99999999999999999999", "cuda:" + "1" * 5000, "mps", "meta",
    "CPU", "xx", "zh",
    "small", "smal", "medum", "fp32", "bf16", "loss=x", "loss=", "=x", "loss=x,loss=y", "x=loss", ",",
    "training.max_steps=1",
    "training.max_steps", "model=1", "optimizer.betas=[0.9", "a..b=1", "data.source=gone", "text\x00nul",
    "new\nline", "tab\t",
    "\udcff\udcfe", "\u00fcn\u00ef \u8bcd", "\U0001f600", "\u202egpj", "\x1b[31mred",
    "x" * 300, "x" * 5000, "x/" * 2000, "'", '"',
    "missing", "missing/deeper", "tiny.yaml", "tiny.yaml/x", "run", "run/", "./run", "run/config.yaml",
    "run/metrics.jsonl",
    "run/checkpoint_step_2.pt", "run/tokenizer.json", "corpus", "corpus/0.txt", "fifo", "socket", "loop",
    "nowhere", "empty",
    "empty_folder", "binary", "text.pt", "list.yaml", "broken.yaml", "locked", "/dev/null", "/dev/zero",
    "/dev/full",
    "/proc/self/environ", "/proc/self/mem", "/dev/stdin",
]  # fmt: skip
"""What each option gets in turn; those that name files are laid out by `lay_out`."""

ALL_DEFAULTS = ("small", "empty", "/dev/null", "/dev/stdin")
"""Configurations that are right, and would train for minutes."""
ENDLESS = {"--max-new-tokens": 64}
"""Options whose large values are honoured for as long as they say."""


@dataclass(frozen=True)
class Command:
    """One command of the app with its options and arguments."""

    words: tuple[str, ...]
    options: tuple[str, ...]
    flags: tuple[str, ...]
    arguments: int
    """Required arguments."""

    def line(self, *more: str, arguments: tuple[str, ...] = ()) -> list[str]:
        """The command with what it needs to be quick and right, then `more`."""
        given = list(arguments) or ["run"] * self.arguments
        quick = {"--config": "tiny.yaml", "--run-dir": "new", "--traces": "empty_folder"}
        line = [*self.words]
        for option, value in quick.items():
            if option in self.options:
                line += [option, value]
        if "--recorded-only" in self.flags:
            line.append("--recorded-only")
        return [*line, *more, *(["--", *given] if given else [])]


def commands() -> Iterator[Command]:
    """Every command, also those in groups."""
    yield from _below(typer.main.get_command(app), ())


def _below(command: Any, words: tuple[str, ...]) -> Iterator[Command]:
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from _below(inner, (*words, name))
        return
    options = [parameter for parameter in command.params if hasattr(parameter, "is_flag")]
    yield Command(
        words,
        tuple(option.opts[0] for option in options if not option.is_flag),
        tuple(option.opts[0] for option in options if option.is_flag),
        len(command.params) - len(options),
    )


def all_lines() -> Iterator[list[str]]:
    """Each option of each command with each word, and each word as each argument."""
    for command in commands():
        for option in command.options:
            for word in WORDS:
                if _is_quick(option, word):
                    yield command.line(f"{option}={word}")
        for word in WORDS:
            if command.arguments:
                yield command.line(arguments=(word,) * command.arguments)
            else:
                yield command.line(word)


def any_line() -> st.SearchStrategy[list[str]]:
    """A command with several options at once, right or wrong, and any text among them."""

    @st.composite
    def line(draw: st.DrawFn) -> list[str]:
        command = draw(st.sampled_from(list(commands())))
        word = st.sampled_from(WORDS) | st.text(st.characters(exclude_characters="/~"), max_size=12)
        more: list[str] = []
        for option in draw(st.lists(st.sampled_from([*command.options, *command.flags, ""]), max_size=4)):
            value = draw(word)
            if option in command.flags:
                more.append(option)
            elif not option:
                more.append(value)
            elif _is_quick(option, value):
                more += [f"{option}={value}"] if draw(st.booleans()) else [option, value]
        arguments = (draw(word),) * command.arguments if draw(st.booleans()) else ()
        return command.line(*more, arguments=arguments)

    return line()


def _is_quick(option: str, word: str) -> bool:
    """Whether the value does not ask for hours of work: a preset to train, a million tokens."""
    if option == "--config" and word in ALL_DEFAULTS:
        return False
    most = ENDLESS.get(option)
    return most is None or not word.strip().isdecimal() or int(word[:20]) <= most


def lay_out(folder: Path) -> None:
    """The files that the words name, beside a `tests.training.tiny_run.Workshop` and a run in `run`."""
    os.mkfifo(folder / "fifo")
    (folder / "loop").symlink_to("loop")
    (folder / "nowhere").symlink_to("gone")
    (folder / "empty").touch()
    (folder / "empty_folder").mkdir()
    (folder / "binary").write_bytes(bytes(range(256)) * 8)
    (folder / "text.pt").write_text("no checkpoint\n", encoding="utf-8")
    (folder / "list.yaml").write_text("- a\n", encoding="utf-8")
    (folder / "broken.yaml").write_text("a: [1\n", encoding="utf-8")
    (folder / "locked").mkdir()
    (folder / "locked").chmod(0)
