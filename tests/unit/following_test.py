"""The steps that come with a transition, against episodes kept as lists."""

import jax
import numpy as np
import pytest

from tests.unit import replay_test

AHEAD = 3
SCRIPTS = [
  [(1, replay_test.TERMINATED), *[(6, replay_test.TRUNCATED)] * 9],
  [(4, replay_test.BOTH), *[(9, replay_test.TERMINATED)] * 9],
]


def expected(world, lane, number):
  """Returns actions, rewards, observations, and how the steps ended."""
  episodes = world._lanes[lane]
  frames = [(e, t) for e in episodes for t in range(len(e.frames))]
  episode, t = frames[number]
  actions, rewards, seen, same, ended = [], [], [], [], []
  for k in range(AHEAD):
    is_taken = t + k < len(episode.actions)
    ends = is_taken and episode.end and t + k + 1 == len(episode.actions)
    same.append(bool(is_taken and not ends))
    actions.append(episode.actions[t + k] if is_taken else None)
    rewards.append(episode.rewards[t + k] if is_taken else None)
    seen.append(world._observation(episode, t + k + 1) if is_taken else None)
    ended.append(bool(ends and episode.end != replay_test.TRUNCATED))
  return actions, rewards, seen, same, ended


@pytest.mark.parametrize('slots', [20, 60])
@pytest.mark.parametrize('n', [1, 4])
@pytest.mark.parametrize('stack', [1, 2])
def test_the_steps_that_follow_are_those_of_the_episode(slots, n, stack):
  kind = replay_test.Kind(n=n, stack=stack, envs=2)
  replay = kind.replay(steps_ahead=AHEAD)
  world = replay_test.World(kind, SCRIPTS, seed=n + stack)
  ring = world.play(jax.jit(replay.add), kind.ring(slots), 30)
  names = sorted(world.transitions(slots))
  lane, number = np.array(names).T
  found = jax.jit(replay.transition_at)(ring, lane, number)
  found = jax.tree.map(np.asarray, found)
  assert found.observations.shape[:2] == (len(names), AHEAD)
  ended = 0
  for i, name in enumerate(names):
    actions, rewards, seen, same, stops = expected(world, *name)
    np.testing.assert_array_equal(found.same_episode[i], same)
    taken = [each is not None for each in actions]
    np.testing.assert_array_equal(found.taken[i], taken)
    np.testing.assert_array_equal(found.terminated[i], stops)
    ended += not all(same)
    for k in range(AHEAD):
      if taken[k]:
        np.testing.assert_array_equal(found.observations[i, k], seen[k])
        assert found.actions[i, k] == actions[k]
        assert found.rewards[i, k] == rewards[k]
    assert found.actions[i, 0] == found.action[i]
  assert ended
  # The transition itself is what it is without them.
  plain = jax.jit(kind.replay().transition_at)(ring, lane, number)
  for key, value in vars(plain).items():
    np.testing.assert_array_equal(getattr(found, key), value)
