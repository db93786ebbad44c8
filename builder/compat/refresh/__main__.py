"""`python -m builder.compat.refresh`."""

import sys

from builder.compat.refresh.command import main

if __name__ == "__main__":
    sys.exit(main())
