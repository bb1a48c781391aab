"""`python -m cinnema`: the command line."""

import sys

from cinnema.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
