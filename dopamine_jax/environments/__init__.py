"""Environments: the only place that knows an environment's API.

`base` says what the engine sees, `gym` adapts any Gymnasium environment whose
observations are numbers, and `atari` adapts the Arcade Learning Environment.
`native` is the contract of environments written in JAX: `classic` and `catch`
are ours, `gymnax`, `brax`, `playground` and `craftax` adapt those of others.
`steppers` is how the compiled engine steps these, and Atari games.
"""
