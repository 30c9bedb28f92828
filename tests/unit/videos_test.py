"""Videos show the first seed's agent, and nothing depends on them."""

import io

import jax
import numpy as np
from PIL import Image
from PIL import ImageSequence
import pytest

from dopamine_jax import errors
from dopamine_jax import runner as runner_lib
from dopamine_jax.engines import compiled
from dopamine_jax.engines import python_engine
from dopamine_jax.environments import catch
from dopamine_jax.films import camera
from dopamine_jax.metrics import base
from dopamine_jax.metrics import csv_file
from dopamine_jax.training import fingerprint
from dopamine_jax.training import training as training_lib
from tests import kept as kept_lib
from tests import walk
from tests.unit import health_test
from tests.unit import histograms_test

ENGINES = (python_engine.PythonEngine, compiled.CompiledEngine)


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
  kept = kept_lib.keep(Kept())
  runner = runner_lib.Runner(
    agent=agent,
    environment=environment(),
    num_iterations=num_iterations,
    training_steps=15,
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


@pytest.mark.parametrize(
  'engine', [ENGINES[0], pytest.param(ENGINES[1], marks=pytest.mark.slow)]
)
def test_videos_change_nothing_else(tmp_path, engine):
  off = train(tmp_path / 'off', num_seeds=2, engine=engine)
  on = train(tmp_path / 'on', num_seeds=2, engine=engine, videos=True)
  assert fingerprint.fingerprint(tmp_path / 'off') == fingerprint.fingerprint(
    tmp_path / 'on'
  )
  assert off.videos == []
  assert [(v.seed, v.iteration, v.agent_steps, v.name) for v in on.videos] == [
    (0, 1, 15, 'Eval/Video'),
    (0, 2, 30, 'Eval/Video'),
  ]


def test_there_is_one_where_there_is_an_evaluation(tmp_path):
  kept = train(tmp_path, num_iterations=4, evaluation_period=3, videos=True)
  assert [v.iteration for v in kept.videos] == [3, 4]
  assert kept.iterations == [1, 2, 3, 4]


def test_every_picture_is_the_cameras(tmp_path, monkeypatch):
  taken = []

  class Camera(camera.Camera):
    def begin(self, state, key):
      taken.append([])
      super().begin(state, key)

    def shoot(self, moment):
      taken[-1].append(super().shoot(moment))
      return taken[-1][-1]

  monkeypatch.setattr(camera, 'Camera', Camera)
  kept = train(tmp_path, videos=True)
  assert len(kept.videos) == len(taken) == 2
  for video, shot in zip(kept.videos, taken, strict=True):
    shown, times = pictures(video.gif)
    assert len(shown) == len(shot) == catch.Catch().rows - 1
    assert times == [120] * len(shot)  # 8 a second; GIFs count in 10 ms
    for one, other in zip(shown, shot, strict=True):
      assert one.shape == other.shape
      # 256 colours are nearly all that it has.
      assert np.abs(one.astype(int) - other).mean() < 3
    assert np.abs(shown[0].astype(int) - shown[-1]).mean() > 3


def test_it_is_of_the_first_seed(tmp_path):
  both = train(tmp_path / 'both', seed=3, num_seeds=2, videos=True)
  alone = train(tmp_path / 'alone', seed=3, videos=True)
  other = train(tmp_path / 'other', seed=4, videos=True)
  balls = [
    [np.argwhere(pictures(v.gif)[0][0][20, :420].max(axis=-1) > 100).mean()]
    for kept in (both, alone, other)
    for v in kept.videos
  ]
  assert [v.seed for v in both.videos + other.videos] == [3, 3, 4, 4]
  assert balls[:2] == balls[2:4]
  assert balls[:2] != balls[4:]


@pytest.mark.parametrize(
  ('rate', 'shown', 'time'),
  # An episode is of 9 steps.
  [(0.2, 4, 5_000), (15, 9, 60), (16, 5, 120), (50, 3, 80)],
)
def test_a_video_is_no_longer_and_no_faster_than_told(
  tmp_path, monkeypatch, rate, shown, time
):
  monkeypatch.setattr(catch.Catch, 'frames_per_second', rate)
  (video,) = train(tmp_path, num_iterations=1, videos=True).videos
  found, times = pictures(video.gif)
  assert (len(found), times) == (shown, [time] * shown)


@pytest.mark.slow  # `outlook_test` looks at what each family shows
def test_an_agent_of_another_family_is_filmed(tmp_path):
  said = []
  kept = train(tmp_path, agent=health_test.make_ppo, videos=True, said=said)
  assert len(kept.videos) == 2
  assert not any('panel' in line for line in said)


def test_a_run_may_go_on_with_videos(tmp_path):
  train(tmp_path)
  kept = train(tmp_path, num_iterations=3, videos=True)
  assert [v.iteration for v in kept.videos] == [3]


def test_a_stop_is_heard_while_it_films(tmp_path, monkeypatch):
  def stop(self, moment):
    raise training_lib.Stopped('now')

  monkeypatch.setattr(camera.Camera, 'shoot', stop)
  with pytest.raises(training_lib.Stopped, match='now'):
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


def test_the_key_is_that_of_the_iteration(tmp_path, monkeypatch):
  keys = []
  begin = camera.Camera.begin

  def keep(self, state, key):
    keys.append(jax.random.key_data(key).tolist())
    begin(self, state, key)

  monkeypatch.setattr(camera.Camera, 'begin', keep)
  train(tmp_path, videos=True)
  assert len(keys) == 2 and keys[0] != keys[1]
