"""Tests of environments.brax against brax's own environments.

Where the extra is missing, only what is said then is tested.
"""

import re
import sys
from typing import NamedTuple
import warnings

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dopamine_jax import errors
from dopamine_jax.environments import brax


@pytest.fixture
def peer(tmp_path, monkeypatch):
  """Returns brax.envs; its code relies on implicit rank promotion."""
  pytest.importorskip('brax')
  monkeypatch.chdir(tmp_path)  # MuJoCo logs its warnings where it is
  with jax.numpy_rank_promotion('allow'), warnings.catch_warnings():
    warnings.simplefilter('ignore')  # that brax isn't maintained
    from brax import envs

    yield envs


def assert_equals_brax(environment, peer, num_steps):
  their = peer.get_environment(environment.id, **environment.kwargs)
  state = jax.jit(their.reset)(jax.random.fold_in(jax.random.key(3), 1))
  step_theirs = jax.jit(their.step)
  vector = environment.make(1)
  np.testing.assert_allclose(vector.reset([3])[0], state.obs, atol=1e-5)
  rng = np.random.default_rng(0)
  for _ in range(num_steps):
    action = rng.uniform(-1, 1, vector.action_space.shape).astype(np.float32)
    state = step_theirs(state, action)
    step = vector.step(action[None])
    np.testing.assert_allclose(step.next_observation[0], state.obs, atol=1e-4)
    np.testing.assert_allclose(step.reward[0], state.reward, atol=1e-4)
    assert step.terminated[0] == bool(state.done)
    assert not step.truncated[0]
    if state.done:
      break
  return vector


def test_steps_equal_those_of_brax(peer):
  # 'fast' is the environment by which brax tests itself.
  assert_equals_brax(brax.Brax(id='fast'), peer, 20)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('id', 'kwargs'),
  [('inverted_pendulum', {}), ('halfcheetah', {'backend': 'spring'})],
)
def test_steps_of_bodies_equal_those_of_brax(id, kwargs, peer):
  vector = assert_equals_brax(brax.Brax(id=id, kwargs=kwargs), peer, 50)
  # They go on through ends, with a new first state each.
  vector.reset([0])
  firsts = []
  for _ in range(60):
    step = vector.step(np.ones((1, *vector.action_space.shape)))
    if step.terminated[0]:
      firsts.append(step.observation[0])
  if id == 'inverted_pendulum':
    assert len(firsts) > 2
    assert len(np.unique(firsts, axis=0)) == len(firsts)


def test_a_time_limit_truncates(peer):
  assert brax.Brax(id='fast').max_steps_per_episode == 1_000
  vector = brax.Brax(id='fast', max_steps_per_episode=3).make(2)
  first = vector.reset([0, 1])
  for end in 2 * [False, False, True]:
    step = vector.step(np.ones((2, 1), np.float32))
    assert step.truncated.tolist() == [end, end]
    assert not step.terminated.any()
    if end:
      np.testing.assert_array_equal(step.observation, first)
      assert (step.next_observation != first).any()


def test_spaces_are_those_of_brax(peer):
  cheetah = brax.Brax(id='halfcheetah')
  box = gymnasium.spaces.Box
  assert cheetah.observation_space == box(-np.inf, np.inf, (17,))
  assert cheetah.action_space == box(-1, 1, (6,))


def test_stepping_leaves_the_last_state_as_it_was(peer):
  environment = brax.Brax(id='halfcheetah', kwargs={'backend': 'spring'})
  shapes, _ = jax.eval_shape(environment.reset, jax.random.key(0))
  state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
  metrics = dict(state.metrics)

  def observe(action):  # traced, which is quick; brax writes into its metrics
    return environment.step(state, action, None).observation

  assert jax.eval_shape(observe, jnp.zeros(6)).shape == (17,)
  assert metrics and all(state.metrics[k] is metrics[k] for k in metrics)


class Seen(NamedTuple):
  obs: dict


class Dicts:
  """Has brax's API, and observations of two parts."""

  action_size = 1

  def reset(self, key):
    del key
    obs = {'a': jnp.zeros(2), 'b': jnp.ones(3)}
    return Seen(obs)


def test_observations_of_parts_are_a_dict(monkeypatch):
  monkeypatch.setattr(brax, '_make', lambda *_: Dicts())
  space = brax.Brax(id='any').observation_space
  assert {name: part.shape for name, part in space.items()} == {
    'a': (2,),
    'b': (3,),
  }


def test_what_brax_measures_is_there_for_statistics(peer):
  environment = brax.Brax(
    id='halfcheetah',
    kwargs={'backend': 'spring'},
    info=('reward_ctrl',),
  )
  state, _ = jax.eval_shape(environment.reset, jax.random.key(0))
  told = jax.eval_shape(
    lambda state: environment.step(state, jnp.zeros(6), None).info, state
  )
  assert told['reward_ctrl'].shape == ()


def test_an_unknown_id_is_answered_with_what_fits(peer):
  with pytest.raises(errors.UserError, match='Did you mean halfcheetah'):
    brax.Brax(id='HalfCheetah').make(1)
  with pytest.raises(errors.UserError, match='ant or fast'):
    brax.Brax(id='zzzzzzz').make(1)


def test_brax_missing_is_said(monkeypatch):
  monkeypatch.setitem(sys.modules, 'brax', None)
  with pytest.raises(errors.UserError, match=re.escape(errors.install('brax'))):
    brax.Brax(id='ant').make(1)
