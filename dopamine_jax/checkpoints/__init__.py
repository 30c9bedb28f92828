"""A training's state on disk, and back to the bit.

Read `checkpoints` first: what one holds, and why going on from it is exact.
`state_files` and `ring_files` write arrays, `manifests` says what there is,
`segments` mends damaged files from their copies.
"""
