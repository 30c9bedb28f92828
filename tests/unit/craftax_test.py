"""Tests of environments.craftax against craftax's own step.

Where the extra is missing, only what is said then is tested.
"""

import re
import sys

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dopamine_jax import errors
from dopamine_jax.environments import craftax

CLASSIC = 'Craftax-Classic-Symbolic-v1'


@pytest.fixture
def peer():
  """Returns craftax; its code relies on implicit rank promotion."""
  with jax.numpy_rank_promotion('allow'):
    yield pytest.importorskip('craftax')


def test_spaces_are_those_of_craftax(peer):
  full = craftax.Craftax(id='Craftax-Symbolic-v1')
  # Health, say, is a tenth of a number that may be above 10.
  assert full.observation_space == gymnasium.spaces.Box(0, np.inf, (8268,))
  assert full.action_space == gymnasium.spaces.Discrete(43)
  classic = craftax.Craftax(id=CLASSIC)
  assert classic.observation_space == gymnasium.spaces.Box(0, 1, (1345,))
  assert classic.action_space == gymnasium.spaces.Discrete(17)


@pytest.mark.slow
def test_ends_are_told_apart(peer):
  environment = craftax.Craftax(
    id=CLASSIC, kwargs={'map_size': (16, 16)}, max_steps_per_episode=3
  )
  state, observation = jax.jit(environment.reset)(jax.random.key(0))
  assert environment.observation_space.contains(np.asarray(observation))
  step = jax.jit(environment.step)
  key, noop = jax.random.key(1), jnp.int32(0)
  ends = []
  for _ in range(3):
    outcome = step(state, noop, key)
    state = outcome.state
    ends.append((bool(outcome.terminated), bool(outcome.truncated)))
  assert ends == [(False, False), (False, False), (False, True)]
  dying = state.replace(player_health=jnp.int32(-9), timestep=jnp.int32(0))
  outcome = step(dying, noop, key)
  assert outcome.terminated and not outcome.truncated
  # Their own step ends for both alike, and is the same else.
  env, params, _ = environment._made
  theirs = params.replace(max_timesteps=3)
  state = state.replace(timestep=jnp.int32(2))
  their = jax.jit(env.step_env)(key, state, noop, theirs)
  ours = step(state, noop, key)
  assert their[3] and ours.truncated and not ours.terminated
  np.testing.assert_array_equal(ours.observation, their[0])
  assert ours.reward == their[2]
  # What an episode achieved is told wherever it ends.
  assert not ours.info['achievements']
  names = environment._achievements
  assert len(names) == 22
  at = jnp.array([names['collect_wood'], names['eat_cow']])
  rich = state.replace(achievements=state.achievements.at[at].set(True))
  info = step(rich, noop, key).info
  assert info['achievements'] == 2
  assert {name for name in names if info[name]} == {'collect_wood', 'eat_cow'}


def test_arguments_that_do_not_exist_are_named(peer):
  with pytest.raises(errors.UserError, match="no 'depth'; it has always_dia"):
    craftax.Craftax(id=CLASSIC, kwargs={'depth': 5}).make(1)


def test_mistakes_are_answered_with_what_fits():
  with pytest.raises(errors.UserError, match='Craftax-Classic-Symbolic-v1'):
    craftax.Craftax(id='Craftax-Classic-Symbolic')
  with pytest.raises(errors.UserError, match='Craftax-Symbolic-v1 or Craftax-'):
    craftax.Craftax(id='zzz')
  with pytest.raises(errors.UserError, match='max_steps_per_episode instead'):
    craftax.Craftax(id=CLASSIC, kwargs={'max_timesteps': 5})


def test_craftax_missing_is_said(monkeypatch):
  monkeypatch.setitem(sys.modules, 'craftax', None)
  with pytest.raises(
    errors.UserError, match=re.escape(errors.install('craftax'))
  ):
    craftax.Craftax(id=CLASSIC).make(1)


def test_the_score_is_a_shifted_geometric_mean():
  np.testing.assert_allclose(craftax.score([1.0] * 22), 100)
  assert craftax.score([0.0] * 22) == 0
  # (1 + 3) * (1 + 0) = 4, whose root is 2.
  np.testing.assert_allclose(craftax.score([0.03, 0.0]), 1)
