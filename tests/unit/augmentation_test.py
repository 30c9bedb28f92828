"""Images that an agent learns from are changed, as the papers do."""

import functools

import gymnasium
from hypothesis import given
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dopamine_jax import agent as agent_lib
from dopamine_jax import errors
from dopamine_jax import runner
from dopamine_jax.agents import dqn
from dopamine_jax.agents import r2d2
from dopamine_jax.environments import catch
from dopamine_jax.learning import augmentation
from tests import many_devices

SPACE = gymnasium.spaces.Box(0, 255, (6, 5, 2), np.uint8)
ACTIONS = gymnasium.spaces.Discrete(3)
BOTH = (augmentation.RandomShift(pad=1), augmentation.Intensity())


def crops(image, pad, count):
  """Returns the crops of an image with a border, by their corner."""
  border = [(pad, pad), (pad, pad), (0, 0)]
  padded = np.pad(image, border, mode='edge')
  height, width, _ = image.shape
  return {
    (i, j): padded[i : i + height, j : j + width]
    for i in range(count)
    for j in range(count)
  }


def images_of(seed, count=64):
  return np.random.default_rng(seed).integers(
    0, 256, (count, 6, 5, 2), np.uint8
  )


@given(
  seed=st.integers(0, 99), pad=st.integers(1, 3), all_offsets=st.booleans()
)
def test_a_shift_is_a_crop_of_the_image_with_a_border(seed, pad, all_offsets):
  shift = augmentation.RandomShift(pad=pad, all_offsets=all_offsets)
  images = images_of(seed)
  moved = np.asarray(shift(jax.random.key(seed), images))
  assert moved.dtype == np.uint8
  for image, new in zip(images, moved, strict=True):
    count = 2 * pad + all_offsets
    found = crops(image, pad, count).values()
    assert any(np.array_equal(new, each) for each in found)


@pytest.mark.parametrize('pad', [4, 10])
def test_a_shift_leaves_something_of_the_image(pad):
  images = jnp.zeros((2, 6, 4, 1), jnp.uint8)
  shift = augmentation.RandomShift(pad=pad)
  with pytest.raises(errors.UserError, match=rf'pad = {pad} .* 6x4 pixels'):
    shift(jax.random.key(0), images)
  assert shift.replace(pad=3)(jax.random.key(0), images).shape == images.shape


def test_images_may_have_no_channels():
  images = images_of(3)
  for each in BOTH:
    found = each(jax.random.key(1), images[..., 0])
    np.testing.assert_array_equal(
      found, each(jax.random.key(1), images)[..., 0]
    )


@pytest.mark.parametrize('all_offsets', [True, False])
def test_each_offset_is_drawn_as_often(all_offsets):
  shift = augmentation.RandomShift(pad=1, all_offsets=all_offsets)
  count = 2 + all_offsets
  images = np.broadcast_to(images_of(0, 1), (4_000, 6, 5, 2))
  moved = np.asarray(shift(jax.random.key(0), images))
  shares = {
    corner: np.mean((moved == crop).all(axis=(1, 2, 3)))
    for corner, crop in crops(images[0], 1, count).items()
  }
  assert sum(shares.values()) == pytest.approx(1)
  np.testing.assert_allclose([*shares.values()], 1 / count**2, atol=0.03)


def test_intensity_is_one_factor_an_image():
  images = 1 + images_of(0) // 2
  found = np.asarray(
    augmentation.Intensity(scale=0.1)(jax.random.key(0), images)
  )
  factors = found / images
  np.testing.assert_allclose(
    factors, factors[:, :1, :1, :1] * np.ones_like(factors), rtol=1e-5
  )
  draws = np.clip(jax.random.normal(jax.random.key(0), (64, 1, 1, 1)), -2, 2)
  np.testing.assert_allclose(factors[:, :1, :1, :1], 1 + 0.1 * draws, rtol=1e-5)
  assert np.unique(factors.round(4)).size > 30


def make(agent=dqn.DQN, space=SPACE, augmented=BOTH, **settings):
  return agent(
    observation_space=space,
    action_space=ACTIONS,
    augmentation=augmented,
    **settings,
  )


def sample_of(images, following):
  count = len(images)
  return agent_lib.Sample(
    transition=agent_lib.Transition(
      observation=jnp.asarray(images),
      action=jnp.zeros(count, int),
      reward=jnp.ones(count),
      discount=jnp.ones(count),
      next_observation=jnp.asarray(following),
    ),
    index=jnp.arange(count),
    weight=jnp.ones(count),
  )


def test_both_observations_are_changed_by_draws_of_their_own():
  images = images_of(1)
  sample = sample_of(images, images)
  key = jax.random.key(2)
  seen = make().prepare(sample, key).transition
  assert not np.array_equal(seen.observation, seen.next_observation)
  unlike = (seen.observation != images).any(axis=(1, 2, 3))
  assert unlike.all()  # by a factor, whatever the shift
  np.testing.assert_array_equal(seen.reward, sample.transition.reward)
  again = make().prepare(sample, key).transition
  np.testing.assert_array_equal(seen.observation, again.observation)
  plain = make(augmented=()).prepare(sample, key)
  assert plain is sample


STACKED = gymnasium.spaces.Box(-1, 1, (4, 4), np.float32)
VECTOR = gymnasium.spaces.Box(-1, 1, (4,), np.float32)


@pytest.mark.parametrize(
  'space', [VECTOR, STACKED, gymnasium.spaces.Discrete(3)]
)
def test_what_is_no_image_is_refused(space):
  with pytest.raises(errors.UserError, match=r'(?s)augmentation.*is of images'):
    make(space=space)


def traced(agent):
  """Finds what an update of an agent on Catch gives."""
  run = runner.Runner(
    agent=agent,
    environment=catch.Catch(),
    num_iterations=1,
    training_steps=64,
    num_envs=2,
  )
  engine = run.make_engine(run.environment.make(2), (0,), check_finite=True)
  engine.reset([0, 1])
  return jax.eval_shape(engine.loop.learn, engine.abstract_state())[1]


def test_sequences_are_refused_before_anything_is_trained():
  with pytest.raises(
    errors.UserError, match='replay gives a Sequence; set it to'
  ):
    traced(r2d2.R2D2(augmentation=BOTH))
  assert 'Loss' in traced(dqn.DQN(augmentation=BOTH))


class Preparing(dqn.DQN):
  """Prepares what can't be meant."""

  def prepare(self, sample, key):
    if self.huber_delta:
      return sample.replace(weight=sample.weight[:1])
    return None


def test_what_is_prepared_has_the_shapes_of_the_sample():
  with pytest.raises(errors.UserError, match=r'prepare must .* sample\.weight'):
    traced(Preparing(huber_delta=1.0))
  with pytest.raises(errors.UserError, match=r'Preparing\.prepare must return'):
    traced(Preparing())


class Failing(augmentation.Augmentation):
  def __call__(self, key, images):
    raise RuntimeError('it is broken')


def test_what_fails_is_told_with_its_place():
  told = r'DQN\.prepare fails: .*it is broken.*augmentation_test\.py'
  with pytest.raises(errors.UserError, match=told):
    traced(dqn.DQN(augmentation=(Failing(),)))


class Seeing(dqn.DQN):
  """Tells the mean of what it learns from."""

  def losses(self, params, target_params, batch, key):
    losses, metrics = super().losses(params, target_params, batch, key)
    pixels = jnp.asarray(batch.observation, jnp.float32)
    return losses, metrics | {'Pixels': jnp.mean(pixels)}


class Black(augmentation.Augmentation):
  """Leaves nothing to be seen."""

  def __call__(self, key, images):
    return images * 0


def test_an_update_learns_from_them_and_the_replay_keeps_what_was_there():
  agent = functools.partial(Seeing, augmentation=(Black(),))
  engine = many_devices.make_engine(network='MLP', agent=agent)
  metrics = engine.run(60, cut_with=None, on_step=lambda: None)
  assert metrics['Pixels'] == 0
  assert np.asarray(engine.state.experience.replay.slots.frame).any()
  assert np.asarray(engine.state.experience.observation).any()
