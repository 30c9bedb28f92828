"""Sweeps: many trainings that search for good settings, killed and resumed.

A sweep is a folder of ordinary runs and a journal. Read `plan` first: a pure
function of the journal says what is to be trained next. Any number of `worker`s
ask it, train packs of trials in one program each, and append what came of it.
"""
