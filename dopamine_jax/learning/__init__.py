"""What agents share: the equations, and the steps of learning.

Read `off_policy` or `on_policy` first, whichever your agent is; then
`optimization`. The others are small and stand alone. `outputs` and `trials`
hold agents, networks, schedules and optimizers to what was promised before a
run starts.
"""
