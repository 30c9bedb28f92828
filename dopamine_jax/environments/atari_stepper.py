"""Steps Atari games from within a program, by ALE's functions for XLA.

The games stay in C++, where threads step them: the program calls ALE and waits,
and no step goes through Python. The same seeds and actions give the same steps
as `atari.AtariVector`'s. What it gains: `python -m benchmarks.where D-pixels
D-pixels-compiled`.
"""

from typing import Any

from flax import struct
import gymnasium
import jax
import jax.numpy as jnp

from dopamine_jax import errors
from dopamine_jax.environments import base
from dopamine_jax.environments import steppers

# What ALE takes for a seed, to draw on as before.
_SAME_SEED = -1


class Games(struct.PyTreeNode):
  """Where the games stand, as far as a program knows.

  Attributes:
    handle: uint8 [8], their address, which each call takes and gives, so that
      calls follow each other.
    age: int32 [S, N], as all that follow; steps of the running games.
    lives: that are left.
    score: float32, of the running games.
    told: float32 by name, see `Stepper`.
  """

  handle: jax.Array
  age: jax.Array
  lives: jax.Array
  score: jax.Array
  told: dict[str, jax.Array]


class AtariStepper(steppers.Stepper):
  """Steps copies of one Atari game; see `atari.AtariVector`, which it equals.

  It relies on what ale-py 0.12 has and does not document: that its function for
  a reset takes any number of games, and leaves the others as they are.
  """

  splits = False

  def __init__(
    self,
    vector: Any,
    max_steps: int,
    terminate_on_life_loss: bool,
    told_names: tuple[str, ...],
  ):
    """Asks ALE for its functions.

    Args:
      vector: ALE's vector environment.
      max_steps: after which an episode is truncated.
      terminate_on_life_loss: see `atari.Atari`.
      told_names: what the lanes tell; at most 'GameReturn'.

    Raises:
      UserError: if ALE can't be called on the device that trains.
    """
    _require_calls()
    self._vector = vector  # which keeps the games alive
    self._handle, _, self._step = vector.xla()
    self._count = vector.num_envs
    self._frames = vector.observation_space.shape
    self._max_steps = max_steps
    self._ends_with_life = terminate_on_life_loss
    self._told_names = told_names
    space = vector.single_action_space
    self._is_discrete = isinstance(space, gymnasium.spaces.Discrete)
    self._actions = jax.vmap(base.Actions(space, jnp))
    self._num_actions = int(space.n) if self._is_discrete else 0
    self._reset_all = jax.jit(self._with_seeds)

  def prepare(self, seeds):
    """See `Stepper`; the seeds themselves."""
    return jnp.asarray(seeds, jnp.int32)

  def reset(self, prepared):
    """See `Stepper`."""
    return self._reset_all(self._handle, prepared)

  def reset_if(self, is_cut, prepared, lanes, frames):
    """See `Stepper`."""
    return jax.lax.cond(
      is_cut,
      lambda: self._with_seeds(lanes.handle, prepared),
      lambda: (lanes, frames),
    )

  def step(self, lanes, action):
    """See `Stepper`."""
    shape = lanes.age.shape
    flat = action.reshape(self._count, *action.shape[len(shape) :])
    # What does not exist never comes to ALE, which would wait for it forever;
    # the engine refuses it afterwards.
    if self._is_discrete:
      flat = jnp.clip(flat, 0, self._num_actions - 1)
    else:
      flat = jnp.nan_to_num(flat)
    handle, (frames, reward, over, _, info) = self._step(
      lanes.handle, self._actions(flat)
    )
    age = lanes.age.reshape(-1) + 1
    truncated = age >= self._max_steps
    terminated = over
    if self._ends_with_life:
      terminated |= info['lives'] < lanes.lives.reshape(-1)
    ended = over | truncated
    handle, first, lives = self._renewed(ended, handle, frames, info['lives'])
    reward = reward.astype(jnp.float32)
    score = lanes.score.reshape(-1) + reward
    lanes = Games(
      handle=handle,
      age=jnp.where(ended, 0, age).reshape(shape),
      lives=lives.reshape(shape),
      score=jnp.where(ended, 0.0, score).reshape(shape),
      told={
        name: jnp.where(ended, score, jnp.nan).reshape(shape)
        for name in self._told_names
      },
    )
    step = first[:, 0], reward, terminated, truncated, frames[:, 0]
    return lanes, base.TimeStep(
      *(x.reshape(*shape, *x.shape[1:]) for x in step)
    )

  def _with_seeds(self, handle, seeds):
    """Returns lanes and first frames of games that begin with these seeds."""
    every = jnp.arange(self._count, dtype=jnp.int32)
    handle, frames, lives = self._reset(handle, every, seeds.reshape(-1))
    shape = seeds.shape
    lanes = Games(
      handle=handle,
      age=jnp.zeros(shape, jnp.int32),
      lives=lives.reshape(shape),
      score=jnp.zeros(shape),
      told={name: jnp.full(shape, jnp.nan) for name in self._told_names},
    )
    return lanes, frames[:, 0].reshape(*shape, *frames.shape[2:])

  def _renewed(self, ended, handle, frames, lives):
    """Begins the next game where one has ended, one after the other."""

    def renew(i, now):
      handle, _, _ = now
      return self._reset(handle, i[None], jnp.full(1, _SAME_SEED, jnp.int32))

    def renew_if_ended(i, now):
      return jax.lax.cond(ended[i], renew, lambda _, now: now, i, now)

    return jax.lax.cond(
      jnp.any(ended),
      lambda *now: jax.lax.fori_loop(0, self._count, renew_if_ended, now),
      lambda *now: now,
      *(handle, frames, lives),
    )

  def _reset(self, handle, games, seeds):
    """Begins these games anew; returns the handle, all frames and all lives.

    ALE's own function takes a mask, and turns it into numbers of games: how
    many there are, no program knows before it runs.
    """
    numbers = jax.ShapeDtypeStruct((self._count,), jnp.int32)
    reset = jax.ffi.ffi_call(
      'atari_vector_xla_reset',
      (
        jax.ShapeDtypeStruct(self._handle.shape, jnp.uint8),
        jax.ShapeDtypeStruct(self._frames, jnp.uint8),
        *[numbers] * 4,  # which game, lives, frames, frames of the episode
      ),
      has_side_effect=True,
    )
    handle, frames, _, lives, _, _ = reset(handle, games, seeds)
    return handle, frames, lives


def _require_calls():
  """Refuses a device from whose programs ALE can't be called."""
  import ale_py

  backend = jax.default_backend()
  on_gpu = hasattr(ale_py._ale_py, 'VectorXLAStepGPU')
  if backend != 'cpu' and not (backend == 'gpu' and on_gpu):  # not tried there
    raise errors.UserError(
      'compiled.CompiledEngine steps Atari games by calls from its program, '
      f'which this build of ale-py ({ale_py.__version__}) does not have for '
      f'the backend {backend}. Leave runner.Runner.engine at '
      'python_engine.PythonEngine, or train on the CPU (JAX_PLATFORMS=cpu).'
    )
