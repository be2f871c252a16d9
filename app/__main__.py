"""`python -m app`: see `app.serve_command`."""

import sys

# Each decoder process reads this file as its parent's main module, and needs nothing of it.
if __name__ == "__main__":
    from app.serve_command import main

    sys.exit(main())
