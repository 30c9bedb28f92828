"""A trace of some steps of a training, for TensorBoard's page "Profile".

`train --profile 100` asks. What is learned does not depend on it; the steps
that are traced take longer.
"""

from collections.abc import Callable
import pathlib
import shlex

import jax

from dopamine_jax.engines import engine as engine_lib

# Updates that pass before, so that nothing is traced of the compiling.
_UPDATES_BEFORE = 3


class Profiler:
  """Traces steps of an engine once learning is under way.

  The trace lies in `FOLDER/plugins/profile`, where the profile plugin of
  TensorBoard looks for it (`pip install 'dopamine-jax[profile]'`), and holds a
  file that https://ui.perfetto.dev opens as well.
  """

  def __init__(
    self,
    engine: engine_lib.Engine,
    num_steps: int,
    folder: pathlib.Path,
    say: Callable[[str], None],
  ):
    """Traces nothing yet.

    Args:
      engine: what takes the steps.
      num_steps: agent steps of each seed that are traced, or more: a whole
        period from update to update at least, or a chunk of a compiled engine.
      folder: what TensorBoard is started on.
      say: prints what the user should know.
    """
    self._engine = engine
    self._folder = folder
    self._say = say
    period = engine.loop.agent.update_period
    self._num_steps = max(num_steps, period)
    learns = max(engine.steps, engine.learning_begins)
    self._first = learns + _UPDATES_BEFORE * period
    self._began = None
    self._is_over = False

  def on_step(self):
    """Begins or ends the trace, where its time has come."""
    if self._is_over:
      return
    steps = self._engine.steps
    if self._began is None:
      if steps >= self._first:
        jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
        self._began = steps
    elif steps >= self._began + self._num_steps:
      self.end()

  def end(self):
    """Ends the trace, if there is one: at the latest with the iteration."""
    if self._began is None or self._is_over:
      return
    self._is_over = True
    jax.profiler.stop_trace()
    self._say(
      f'Traced agent steps {self._began} to {self._engine.steps}. To look at '
      f'it: tensorboard --logdir {shlex.quote(str(self._folder))}, page '
      'Profile.'
    )

  def close(self):
    """Ends the trace; says so if there was none to end."""
    if self._began is None:
      self._say(
        f'No profile: learning was not under way for {_UPDATES_BEFORE} updates '
        'and the steps that were asked for.'
      )
    self.end()
