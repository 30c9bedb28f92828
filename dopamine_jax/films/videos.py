"""A video of the agent after each evaluation; if asked for.

`runner.Runner.videos = True` asks. It plays an episode of its own, so that
nothing that is learned or evaluated depends on it. `record` films longer.
"""

from collections.abc import Callable, Sequence
import contextlib
import io
import math
import time

import jax
import numpy as np
from PIL import Image

from dopamine_jax.engines import engine as engine_lib
from dopamine_jax.engines import evaluation
from dopamine_jax.environments import base
from dopamine_jax.films import camera as camera_lib
from dopamine_jax.metrics import base as metrics_base
from dopamine_jax.system import processes

# A page loads all of its videos, and browsers show no GIF much faster.
_MAX_SECONDS = 20
_MAX_PICTURES_PER_SECOND = 15


class Videos:
  """Films the agent of an engine's first seed; compiles once."""

  def __init__(
    self,
    engine: engine_lib.Engine,
    environment: base.Environment,
    say: Callable[[str], None],
  ):
    """Makes an environment that renders.

    Args:
      engine: what trains the agent.
      environment: settings of what it is evaluated on.
      say: prints what the user should know.
    """
    agent = engine.loop.agent
    self._engine = engine
    self._evaluator = evaluation.Evaluator(
      *(agent, environment),
      num_seeds=1,
      episodes=1,
      render=True,
      agent_at=engine.loop.agent_at,
    )
    self._environments = self._evaluator.environments
    self._camera = camera_lib.Camera(
      *(agent, self._environments, environment.stack, True, False, say)
    )
    self.close = self._environments.close

  def film(
    self,
    iteration: int,
    env_seeds: Sequence[int],
    on_step: Callable[[], None],
  ) -> metrics_base.Video:
    """Returns the first 20 seconds of an episode, with the agent's panel.

    Args:
      iteration: the one that has ended.
      env_seeds: [1] the environment's seed.
      on_step: called before each step; may raise to stop.
    """
    rate = self._environments.frames_per_second
    period = math.ceil(rate / _MAX_PICTURES_PER_SECOND)
    pictures = []

    def look(moment):
      on_step()
      if moment.count >= _MAX_SECONDS * rate:
        raise _Enough
      picture = self._camera.shoot(moment)
      if moment.count % period == 0:
        pictures.append(_in_256_colours(picture))

    agent, key = self._first_seed()
    key = jax.random.fold_in(key, iteration)
    self._camera.begin(agent, key)
    with contextlib.suppress(_Enough):
      self._evaluator.run(agent, key, env_seeds, self._engine.steps, look)
    return metrics_base.Video(
      *(self._engine.seeds[0], iteration, self._engine.steps, time.time()),
      *('Eval/Video', _gif(pictures, period / rate)),
    )

  def _first_seed(self):
    """Returns the first seed's agent, and the key of its evaluations."""
    state = self._engine.state
    both = processes.local((state.agent, state.experience.keys.evaluate))
    return self._engine.axis.pick(both, 0)


class _Enough(Exception):
  """The video is as long as it gets."""


def _in_256_colours(picture: np.ndarray) -> Image.Image:
  """Returns a picture as a GIF has it, a third of the memory."""
  image = Image.fromarray(picture)
  return image.quantize(
    256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE
  )


def _gif(pictures: Sequence[Image.Image], seconds: float) -> bytes:
  """Returns pictures as a GIF that repeats, each shown for that long."""
  first, *others = pictures
  stream = io.BytesIO()
  first.save(
    stream,
    'GIF',
    save_all=True,
    append_images=others,
    duration=round(1_000 * seconds),
    loop=0,
  )
  return stream.getvalue()
