"""Experience that others gathered, for `offline.OfflineEngine` to learn from.

`base` says what a dataset gives and lays it out as slots of a ring; `files` has
those that exist: the replay of any of our own runs, `.npz` files, Minari's, and
Dopamine's shards of Atari.
"""
