"""Results that know how they were made, and parts that can be changed."""

import functools

from flax import linen as nn
import optax
import pytest

from dopamine_jax import networks
from dopamine_jax import values
from dopamine_jax.replay import uniform


def test_what_was_made_is_the_functions_own_and_knows_its_arguments():
  made = values.call(optax.adam, 1e-3, eps=1e-5)
  assert isinstance(made, optax.GradientTransformation)
  assert values.origin(made).function is optax.adam
  assert values.origin(made).keywords == {'learning_rate': 1e-3, 'eps': 1e-5}
  assert values.origin(optax.adam(1e-3)) is None


def test_each_result_has_arguments_of_its_own():
  made = [values.call(optax.sgd, rate) for rate in (0.1, 0.2, 0.3)]
  rates = [values.origin(each).keywords['learning_rate'] for each in made]
  assert rates == [0.1, 0.2, 0.3]


def test_what_is_caught_by_position_is_a_list_by_name():
  parts = [values.call(optax.sgd, 0.1), values.call(optax.clip, 1.0)]
  for made in (
    values.call(optax.chain, *parts),
    values.call(optax.chain, args=parts),
  ):
    assert list(values.origin(made).keywords['args']) == parts


@pytest.mark.parametrize('value', [1, 0.5, 'text', None, True, uniform.base])
def test_what_can_be_written_as_it_is_has_no_origin(value):
  if value is uniform.base:
    value = uniform.UniformReplay()
  assert values.call(lambda: value) is value
  assert values.origin(value) is None


def test_a_number_or_a_schedule_is_read_alike():
  assert values.at(0.25, 7) == 0.25
  assert values.at(lambda count: count * 2, 7) == 14


def test_parts_are_settings_and_networks_and_nothing_else():
  assert values.is_part(uniform.UniformReplay())
  assert values.is_part(networks.MLP())
  for other in (networks.MLP, functools.partial(networks.MLP), nn.relu, 3):
    assert not values.is_part(other)


def test_a_changed_part_is_another():
  before = networks.MLP(hidden=(3,))
  after = values.changed(before, num_outputs=2)
  assert (before.num_outputs, after.num_outputs) == (None, 2)
  assert after.hidden == (3,)
  assert set(values.fields(before)) == {
    *('num_outputs', 'hidden', 'low', 'high', 'activation', 'kernel_init')
  }
