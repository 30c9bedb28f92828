"""Trained agents: `trained` loads one from its run, `player` has it act."""
