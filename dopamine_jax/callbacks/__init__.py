"""What may change, keep or end a training between two iterations.

`runner.Runner.callbacks` names them. Read `base` first, the contract; then
`stopping`, which only decides, and `resets`, which change the agent's state.
"""
