"""What takes the steps of a training, and is alone in calling `jax.jit`.

Read `loop` first: one step, pure. `plain_engine` steps any environment and
compiles the loop; `python_engine` is the same in cheaper calls; `compiled` has
the environment inside XLA too. `engine` is what they share, `devices` what is
split over several. `dispatch`, `threefry`, `allocator` and `startup` make calls
into XLA cheap.
"""
