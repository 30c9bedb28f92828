"""The base of our Flax modules: their fields are settings, and are checked."""

from collections.abc import Callable, Sequence
import dataclasses
import functools
import typing

from flax import linen as nn

from dopamine_jax import settings
from dopamine_jax import values

# A setting that is a network, or makes one, of what is given it later.
Maker = nn.Module | Callable[..., nn.Module]


class Module(settings.Checked, nn.Module):
  """A Flax module that refuses fields which can't work when it is made.

  Whole numbers are sizes of something, and so at least 1.
  """

  given_later = ('num_outputs',)  # by the agent, where a module has it
  takes_bytes = False  # whether it divides images by 255

  def __post_init__(self):
    self.check_types(ignored=values.FLAX_FIELDS)
    self.require_at_least(1, *_sizes(type(self)))
    super().__post_init__()

  def _complete(self, name, part, given):
    """As the base class; each module has parameters of its own, as if made."""
    return super()._complete(name, part, given).clone(parent=self, name=None)


@functools.cache
def _sizes(cls: type) -> list[str]:
  hints = typing.get_type_hints(cls)
  return [
    field.name
    for field in dataclasses.fields(cls)
    if hints[field.name] in (int, int | None, Sequence[int])
  ]
