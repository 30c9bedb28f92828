"""Tests of environments.catch, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dopamine_jax import errors
from dopamine_jax.environments import catch

LEFT, STAY, RIGHT = 0, 1, 2


def board(picture):
  """Returns the observation that `picture` shows, a line a row."""
  return [[int(cell == '#') for cell in row] for row in picture.split()]


def start(column, paddle):
  return catch.State(jnp.array(0), jnp.array(column), jnp.array(paddle))


def play(environment, state, actions):
  """Returns the outcomes of `actions`, one after another."""
  outcomes = []
  for action in actions:
    outcome = environment.step(state, jnp.array(action), None)
    outcomes.append(outcome)
    state = outcome.state
  return outcomes


def test_an_episode_that_catches_the_ball():
  outcomes = play(
    catch.Catch(rows=4, columns=3),
    start(column=0, paddle=1),
    [RIGHT, LEFT, LEFT],
  )
  pictures = ['... #.. ... ..#', '... ... #.. .#.', '... ... ... #..']
  for outcome, picture in zip(outcomes, pictures, strict=True):
    assert outcome.observation.tolist() == board(picture)
    assert outcome.observation.dtype == jnp.uint8
  assert [float(outcome.reward) for outcome in outcomes] == [0, 0, 1]
  assert [bool(outcome.terminated) for outcome in outcomes] == [0, 0, 1]


def test_an_episode_that_misses_the_ball():
  outcomes = play(
    catch.Catch(rows=4, columns=3),
    start(column=2, paddle=1),
    [STAY, LEFT, LEFT],
  )
  pictures = ['... ..# ... .#.', '... ... ..# #..', '... ... ... #.#']
  for outcome, picture in zip(outcomes, pictures, strict=True):
    assert outcome.observation.tolist() == board(picture)
  assert [float(outcome.reward) for outcome in outcomes] == [0, 0, -1]
  assert [bool(outcome.terminated) for outcome in outcomes] == [0, 0, 1]


@pytest.mark.parametrize(('paddle', 'action'), [(0, LEFT), (2, RIGHT)])
def test_walls_stop_the_paddle(paddle, action):
  (outcome,) = play(catch.Catch(columns=3), start(1, paddle), [action])
  assert outcome.state.paddle == paddle


def test_the_ball_begins_at_the_top_anywhere_and_the_paddle_in_the_middle():
  environment = catch.Catch()
  keys = jax.random.split(jax.random.key(0), 1_000)
  _, boards = jax.vmap(environment.reset)(keys)
  boards = np.asarray(boards)
  assert boards.shape == (1_000, 10, 5)
  np.testing.assert_array_equal(boards[:, 1:9], 0)
  np.testing.assert_array_equal(boards[:, 9] - [[0, 0, 1, 0, 0]], 0)
  np.testing.assert_array_equal(boards[:, 0].sum(axis=1), 1)
  counts = boards[:, 0].sum(axis=0)
  assert counts.min() > 150 and counts.max() < 250  # 200 +- 4 sigma


def test_an_episode_has_a_step_for_each_row_but_the_first():
  vector = catch.Catch(rows=6).make(3)
  vector.reset([0, 1, 2])
  for _ in range(2):
    ends = [vector.step(np.ones(3, int)) for _ in range(5)]
    assert [end.terminated.tolist() for end in ends] == (
      4 * [[False] * 3] + [[True] * 3]
    )
    assert (np.abs(ends[-1].reward) == 1).all()
    np.testing.assert_array_equal(ends[-1].next_observation[:, :5], 0)
    np.testing.assert_array_equal(ends[-1].observation[:, 0].sum(axis=1), 1)


def test_a_time_limit_truncates():
  vector = catch.Catch(max_steps_per_episode=3).make(1)
  vector.reset([0])
  ends = [vector.step(np.array([1])) for _ in range(6)]
  assert [bool(end.truncated[0]) for end in ends] == 2 * [False, False, True]
  assert not any(end.terminated[0] for end in ends)


def test_an_image_has_the_ball_white_and_the_paddle_in_a_colour():
  environment = catch.Catch(rows=3, columns=4)
  image = environment.image(catch.State(1, 0, 3))
  assert (image.shape, image.dtype) == ((3, 4, 3), np.uint8)
  drawn = np.argwhere(image.any(axis=-1))
  assert drawn.tolist() == [[1, 0], [2, 3]]
  assert image[1, 0].tolist() == [255, 255, 255] != image[2, 3].tolist()


@pytest.mark.parametrize('field', [{'rows': 1}, {'columns': 0}])
def test_a_board_that_is_too_small_is_refused(field):
  with pytest.raises(errors.UserError, match=f'Catch.{next(iter(field))}'):
    catch.Catch(**field)
