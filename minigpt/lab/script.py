"""What the scripts of the lab share: progress on stderr, and how they end."""

import sys
from collections.abc import Callable, Sequence

from minigpt.errors import MiniGPTError


def say(line: str) -> None:
    """Progress, apart from the results on stdout."""
    print(line, file=sys.stderr, flush=True)


def run_script(run: Callable[[Sequence[str], str], None], description: str | None) -> None:
    """`run(arguments, description)` by the command line; a mistake of the user's is one line and exit code 2."""
    try:
        run(sys.argv[1:], description or "")
    except MiniGPTError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
