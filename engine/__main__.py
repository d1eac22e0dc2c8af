"""`python -m engine COMMAND`: the same as the `standin` command."""

import sys

from engine.cli import main

if __name__ == "__main__":
    sys.exit(main())
