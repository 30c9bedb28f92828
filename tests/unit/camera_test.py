"""A camera counts what it sees, and differentiates what it is told."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dopamine_jax import agent as agent_lib
from dopamine_jax import errors
from dopamine_jax.engines import evaluation
from dopamine_jax.environments import base
from dopamine_jax.films import camera as camera_lib
from dopamine_jax.films import panel as panel_lib

KEY = jax.random.key(7)
FRAME = (6, 5)


class Environments(base.VectorEnvironment):
  """Shows an image, and nothing else."""

  action_space = gymnasium.spaces.Discrete(2)
  num_envs = 1

  def __init__(self, shape=FRAME, height=100):
    self.observation_space = gymnasium.spaces.Box(0, 255, shape, np.uint8)
    self.image = np.full((height, 80, 3), 200, np.uint8)

  def render(self):
    return self.image


class Weighing(agent_lib.Agent):
  """Its value is the sum of what it sees, weighed by its state."""

  def outlook(self, state, observation, key):
    axes = tuple(range(1, observation.ndim))
    weights = jnp.broadcast_to(state, observation.shape[1:])[None]
    value = jnp.sum(weights * observation, axis=axes)
    # So that the test sees which key it was given.
    drawn = jax.random.uniform(key, (len(observation), 2))
    return agent_lib.Outlook(value=value, values=drawn)


class Silent(agent_lib.Agent):
  """Tells nothing."""


class Wanton(agent_lib.Agent):
  """Tells what no number is."""

  def outlook(self, state, observation, key):
    return agent_lib.Outlook(value=jnp.full(len(observation), jnp.nan))


def make(
  cls=Weighing, state=None, *, stack=1, panel=True, saliency=False, **kwargs
):
  environments = Environments(**kwargs)
  agent = cls(
    observation_space=environments.observation_space,
    action_space=environments.action_space,
  )
  said = []
  camera = camera_lib.Camera(
    agent, environments, stack, panel, saliency, said.append
  )
  camera.begin(state, KEY)
  return camera, said


def moment(count=0, answer=None, shape=FRAME):
  return evaluation.Moment(
    observation=jnp.ones((1, *shape), jnp.uint8),
    actions=np.array([1]),
    count=count,
    answer=answer,
    left=1,
  )


def answer(reward, terminated=False, truncated=False):
  return base.TimeStep(
    observation=None,
    reward=np.array([reward], np.float32),
    terminated=np.array([terminated]),
    truncated=np.array([truncated]),
    next_observation=None,
  )


@pytest.fixture
def drawn(monkeypatch):
  """Returns what was drawn: outlooks, actions and scores, and 'begin'."""
  calls = []

  class Panel(panel_lib.Panel):
    def begin(self):
      calls.append('begin')
      super().begin()

    def draw(self, outlook, action, score):
      calls.append((outlook, int(action), score))
      return super().draw(outlook, action, score)

  monkeypatch.setattr(panel_lib, 'Panel', Panel)
  return calls


def test_rewards_add_up_until_an_episode_ends(drawn):
  camera, _ = make(state=jnp.ones(()))
  camera.shoot(moment())
  camera.shoot(moment(1, answer(2.0)))
  camera.shoot(moment(2, answer(-0.5)))
  camera.shoot(moment(3, answer(9.0, terminated=True)))
  camera.shoot(moment(4, answer(1.0)))
  camera.shoot(moment(5, answer(1.0, truncated=True)))
  assert [call if call == 'begin' else call[2] for call in drawn] == (
    [0.0, 2.0, 1.5, 'begin', 0.0, 1.0, 'begin', 0.0]
  )


def test_another_film_begins_with_nothing(drawn):
  camera, _ = make(state=jnp.ones(()))
  camera.shoot(moment())
  camera.shoot(moment(1, answer(2.0)))
  camera.begin(jnp.full((), 2.0), KEY)
  camera.shoot(moment())
  first, _, begun, second = drawn
  assert begun == 'begin'
  assert (first[0].value, first[2]) == (30.0, 0.0)
  assert (second[0].value, second[2]) == (60.0, 0.0)


def test_the_outlook_is_of_the_key_by_which_the_action_is_chosen(drawn):
  camera, said = make(state=jnp.full((), 0.5))
  camera.shoot(moment(4))
  ((outlook, action, _),) = drawn
  assert (outlook.value, action) == (15.0, 1)
  key = jax.random.fold_in(KEY, 4)
  np.testing.assert_array_equal(
    outlook.values, jax.random.uniform(key, (1, 2))[0]
  )
  assert said == []


@pytest.mark.parametrize(
  ('height', 'size'),
  # The panel is 420 high at least; small images are made larger.
  [(10, (420, 3360)), (100, (420, 320)), (210, (420, 160)), (501, (502, 80))],
)
def test_frames_are_enlarged_and_even(height, size):
  camera, _ = make(state=jnp.ones(()), height=height)
  image = camera.shoot(moment())
  assert image.shape == (size[0], size[1] + panel_lib.WIDTH, 3)
  assert image.dtype == np.uint8


def test_without_a_panel_the_frame_is_all(drawn):
  camera, said = make(state=jnp.ones(()), panel=False)
  image = camera.shoot(moment())
  np.testing.assert_array_equal(image, np.full((300, 240, 3), 200))
  assert drawn == said == []


def test_an_agent_that_tells_nothing_is_filmed_as_it_is(drawn):
  camera, said = make(Silent)
  image = camera.shoot(moment())
  assert image.shape == (300, 240, 3)
  assert drawn == []
  assert said == ['No panel: Silent has no method `outlook`, see agent.Agent.']
  assert make(Silent, panel=False)[1] == []


@pytest.mark.parametrize(
  ('shape', 'stack', 'newest'),
  [
    (FRAME, 1, lambda w: np.abs(w)),
    ((*FRAME, 4), 1, lambda w: np.abs(w).sum(axis=-1)),
    ((*FRAME, 4), 4, lambda w: np.abs(w[..., -1])),
    ((*FRAME, 3, 2), 2, lambda w: np.abs(w[..., -1]).sum(axis=-1)),
  ],
)
def test_saliency_is_of_the_newest_frame(shape, stack, newest):
  weights = np.random.default_rng(0).normal(size=shape).astype(np.float32)
  agent = Weighing(
    observation_space=gymnasium.spaces.Box(0, 255, shape, np.uint8),
    action_space=gymnasium.spaces.Discrete(2),
  )
  actual = camera_lib.derivative(
    agent, stack, weights, jnp.ones((1, *shape), jnp.uint8), KEY, 0
  )
  np.testing.assert_allclose(actual, newest(weights), rtol=1e-6)


@pytest.mark.parametrize('panel', [False, True])
def test_saliency_is_laid_over_the_frame(panel):
  weights = np.zeros(FRAME, np.float32)
  weights[-1, 0] = -3.0
  camera, _ = make(state=weights, saliency=True, panel=panel)
  image = camera.shoot(moment())
  bottom = 420 if panel else 300
  hottest = image[bottom - 20, 5].astype(int)
  assert hottest[0] > 220 and hottest[1] < 120  # of the overlay's colour
  assert (image[30, 200] == 200).all()


def test_what_can_not_be_drawn_is_told():
  with pytest.raises(errors.UserError, match='no image but numbers of shape'):
    make(state=jnp.ones(()), saliency=True, shape=(4,))
  with pytest.raises(errors.UserError, match='Silent does not tell its value'):
    make(Silent, saliency=True)
  camera, _ = make(Wanton)
  with pytest.raises(errors.UserError, match=r'not finite.*--no-panel'):
    camera.shoot(moment())


@pytest.mark.parametrize('height', [50, 500])
def test_another_film_may_have_another_size(height):
  camera, _ = make(state=jnp.ones(()))
  first = camera.shoot(moment())
  camera.begin(jnp.ones(()), KEY)
  camera._environments.image = np.zeros((height, 80, 3), np.uint8)
  assert camera.shoot(moment()).shape[0] >= height
  camera.begin(jnp.ones(()), KEY)
  camera._environments.image = np.full((100, 80, 3), 200, np.uint8)
  np.testing.assert_array_equal(camera.shoot(moment()), first)


@pytest.mark.parametrize('panel', [True, False])
@pytest.mark.parametrize('height', [99, 101, 200])
def test_an_image_of_another_size_than_the_first_is_told(panel, height):
  camera, _ = make(state=jnp.ones(()), panel=panel)
  camera.shoot(moment())
  camera._environments.image = np.zeros((height, 80, 3), np.uint8)
  message = rf'image \({height}, 80, 3\) after one \(100, 80, 3\)'
  with pytest.raises(errors.UserError, match=message):
    camera.shoot(moment(1))
