"""The commands of `python -m michiai`, one per file: `add(subparsers)` declares, `run(args)` does."""
