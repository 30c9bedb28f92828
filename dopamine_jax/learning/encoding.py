"""How an agent's network gets to see observations that are no plain Box."""

from collections.abc import Iterator
import contextlib
import functools
import inspect
import math
from typing import Any

from flax import linen as nn
import gymnasium

from dopamine_jax import agent as agent_lib
from dopamine_jax import errors
from dopamine_jax import networks
from dopamine_jax import spaces
from dopamine_jax.networks import recurrent


def network(agent: agent_lib.Agent, name: str, **given: Any) -> nn.Module:
  """Returns what an agent's setting makes: a network of its observations.

  Of a plain Box it is just that. Where observations are anything else, it is
  within a `networks.Encoded`, unless the setting is one itself.

  Args:
    agent: has the setting and an `observation_space`.
    name: of the setting.
    **given: what its user doesn't choose, such as `num_outputs`.
  """
  return _made(agent, name, agent.observation_space, given)


def encoded(space: gymnasium.Space | None, module: nn.Module) -> nn.Module:
  """Returns a network of observations, given one of a plain Box or vectors.

  A network with memory has the encoders before its torso.
  """
  if space is None or isinstance(space, gymnasium.spaces.Box):
    return module
  if isinstance(module, recurrent.Recurrent):
    return module.clone(torso=_made(module, 'torso', space, {}))
  apart = module.clone(parent=None, name=None)
  if isinstance(space, spaces.Masked):
    return networks.Unmasked(encoded(space['observation'], apart))
  return networks.Encoded(space=space, network=apart)


@contextlib.contextmanager
def checked(space: gymnasium.Space | None) -> Iterator[None]:
  """Refuses networks that divide by 255 for images whose numbers are small.

  Of networks that are applied meanwhile: of such images they would see next to
  nothing.

  Args:
    space: of observations.

  Raises:
    UserError: names the network.
  """
  images = [] if space is None else spaces.leaves(space).values()
  # By size: on the way to a network an image may get another shape.
  small = {math.prod(x.shape): x for x in images if _is_small(x)}

  def apply(method, args, kwargs, context):
    is_bytes = getattr(context.module, 'takes_bytes', False)
    is_first = is_bytes and context.method_name == '__call__'
    image = small.get(math.prod(args[0].shape[1:])) if is_first else None
    if image is not None:
      name = type(context.module).__name__
      raise errors.UserError(
        f'{name} takes bytes, which it divides by 255, and '
        f'observations are {image}. Have the environment give bytes, from 0 '
        'to 255, or choose networks that take numbers as they are: '
        'networks.MinAtarCNN, as a torso networks.MinAtarTorso'
      )
    return method(*args, **kwargs)

  with nn.intercept_methods(apply):
    yield


def _is_small(space):
  """Whether a space is of images whose numbers are at most 1."""
  is_image = isinstance(space, gymnasium.spaces.Box) and len(space.shape) > 1
  return is_image and bool((space.high <= 1).all())


def _made(owner, name, space, given):
  """Returns what a setting of an agent or a network makes, for a space."""
  if not _is_encoded(getattr(owner, name)):
    return encoded(space, owner.make_part(name, **given))
  made = owner.make_part(name, space=spaces.unmasked(space))
  part = made.make_part('network', **given).clone(parent=None, name=None)
  made = made.clone(network=part, parent=None, name=None)
  is_masked = isinstance(space, spaces.Masked)
  return networks.Unmasked(made) if is_masked else made


def _is_encoded(maker):
  """Whether a setting is a `networks.Encoded`, or makes one."""
  while isinstance(maker, functools.partial):
    maker = maker.func
  kind = maker if inspect.isclass(maker) else type(maker)
  return issubclass(kind, networks.Encoded)
