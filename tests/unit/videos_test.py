"""Videos show the first seed's agent.

That nothing depends on them is tested in `observers_test`.
"""

import dataclasses
import io

import jax
import numpy as np
from PIL import Image
from PIL import ImageSequence
import pytest

from dopamine_jax import errors
from dopamine_jax import runner as runner_lib
from dopamine_jax.environments import catch
from dopamine_jax.films import camera
from dopamine_jax.films import videos as videos_lib
from dopamine_jax.metrics import base
from dopamine_jax.metrics import csv_file
from dopamine_jax.training import advice
from tests import kept as kept_lib
from tests import programs
from tests import walk
from tests.unit import health_test
from tests.unit import histograms_test

# What is filmed is the subject, not what steps and learns.
pytestmark = pytest.mark.usefixtures('same_programs')


class Kept(base.Collector):
  """Keeps what it is given."""

  def __init__(self):
    self.videos = []
    self.iterations = []

  def write_video(self, video):
    # Videos come first, so that one flush does for both.
    assert video.iteration not in self.iterations
    self.videos.append(video)

  def write(self, statistics):
    self.iterations.append(statistics[0].iteration)


def train(
  folder,
  *,
  seed=0,
  num_seeds=1,
  num_iterations=2,
  environment=catch.Catch,
  agent=histograms_test.make_agent,
  said=None,
  **settings,
):
  """Trains for fewer steps than it takes to learn, or to compile that."""
  kept = kept_lib.keep(Kept())
  runner = runner_lib.Runner(
    agent=agent,
    environment=environment(),
    num_iterations=num_iterations,
    training_steps=5,
    collectors=[csv_file.CSV, kept_lib.newest],
    **({'evaluation_episodes': 1} | settings),
  )
  runner.train(
    folder,
    seed=seed,
    num_seeds=num_seeds,
    quiet=True,
    say=(said if said is not None else []).append,
  )
  return kept


def pictures(gif):
  """Returns a GIF's pictures, RGB, and for how many milliseconds each is."""
  with Image.open(io.BytesIO(gif)) as image:
    assert image.info['loop'] == 0  # again and again
    found = [
      (np.asarray(each.convert('RGB')), each.info['duration'])
      for each in ImageSequence.Iterator(image)
    ]
  return [picture for picture, _ in found], [time for _, time in found]


def test_there_is_one_where_there_is_an_evaluation(tmp_path):
  kept = train(tmp_path, num_iterations=4, evaluation_period=3, videos=True)
  assert [v.iteration for v in kept.videos] == [3, 4]
  assert kept.iterations == [1, 2, 3, 4]


@dataclasses.dataclass
class Film:
  """What a camera was told and took for one video."""

  key: list[int]
  shot: list[np.ndarray] = dataclasses.field(default_factory=list)


@pytest.fixture(scope='module')
def filmed(tmp_path_factory):
  """Returns a training's videos, and what its camera knows of each."""
  films = []

  class Camera(camera.Camera):
    def begin(self, state, key):
      films.append(Film(jax.random.key_data(key).tolist()))
      super().begin(state, key)

    def shoot(self, moment):
      films[-1].shot.append(super().shoot(moment))
      return films[-1].shot[-1]

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(camera, 'Camera', Camera)
    programs.share(patch)
    kept = train(tmp_path_factory.mktemp('filmed'), videos=True)
  return kept.videos, films


def test_every_picture_is_the_cameras(filmed):
  videos, films = filmed
  assert len(videos) == len(films) == 2
  for video, shot in zip(videos, [film.shot for film in films], strict=True):
    shown, times = pictures(video.gif)
    assert len(shown) == len(shot) == catch.Catch().rows - 1
    assert times == [120] * len(shot)  # 8 a second; GIFs count in 10 ms
    for one, other in zip(shown, shot, strict=True):
      assert one.shape == other.shape
      # 256 colours are nearly all that it has.
      assert np.abs(one.astype(int) - other).mean() < 3
    assert np.abs(shown[0].astype(int) - shown[-1]).mean() > 3


def test_the_key_is_that_of_the_iteration(filmed):
  keys = [film.key for film in filmed[1]]
  assert len(keys) == 2 and keys[0] != keys[1]


def test_it_is_of_the_first_seed(tmp_path, filmed):
  both = train(tmp_path / 'both', num_seeds=2, videos=True).videos
  other = train(tmp_path / 'other', seed=1, videos=True).videos
  balls = [
    [np.argwhere(pictures(v.gif)[0][0][20, :420].max(axis=-1) > 100).mean()]
    for v in [*both, *filmed[0], *other]
  ]
  assert [v.seed for v in both + other] == [0, 0, 1, 1]
  assert balls[:2] == balls[2:4]
  assert balls[:2] != balls[4:]


@pytest.fixture(scope='module')
def videos():
  """Films an agent that has learnt nothing."""
  environment = catch.Catch()
  engine = health_test.make_engine(environment, histograms_test.make_agent)
  videos = videos_lib.Videos(engine, environment, lambda message: None)
  yield videos
  videos.close()


@pytest.mark.parametrize(
  ('rate', 'shown', 'time'),
  # An episode is of 9 steps.
  [(0.2, 4, 5_000), (15, 9, 60), (16, 5, 120), (50, 3, 80)],
)
def test_a_video_is_no_longer_and_no_faster_than_told(
  videos, monkeypatch, rate, shown, time
):
  monkeypatch.setattr(videos._environments, 'frames_per_second', rate)
  found, times = pictures(videos.film(1, [0], lambda: None).gif)
  assert (len(found), times) == (shown, [time] * shown)


@pytest.mark.slow  # `outlook_test` looks at what each family shows
def test_an_agent_of_another_family_is_filmed(tmp_path):
  said = []
  kept = train(tmp_path, agent=health_test.make_ppo, videos=True, said=said)
  assert len(kept.videos) == 2
  assert not any('panel' in line for line in said)


def test_a_stop_is_heard_while_it_films(tmp_path, monkeypatch):
  def stop(self, moment):
    raise advice.Stopped('now')

  monkeypatch.setattr(camera.Camera, 'shoot', stop)
  with pytest.raises(advice.Stopped, match='now'):
    train(tmp_path, videos=True)


@pytest.mark.parametrize(
  ('settings', 'words'),
  [
    ({'evaluation_episodes': 0}, 'videos.*evaluation_episodes = 0'),
    ({'environment': walk.Walk}, 'Walk draws no images'),
  ],
)
def test_what_can_not_be_filmed_is_refused_at_once(tmp_path, settings, words):
  with pytest.raises(errors.UserError, match=words):
    train(tmp_path, videos=True, **settings)
  assert not (tmp_path / 'metrics.csv').exists()
