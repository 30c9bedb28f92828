"""The command line: read `cli` first. `doctor` and `scaffold` are commands."""
