"""What takes the steps of a training, and is alone in calling `jax.jit`.

Read `loop` first: one step, pure. `python_engine` steps any environment and
compiles the loop; `compiled` has the environment inside XLA too; `engine` is
what both share, `devices` what is split over several. `dispatch`, `threefry`,
`allocator` and `startup` make calls into XLA cheap.
"""
