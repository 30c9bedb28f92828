"""Steps environments inside a program, for the compiled engine.

Environments in JAX are part of the program (`JaxStepper`). Atari games are not:
ALE is called from it (`atari_stepper`).
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp

from dopamine_jax import errors
from dopamine_jax.environments import base


class Stepper:
  """Steps all environments of all seeds; arrays [S, N, ...], see `SeedAxis`.

  Where the environments stand is a pytree, the lanes. It has at least the
  attributes `age`, int32 [S, N], steps of the running episodes, and `told`,
  float32 [S, N] by name, what the last step said of itself.

  Attributes:
    splits: whether several devices can each step a share of the seeds.
  """

  splits = True

  def prepare(self, seeds: jax.Array) -> Any:
    """Returns what a reset needs that seeds int32 [S, N] decide; not traced.

    The first lanes and frames, if they can be made without leaving the running
    episodes.
    """
    raise NotImplementedError

  def reset(self, prepared: Any) -> tuple[Any, Any]:
    """Returns lanes, which may be donated, and first frames; not traced."""
    raise NotImplementedError

  def step(self, lanes: Any, action: jax.Array) -> tuple[Any, base.TimeStep]:
    """Takes a step of each; an episode that ends is followed by the next."""
    raise NotImplementedError

  def reset_if(
    self, is_cut: jax.Array, prepared: Any, lanes: Any, frames: Any
  ) -> tuple[Any, Any]:
    """Returns lanes and frames, after a reset if `is_cut`, a scalar."""
    raise NotImplementedError


def of(
  environments: base.VectorEnvironment, vectorize: Callable[..., Any]
) -> Stepper:
  """Returns what steps these environments in a program.

  Args:
    environments: those of all seeds.
    vectorize: turns a function of one seed's arrays into one of all.

  Raises:
    UserError: if only Python can step them.
  """
  kind = type(environments)
  stepper = environments.stepper(vectorize)
  if stepper is None:
    raise errors.UserError(
      'compiled.CompiledEngine steps environments that are written in JAX '
      '(subclasses of native.Native) and Atari games, and was given a '
      f'{kind.__name__}. Bind one, as in '
      'runner.Runner.environment = @classic.CartPole(), or leave '
      'runner.Runner.engine at python_engine.PythonEngine, which takes any.'
    )
  # A subclass may have changed what a stepper that it inherits does not call.
  owner = _owner(kind, 'stepper')
  for name in ('step', 'reset'):
    changed = _owner(kind, name)
    if changed is not owner and issubclass(changed, owner):
      raise errors.UserError(
        f'{changed.__name__}.{name} would not be called by '
        f'compiled.CompiledEngine, which steps by {owner.__name__}.stepper. '
        f'Write a stepper in {changed.__name__}, too, or leave '
        'runner.Runner.engine at python_engine.PythonEngine.'
      )
  return stepper


def _owner(kind, name):
  """Returns the class that a method is of."""
  return next(each for each in kind.__mro__ if name in vars(each))


class JaxStepper(Stepper):
  """Steps pure functions of one lane."""

  def __init__(
    self,
    begin: Callable[..., Any],
    advance: Callable[..., Any],
    vectorize: Callable[[Callable[..., Any]], Callable[..., Any]],
  ):
    """Vectorizes them.

    Args:
      begin: of a seed; gives a lane and its first frame.
      advance: of a lane and an action; gives a lane and a time step.
      vectorize: turns a function of one seed's arrays into one of all.
    """
    self._begin = jax.jit(vectorize(jax.vmap(begin)))
    self._advance = vectorize(jax.vmap(advance))

  def prepare(self, seeds):
    """See `Stepper`."""
    return self._begin(seeds)

  def reset(self, prepared):
    """See `Stepper`; a cut may need what is prepared once more."""
    lanes, frames = prepared
    return jax.tree.map(jnp.copy, lanes), frames

  def step(self, lanes, action):
    """See `Stepper`."""
    return self._advance(lanes, action)

  def reset_if(self, is_cut, prepared, lanes, frames):
    """See `Stepper`."""
    select = functools.partial(jnp.where, is_cut)
    return jax.tree.map(select, prepared, (lanes, frames))
