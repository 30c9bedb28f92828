"""One training, from its first step to its last: read `training` first.

`run_folder` says what lies in its folder and whether it may go on, `identity`
what makes a run the same, `reports` what is told of an iteration.
"""
