"""`python -m minigpt`: the same as the `minigpt` command."""

from minigpt.cli.main import main

if __name__ == "__main__":
    main()
