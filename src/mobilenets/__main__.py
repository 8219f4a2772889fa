"""`python -m mobilenets`: the command line without its script."""

from __future__ import annotations

from mobilenets.entry import main

if __name__ == "__main__":
    main()
