"""Environments: the only place that knows an environment's API.

`base` says what the engine sees, `gym` adapts any Gymnasium environment with
Box observations, and `atari` adapts the Arcade Learning Environment.
"""
