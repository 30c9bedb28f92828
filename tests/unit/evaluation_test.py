"""What an evaluation steps, and what it says while it waits."""

import gymnasium
from gymnasium.envs.classic_control import cartpole
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dopamine_jax import agent as agent_lib
from dopamine_jax import errors
from dopamine_jax import runner
from dopamine_jax.engines import evaluation
from dopamine_jax.environments import atari
from dopamine_jax.environments import catch
from dopamine_jax.environments import gym
from dopamine_jax.environments import gym_vector


def moment(count, left=100):
  return evaluation.Moment(None, None, count, None, left)


@pytest.mark.parametrize(
  ('ends', 'expected'),
  [
    ([], [30, 60, 120]),  # seconds after which it is said
    ([5, 20, 45, 70, 95, 120, 145], []),
    ([40], [30, 70, 100]),
    ([10, 100], [40, 70, 130]),
  ],
)
def test_it_is_said_after_30_seconds_and_when_that_has_doubled(
  monkeypatch, ends, expected
):
  clock = [0.0]
  monkeypatch.setattr(evaluation.time, 'monotonic', lambda: clock[0])
  said = []
  patience = evaluation.Patience(
    'It', gym.Gym(id='CartPole-v1'), lambda text: said.append((clock[0], text))
  )
  for second in range(150):
    clock[0] = float(second)
    patience(moment(second, 100 - sum(end <= second for end in ends)))
  assert [when for when, _ in said] == expected
  for when, text in said:
    assert text.startswith('It waits for an episode to end: none has for ')
    assert f'{int(when)} steps are done' in text
    assert 'gym.Gym.max_steps_per_episode' in text


def test_the_setting_that_is_named_is_that_of_the_environment():
  said = []
  patience = evaluation.Patience('It', catch.Catch(), said.append)
  patience._limit = 0.0
  patience(moment(1))
  assert said[0].endswith('training: catch.Catch.max_steps_per_episode.')


def test_a_limit_that_there_is_is_named_instead_of_asked_for():
  said = []
  limited = catch.Catch(max_steps_per_episode=27)
  patience = evaluation.Patience('It', limited, said.append)
  patience._limit = 0.0
  patience(moment(1))
  assert said[0].endswith(
    '1 steps are done. catch.Catch.max_steps_per_episode = 27 ends each.'
  )


class Left(agent_lib.Agent):
  """Pushes the cart to the left."""

  def act(self, state, observation, step, key, *, explore):
    return jnp.zeros(observation.shape[:1], jnp.int32)


class Bounded(gymnasium.Env):
  """Takes numbers up to `high`."""

  observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

  def __init__(self, high=1.0, start=None):
    self.action_space = gymnasium.spaces.Box(-1, high, (1,), np.float32)
    if start is not None:
      self.action_space = gymnasium.spaces.Discrete(2, start=start)


def test_other_bounds_of_actions_than_in_training_are_told(monkeypatch):
  spec = gymnasium.envs.registration.EnvSpec('Bounded-v0', Bounded)
  monkeypatch.setitem(gymnasium.registry, 'Bounded-v0', spec)

  def told(one, other):
    both = [gym.Gym(id='Bounded-v0', kwargs=x).make(1) for x in (one, other)]
    said = []
    evaluation.tell_bounds(*both, said.append)
    return said

  assert not told({}, {'high': 1.0})
  (warning,) = told({}, {'high': 3.0})
  assert 'reach from [-1.0] to [1.0] in training' in warning
  assert 'from [-1.0] to [3.0] in evaluations' in warning
  # The first action is the first one, whatever its number.
  assert not told({'start': 1}, {'start': 0})


def test_lanes_that_have_played_their_share_rest(monkeypatch):
  stepped = []
  step = cartpole.CartPoleEnv.step

  def counted(self, action):
    stepped.append(self)
    return step(self, action)

  monkeypatch.setattr(cartpole.CartPoleEnv, 'step', counted)
  environment = gym.Gym(id='CartPole-v1')
  found, counts = [], []
  for rests in (True, False):
    if not rests:
      monkeypatch.delattr(gym_vector.GymVector, 'rest')
    stepped.clear()
    # The first three lanes play two episodes each, the other 29 one.
    agent = Left(action_space=gymnasium.spaces.Discrete(2))
    player = evaluation.Evaluator(agent, environment, 1, 35)
    found.append(player.run((), jax.random.key(0), list(range(32)), 0))
    counts.append(len(stepped))
    player.environments.close()
  np.testing.assert_array_equal(found[0].returns, found[1].returns)
  np.testing.assert_array_equal(found[0].lengths, found[1].lengths)
  assert counts[0] == found[0].lengths.sum() < counts[1]


class Dice(agent_lib.Agent):
  """Acts at random."""

  def act(self, state, observation, step, key, *, explore):
    actions = int(self.action_space.n)
    return jax.random.randint(key, observation.shape[:1], 0, actions)


BREAKOUT = atari.Atari100k(game='Breakout', terminate_on_life_loss=False)


def test_a_lost_life_is_forgotten_and_the_game_goes_on():
  fresh, played = {}, {}
  for forgets in (True, False):
    environment = BREAKOUT.replace(forget_on_life_loss=forgets)
    agent = Dice(action_space=gymnasium.spaces.Discrete(4))
    player = evaluation.Evaluator(agent, environment, 1, 2)
    lives, seen = [np.array([5, 5])], []

    def look(moment, player=player, lives=lives, seen=seen):
      lives.append(player.environments._lives.copy())
      older = np.asarray(moment.observation)[..., :-1]
      seen.append((older == 0).all(axis=(1, 2, 3)))

    played[forgets] = player.run((), jax.random.key(0), [3, 8], 0, look)
    player.environments.close()
    fresh[forgets] = np.array(seen)
    lost = np.diff(lives, axis=0) < 0
    begun = np.diff(lives, axis=0) > 0
    begun[0] = True
    # The last frame of a game is followed by the next game's first.
    assert lost.sum() >= 6 and begun.any()
    np.testing.assert_array_equal(
      fresh[forgets], begun | lost if forgets else begun
    )
  np.testing.assert_array_equal(played[True].returns, played[False].returns)
  np.testing.assert_array_equal(played[True].lengths, played[False].lengths)


def test_lives_are_forgotten_in_evaluations_alone():
  forgets = BREAKOUT.replace(forget_on_life_loss=True)
  expected = r'forget_on_life_loss = True is for evaluations'
  with pytest.raises(errors.UserError, match=expected):
    runner.Runner(
      agent=Dice, environment=forgets, num_iterations=1, training_steps=1
    )
  with pytest.raises(errors.UserError, match='has no effect with'):
    forgets.replace(terminate_on_life_loss=True)
