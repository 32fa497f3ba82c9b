"""`python -m distredge` is the `distredge` command."""

from distredge.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
