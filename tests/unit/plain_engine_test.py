"""The plain engine by itself; `compiled_test` holds all engines to it."""

import contextlib

import jax
import numpy as np
import pytest

import dopamine_jax as dj
from dopamine_jax import errors
from dopamine_jax.agents import dqn
from dopamine_jax.engines import plain_engine
from dopamine_jax.environments import catch
from dopamine_jax.replay import uniform
from dopamine_jax.training import fingerprint


@pytest.mark.slow  # which each operation by itself is, too
def test_one_can_debug_in_it_without_jit(tmp_path):
  agent = dqn.DQN(
    replay=uniform.UniformReplay(capacity=60, batch_size=4, min_history=20)
  )
  losses, digests = [], []
  for name in ('compiled', 'plain'):
    off = name == 'plain'
    with jax.disable_jit() if off else contextlib.nullcontext():
      run = dj.train(
        agent,
        catch.Catch(),
        tmp_path / name,
        agent_steps=40,
        engine=plain_engine.PlainEngine,
        evaluation_episodes=0,
        quiet=True,
      )
    losses.append(run.statistics['Train/Loss'])
    digests.append(fingerprint.fingerprint(tmp_path / name))
  np.testing.assert_allclose(*losses, rtol=1e-4)
  assert digests[0]['replay'] == digests[1]['replay']


class Hasty(uniform.UniformReplay):
  """Learns before its random actions end."""

  @property
  def warm_up(self):
    return self.min_history + 1


def test_a_warm_up_that_outlasts_the_first_update_is_refused(tmp_path):
  agent = dqn.DQN(replay=Hasty(batch_size=4, min_history=20))
  with pytest.raises(errors.UserError, match=r'warm_up of 21 random .* the 20'):
    dj.train(agent, catch.Catch(), tmp_path, agent_steps=40, quiet=True)
