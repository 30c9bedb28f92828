"""What a dataset gives, and how it becomes the slots of a ring."""

from collections.abc import Callable, Iterable, Iterator
import contextlib
import statistics
from typing import NamedTuple

import gymnasium
import jax.numpy as jnp
import numpy as np

from dopamine_jax import errors
from dopamine_jax import settings
from dopamine_jax.checkpoints import ring_files
from dopamine_jax.replay import ring as ring_lib

_ONE = 1.001  # what rounding may make of 1
_COLUMNS = ('action', 'reward', 'terminated', 'truncated')


class Part(NamedTuple):
  """Steps in the order in which they were taken; of whole episodes, if known.

  What runs on into the next part is cut here.

  Attributes:
    observation: [T, *frame_shape], acted on; frames of a stack one by one.
    action: [T, *action_shape], as the environment takes them.
    reward: [T].
    terminated: [T] bool.
    truncated: [T] bool, whether the episode was cut there, or what followed is
      unknown.
    next_observation: [T, *frame_shape], what followed; None where nobody kept
      it. A step that was cut is then left out, since nothing could stand for
      what followed it.
  """

  observation: np.ndarray
  action: np.ndarray
  reward: np.ndarray
  terminated: np.ndarray
  truncated: np.ndarray
  next_observation: np.ndarray | None = None


class Dataset(settings.Settings):
  """Settings of a dataset.

  `agent_units` says whether actions of a Box are in [-1, 1] already.
  """

  agent_units = False  # no setting: it has no type

  def parts(self) -> Iterator[Part]:
    """Yields what there is, part after part.

    Raises:
      UserError: if it can't be read.
    """
    raise NotImplementedError

  def recorded_with(self) -> str:
    """Returns the settings that it was recorded with, in gin; '': unknown."""
    return ''

  def checked(
    self,
    space: gymnasium.Space,
    action_space: gymnasium.Space,
    as_given: Callable[[np.ndarray], np.ndarray],
  ) -> Iterator[Part]:
    """Yields the parts, once they are what an agent of these spaces can learn.

    Args:
      space: of one frame.
      action_space: of agents, see `environments.base`.
      as_given: returns an environment's actions as agents give them.

    Raises:
      UserError: names what does not fit.
    """
    count, ends = 0, False
    for part in self.parts():
      part = self._fitting(part, space, action_space, as_given)
      count += len(part.reward)
      ends |= bool((part.terminated | part.truncated).any())
      yield part
    if not count:
      self._fail('holds no step', 'Choose another one')
    if not ends:
      self._fail(
        f'holds {count} steps, and none of them ends an episode',
        'Say where episodes ended: that is where values are learnt from',
      )

  def _fitting(self, part, space, action_space, as_given):
    self._require_rows(part)
    size = len(part.reward)
    action = np.asarray(part.action)
    if action.shape != (size, *action_space.shape) or (
      action.dtype.kind not in 'biuf' or not np.isfinite(action).all()
    ):
      self._fail(
        f'has actions {action.dtype} {action.shape}, and the environment takes '
        f'{action_space}'
      )
    if not self.agent_units:
      action = as_given(action)
    observation = self._observation(part.observation, size, space)
    following = part.next_observation
    if following is not None:
      following = self._observation(following, size, space)
    reward, terminated, truncated = (
      self._numbers(name, getattr(part, name)) for name in _COLUMNS[1:]
    )
    terminated, truncated = terminated.astype(bool), truncated.astype(bool)
    if following is not None:
      # An episode also ends where the next row is not what followed.
      differ = following[:-1] != observation[1:]
      differ = differ.any(axis=tuple(range(1, differ.ndim)))
      truncated[:-1] |= differ & ~terminated[:-1]
    return Part(
      observation=observation,
      action=self._actions(action, action_space),
      reward=reward,
      terminated=terminated,
      truncated=truncated,
      next_observation=following,
    )

  def _require_rows(self, part):
    """Refuses columns that have not a row for each step."""
    shapes = {
      name: np.shape(column)
      for name, column in part._asdict().items()
      if column is not None
    }
    lengths = [shape[0] for shape in shapes.values() if shape]
    size = statistics.mode(lengths or [0])  # most columns are right
    for name, shape in shapes.items():
      if shape[:1] != (size,):
        self._fail(f'has a {name} of shape {shape} for {size} steps')

  def _numbers(self, name, given):
    """Returns a column of numbers, as float32."""
    given = np.asarray(given)
    if given.ndim > 1:
      self._fail(f'has a {name} of shape {given.shape} for {len(given)} steps')
    numbers = None
    if given.dtype.kind not in 'USmM':  # which NumPy would read as numbers
      with (
        contextlib.suppress(TypeError, ValueError),
        np.errstate(over='ignore'),
      ):
        numbers = given.astype(np.float32)
    if numbers is None:
      self._fail(f'has a {name} of {given.dtype}, which are no numbers')
    if not np.isfinite(numbers).all():
      what = 'rewards' if name == 'reward' else f'values of {name}'
      self._fail(f'has {what} that are not finite')
    return numbers

  def _observation(self, given, size, space):
    if not isinstance(space, gymnasium.spaces.Box):
      self._fail(f'is of plain observations, and the environment gives {space}')
    given = np.asarray(given)
    fits = np.can_cast(given.dtype, space.dtype, 'same_kind')
    if given.shape != (size, *space.shape) or not fits:
      self._fail(
        f'has observations {given.dtype} {given.shape[1:]}, and the '
        f'environment gives {space.dtype} {space.shape}'
      )
    if given.dtype.kind == 'f' and not np.isfinite(given).all():
      self._fail('has observations that are not finite')
    return given.astype(space.dtype)

  def _actions(self, given, space):
    if isinstance(space, gymnasium.spaces.Discrete):
      whole = given.astype(np.int32)
      if not np.array_equal(whole, given) or (
        whole.min(initial=0) < 0 or whole.max(initial=0) >= space.n
      ):
        self._fail(
          f'has actions from {given.min()} to {given.max()}, counted from 0, '
          f'and the environment has {space.n}'
        )
      return whole
    if not (np.abs(given) <= _ONE).all():  # nor are there NaNs
      self._fail("has actions outside the environment's bounds")
    return np.clip(given, -1.0, 1.0).astype(np.float32)

  def _fail(self, what, remedy='Choose another dataset or environment'):
    raise errors.UserError(f'{type(self).__name__} {what}. {remedy}.')


def laid_out(parts: Iterable[Part]) -> Iterator[dict[str, np.ndarray]]:
  """Yields the slots of one lane, part after part, by names of `ring.Slots`.

  Each episode's last observation has a slot of its own, as in `ring`. One that
  terminated, and whose last observation nobody kept, has the one before there:
  nothing bootstraps from it.

  Args:
    parts: see `Part`; where one ends, what followed is unknown.

  Raises:
    UserError: if no step can be learned from.
  """
  is_empty = True
  for part in parts:
    part = _known(part) if len(part.reward) else part
    if len(part.reward):
      is_empty = False
      yield _slots(part)
  if is_empty:
    raise errors.UserError(
      'the dataset has no step of which it is known what followed. Choose one '
      'with next_observations, or with episodes of more than one step.'
    )


def _known(part):
  """Returns a part whose steps all have what followed them."""
  last = part.terminated | part.truncated
  if part.next_observation is not None:
    truncated = part.truncated.copy()
    truncated[-1] |= not last[-1]  # the rest is of another part
    return part._replace(truncated=truncated & ~part.terminated)
  after = np.concatenate([part.observation[1:], part.observation[-1:]])
  # And not the first of the next episode.
  after[part.terminated] = part.observation[part.terminated]
  unknown = (part.truncated & ~part.terminated).copy()
  unknown[-1] |= not last[-1]
  # The step before one that is left out is where its episode is cut.
  cut = np.concatenate([unknown[1:], [False]]) & ~last
  keep = ~unknown
  return Part(
    observation=part.observation[keep],
    action=part.action[keep],
    reward=part.reward[keep],
    terminated=part.terminated[keep],
    truncated=cut[keep],
    next_observation=after[keep],
  )


def _slots(part):
  last = part.terminated | part.truncated
  before = np.concatenate([[0], np.cumsum(last)[:-1]])
  slot = np.arange(len(last)) + before
  behind = slot[last] + 1
  size = len(last) + int(last.sum())
  first = np.concatenate([[True], last[:-1]])
  start = np.maximum.accumulate(np.where(first, np.arange(len(last)), 0))
  age = np.arange(len(last)) - start

  def column(rows, final):
    found = np.zeros((size, *rows.shape[1:]), rows.dtype)
    found[slot], found[behind] = rows, final
    return found

  status = np.where(
    part.terminated,
    ring_lib.TERMINATED,
    np.where(part.truncated, ring_lib.TRUNCATED, ring_lib.RUNNING),
  ).astype(np.uint8)
  return {
    'frame': column(part.observation, part.next_observation[last]),
    'action': column(part.action, part.action[last]),
    'reward': column(part.reward, 0.0),
    'status': column(status, ring_lib.LAST),
    'age': column(age.astype(np.int32), age[last] + 1),
  }


def fill(
  ring: ring_lib.Ring, pieces: Iterable[dict[str, np.ndarray]]
) -> ring_lib.Ring:
  """Returns a ring of one lane that holds these slots, the first at 0.

  Args:
    ring: empty, [1, C], or [S, 1, C] of several seeds, which get the same;
      donated.
    pieces: see `laid_out`; written one by one, as memory holds the ring and
      one of them.

  Raises:
    UserError: if the ring is too small; says what is needed.
  """
  slots, size, capacity = ring.slots, 0, ring.slots.reward.shape[-1]
  for piece in pieces:
    start, size = size, size + len(piece['reward'])
    if size < capacity:  # Else the rest is only counted.
      slots = slots.replace(
        **{
          name: _written(getattr(slots, name), ring.head, start, rows)
          for name, rows in piece.items()
        }
      )
  if size >= capacity:
    raise errors.UserError(
      f"the dataset takes {size} slots, and the replay's capacity is "
      f'{capacity}. Set it to {size + 1} or more.'
    )
  return ring.replace(slots=slots, head=jnp.full_like(ring.head, size))


def _written(leaf, head, start, rows):
  """Returns one leaf with rows from slot `start` on, in every lane."""
  rows = rows.astype(leaf.dtype)
  for lane in range(head.size):
    leaf = ring_files.put(leaf, head.ndim, lane, start, rows)
  return leaf
