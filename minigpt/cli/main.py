"""The `minigpt` command: what it offers, and how it ends."""

import contextlib
import errno
import io
import os
import re
import select
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Annotated, TextIO, cast

import typer

import minigpt
from minigpt.cli import (
    config,
    diagnose,
    evaluate,
    generate,
    lab,
    plan,
    prepare,
    replay,
    train,
    verify,
    verify_resume,
)
from minigpt.cli.options import with_resume_value
from minigpt.compiled_code import keep_compiled_code_private
from minigpt.errors import (
    ConfigProblems,
    DeviceError,
    MiniGPTError,
    OtherRankError,
    OutOfMemoryError,
    on_one_line,
)
from minigpt.visible import VisibleStream

_LONG_WORD = re.compile(r"\S{300,}")
"""No file name and no number that a reader could take in."""
USER_ERROR = 2
INTERRUPTED = 130
BROKEN_PIPE = 141
_SURROUNDINGS = frozenset(
    (
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.ENOTDIR,
        errno.EEXIST,
        errno.EISDIR,
        errno.EIO,
        errno.ESTALE,
        errno.EFBIG,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOTEMPTY,
        errno.EBUSY,
        errno.ENODEV,
        errno.ENXIO,
        errno.ENOTCONN,
        errno.ETIMEDOUT,
        errno.EXDEV,
        errno.ENAMETOOLONG,
        errno.ELOOP,
    )
)
"""What the machine refuses (rights, space, names, limits, a broken disk, a lost mount): no bug, so no traceback."""

_UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # typer exports no other name for it

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.command("train")(train.train)
app.command("prepare")(prepare.prepare)
app.command("generate")(generate.generate)
app.command("evaluate")(evaluate.evaluate)
app.command("diagnose")(diagnose.diagnose)
app.command("plan")(plan.plan)
# Its name before it told of more than memory.
app.command("memory", hidden=True)(plan.plan)
app.command("replay")(replay.replay)
app.command("verify")(verify.verify)
app.command("verify-resume")(verify_resume.verify_resume)
app.add_typer(config.app, name="config")
app.add_typer(lab.app, name="lab")


@app.callback(invoke_without_command=True)
def minigpt_command(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Pretrains small GPTs, tells you whether the run is healthy, and never loses your work.

    \b
    minigpt train --config small                             a first model, on any machine
    minigpt train --config medium --set data.source=books/   a real one, on your own text
    minigpt train --config medium --resume                   go on after an interruption
    minigpt diagnose checkpoints/pretrain_medium             is it healthy, and if not, why
    minigpt COMMAND --help                                   examples for each command
    """
    if version:
        typer.echo(f"minigpt {minigpt.__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Runs the command line and exits: 0 done, 2 a mistake of the user's, 130 interrupted."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """The exit code of the command line; the user's mistakes become lines on stderr, without a traceback."""
    _mend_streams()
    if not {"--help", "-h", "--version"}.intersection(arguments):
        keep_compiled_code_private()
    with (
        redirect_stdout(cast(TextIO, VisibleStream(sys.stdout))),
        redirect_stderr(cast(TextIO, VisibleStream(sys.stderr))),
    ):
        return _run(arguments)


def _run(arguments: list[str]) -> int:
    if any("\0" in argument for argument in arguments):
        return _refused("an argument holds a NUL character, which no text or file name can; leave it out")
    try:
        Path.cwd()
    except OSError as error:  # torch would end the process over it
        return _refused(f"the current folder cannot be used: {error.strerror}; cd to one that exists")
    try:
        command = typer.main.get_command(app)
        with command.make_context("minigpt", with_resume_value(arguments)) as context:
            command.invoke(context)
        sys.stdout.flush()
    except typer.Exit as done:
        return done.exit_code
    except MiniGPTError as error:
        lines = str(error).split("\n") if isinstance(error, ConfigProblems) else [str(error)]
        return USER_ERROR if _is_said_elsewhere(error) else _refused(*lines)
    except _UsageError as error:
        return _refused(_usage(error))
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        if not _reader_left():
            raise
        # nobody wants the rest (head, less)
        _drop(sys.stdout)
        return BROKEN_PIPE
    except (OSError, RuntimeError, MemoryError) as error:
        refusal = _of_the_machine(error)
        if refusal is None:
            raise
        return _refused(refusal)
    finally:
        _drop_what_cannot_be_printed()
    return 0


def _of_the_machine(error: OSError | RuntimeError | MemoryError) -> str | None:
    """A line on what the machine refuses; None: it is a bug."""
    if isinstance(error, OSError):
        name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "writing"
        return f"{name}: {error.strerror}" if error.errno in _SURROUNDINGS else None
    from minigpt.training.out_of_memory import shortage_of

    if shortage_of(error) is None:
        return None
    said = (str(error).strip().splitlines() or ["no memory left"])[0]
    return f"out of memory: {said}; a smaller model, batch or context fits (see: minigpt plan)"


def _drop_what_cannot_be_printed() -> None:
    """Or Python complains when it flushes at exit, and its exit code says nothing of ours (a full disk behind >)."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                _drop(stream)


def _drop(stream: TextIO) -> None:
    """What is still in its buffer, and all that follows, goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _mend_streams() -> None:
    """Makes stdout and stderr take all that is printed: closed ones swallow it, ASCII ones replace what they lack."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _reader_left() -> bool:
    """Whether nobody reads stdout any more; else the broken pipe led to one of our own processes."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _is_said_elsewhere(error: MiniGPTError) -> bool:
    """Under torchrun one rank of a machine speaks for all that refuse the same."""
    own = isinstance(error, DeviceError | OutOfMemoryError)
    other = os.environ.get("LOCAL_RANK", "0") != "0" and not own
    return other or isinstance(error, OtherRankError)


def _refused(*lines: str) -> int:
    # stderr may be on the very disk that is full; the exit code still tells.
    with contextlib.suppress(OSError):
        for line in lines:
            shown = _LONG_WORD.sub(lambda word: f"{word[0][:100]}...{word[0][-30:]}", on_one_line(line))
            print(f"error: {shown}", file=sys.stderr)
    return USER_ERROR


def _usage(error: Exception) -> str:
    message = " ".join(error.format_message().split())  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    return f"{message} (see: {context.command_path if context else 'minigpt'} --help)"
