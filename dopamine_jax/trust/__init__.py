"""What a stranger's run may name before it is loaded: read `strangers` first.

`gin_names` reads a `config.gin` without running it, `kinds` judges what is
named, `gin_effort` how much it would do, and `signature` knows this user's own
runs.
"""
