"""`python -m minigpt`: the same as the `minigpt` command."""

import sys

try:
    from minigpt.cli.main import main
except KeyboardInterrupt:  # the first second or two are spent importing
    sys.exit(130)

if __name__ == "__main__":
    main()
