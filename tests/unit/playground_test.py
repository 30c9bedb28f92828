"""Tests of environments.playground against playground's own environments.

Where the extra is missing, only what is said then is tested, and what is the
adapter's own: of an environment that stands in for theirs.
"""

import re
import subprocess
import sys
import types

from flax import struct
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dopamine_jax import errors
from dopamine_jax.environments import playground

BOX = gymnasium.spaces.Box


@pytest.fixture
def peer(tmp_path, monkeypatch):
  """Returns playground's registry."""
  monkeypatch.chdir(tmp_path)  # MuJoCo logs its warnings where it is
  with jax.numpy_rank_promotion('allow'):
    yield pytest.importorskip('mujoco_playground').registry


class Config(dict):
  """As much of an `ml_collections.ConfigDict` as the adapter uses."""

  __getattr__ = dict.__getitem__
  __setattr__ = dict.__setitem__

  def lock(self):
    return self

  def update_from_flattened_dict(self, changes):
    for key in changes:
      if key not in self:
        raise KeyError(f'{key} does not exist. Other fields present: many')
    self.update(changes)


class State(struct.PyTreeNode):
  obs: dict
  reward: jax.Array
  done: jax.Array
  metrics: dict
  info: dict


class Walker:
  """Counts its steps; rewards are 1, 2, ...; ends by `lasts`; writes in place.

  The names are those of playground's environments.
  """

  action_size = 2
  dt = 0.02

  def __init__(self, config):
    self.config = config

  def reset(self, key):
    del key
    zero = jnp.zeros(())
    return self._state(zero, {'count': zero}, {'height': zero})

  def step(self, state, action):
    count = state.info['count'] + 1
    state.info['count'] = count
    state.metrics['height'] = 10 * count
    return self._state(count, state.info, state.metrics)

  def _state(self, count, info, metrics):
    obs = {'state': count[None], 'privileged_state': jnp.ones(3)}
    done = (count >= self.config.lasts).astype(jnp.float32)
    return State(obs, count, done, metrics, info)


@pytest.fixture
def walker(monkeypatch):
  """Has the adapter find `Walker`, and no other, in a registry."""

  def get_default_config(id):
    if id != 'Walker':
      raise ValueError(id)
    numbers = {'action_repeat': 1, 'episode_length': 6, 'lasts': 100}
    return Config(impl='warp', ctrl_dt=0.02, sim_dt=0.01, **numbers)

  registry = types.SimpleNamespace(
    get_default_config=get_default_config,
    load=lambda id, config: Walker(config),
    ALL_ENVS=('Walker', 'Other'),
  )
  package = types.ModuleType('mujoco_playground')
  package.registry = registry
  monkeypatch.setitem(sys.modules, 'mujoco_playground', package)
  return registry


def played(environment, num_steps):
  vector = environment.make(1)
  vector.reset([0])
  return [vector.step(np.zeros((1, 2), np.float32)) for _ in range(num_steps)]


def test_the_tasks_own_length_truncates(walker):
  steps = played(playground.Playground(id='Walker'), 7)
  assert [step.truncated[0] for step in steps] == [*5 * [False], True, False]
  assert not any(step.terminated[0] for step in steps)
  np.testing.assert_allclose([s.reward[0] for s in steps], [*range(1, 7), 1])
  shorter = playground.Playground(id='Walker', kwargs={'episode_length': 2})
  assert [step.truncated[0] for step in played(shorter, 2)] == [False, True]


def test_another_length_replaces_it(walker):
  limited = playground.Playground(id='Walker', max_steps_per_episode=8)
  ends = [step.truncated[0] for step in played(limited, 9)]
  assert ends == [*7 * [False], True, False]


def test_repeated_actions_add_up_and_stop_at_an_end(walker):
  environment = playground.Playground(
    id='Walker', kwargs={'action_repeat': 3, 'lasts': 5, 'episode_length': 9}
  )
  first, last, again = played(environment, 3)
  assert first.reward[0] == 1 + 2 + 3 and not first.terminated[0]
  # Ends after 2 of 3.
  assert last.reward[0] == 4 + 5 and last.terminated[0]
  assert last.next_observation['state'][0] == 5
  assert again.reward[0] == 6
  np.testing.assert_allclose(environment.frames_per_second, 1 / 0.06)
  # Of 9 steps, three actions.
  long = environment.replace(kwargs={'action_repeat': 3, 'episode_length': 9})
  assert [x.truncated[0] for x in played(long, 3)] == [False, False, True]


def test_parts_of_observations_can_be_left_out(walker):
  both = playground.Playground(id='Walker')
  boxes = {'state': BOX(-np.inf, np.inf, (1,))}
  more = {'privileged_state': BOX(-np.inf, np.inf, (3,))}
  assert both.observation_space == gymnasium.spaces.Dict(boxes | more)
  one = both.replace(leave_out=('privileged_state',))
  assert one.observation_space == gymnasium.spaces.Dict(boxes)
  (step,) = played(one, 1)
  assert step.observation.keys() == {'state'}
  with pytest.raises(errors.UserError, match=r"'sound'.*privileged_state and"):
    both.replace(leave_out=('sound',)).make(1)
  with pytest.raises(errors.UserError, match='leaves nothing'):
    both.replace(leave_out=('state', 'privileged_state')).make(1)


def test_what_is_measured_of_a_step_can_be_told(walker):
  vector = playground.Playground(id='Walker', info=('height',)).make(1)
  vector.reset([0])
  vector.step(np.zeros((1, 2), np.float32))
  vector.step(np.zeros((1, 2), np.float32))
  assert vector.told['height'].tolist() == [20]


def test_stepping_leaves_the_last_state_as_it_was(walker):
  environment = playground.Playground(id='Walker')
  state, _ = environment.reset(jax.random.key(0))
  environment.step(state, jnp.zeros(2), None)
  assert state[0].info['count'] == 0 and state[0].metrics['height'] == 0


def test_what_computes_is_a_setting(walker):
  assert playground.Playground(id='Walker')._made.config.impl == 'jax'
  warp = playground.Playground(id='Walker', impl='warp')
  assert warp._made.config.impl == 'warp'
  with pytest.raises(errors.UserError, match=r'Playground.impl instead'):
    playground.Playground(id='Walker', kwargs={'impl': 'jax'})
  with pytest.raises(errors.UserError, match="expected 'jax' or 'warp'"):
    playground.Playground(id='Walker', impl='cuda')


def test_mistakes_are_answered_with_what_fits(walker):
  with pytest.raises(errors.UserError, match='Did you mean Walker'):
    playground.Playground(id='Walkr').make(1)
  with pytest.raises(errors.UserError, match=r'has action_repeat, ctr.*sz'):
    playground.Playground(id='Walker', kwargs={'sz': 1}).make(1)


def test_models_that_can_not_be_fetched_are_said(walker):
  def load(id, config):
    raise subprocess.CalledProcessError(128, ['git', 'clone'])

  walker.load = load
  with pytest.raises(errors.UserError, match='mujoco_menagerie by git'):
    playground.Playground(id='Walker').make(1)


def test_playground_missing_is_said(monkeypatch):
  monkeypatch.setitem(sys.modules, 'mujoco_playground', None)
  with pytest.raises(
    errors.UserError, match=re.escape(errors.install('playground'))
  ):
    playground.Playground(id='CartpoleSwingup').make(1)


@pytest.mark.slow
def test_steps_equal_those_of_playground(peer):
  environment = playground.Playground(id='CartpoleSwingup')
  their = peer.load('CartpoleSwingup', config_overrides={'impl': 'jax'})
  state = jax.jit(their.reset)(jax.random.fold_in(jax.random.key(3), 1))
  step_theirs = jax.jit(their.step)
  vector = environment.make(1)
  np.testing.assert_allclose(vector.reset([3])[0], state.obs, atol=1e-5)
  rng = np.random.default_rng(0)
  for _ in range(50):
    action = rng.uniform(-1, 1, (1,)).astype(np.float32)
    state = step_theirs(state, action)
    step = vector.step(action[None])
    np.testing.assert_allclose(step.next_observation[0], state.obs, atol=1e-4)
    np.testing.assert_allclose(step.reward[0], state.reward, atol=1e-4)
    assert not step.terminated[0] and not step.truncated[0]
  assert environment.action_space == BOX(-1, 1, (1,))
  assert environment.observation_space == BOX(-np.inf, np.inf, (5,))
  with pytest.raises(errors.UserError, match='Did you mean CartpoleSwingup'):
    playground.Playground(id='CartpoleSwing').make(1)
  with pytest.raises(errors.UserError, match=r"kwargs = \{'sz': 1\}.*sim_dt"):
    environment.replace(kwargs={'sz': 1}).make(1)


@pytest.mark.parametrize(
  ('kwargs', 'said'),
  [
    ({'action_repeat': 0}, 'has action_repeat = 0; at least 1 fits'),
    ({'episode_length': -1}, 'has episode_length = -1; at least 1 fits'),
    # No step of the simulation, by which nothing would ever move.
    ({'sim_dt': 0.5}, r'has sim_dt = 0.5 and ctrl_dt = 0.02: an agent step'),
    ({'sim_dt': 0.015}, 'must be one or more steps of the simulation'),
    ({'lasts': 'long'}, 'does not fit: the first state fails by TypeError'),
  ],
)
def test_numbers_by_which_nothing_moves_are_refused(kwargs, said, walker):
  with pytest.raises(errors.UserError, match=said):
    playground.Playground(id='Walker', kwargs=kwargs).make(1)
