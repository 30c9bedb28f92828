"""Event files that TensorBoard shows, written without TensorFlow."""

from collections.abc import Iterator, Sequence
import pathlib
import time

import numpy as np
from scipy import special
from tensorboardX import event_file_writer
from tensorboardX import summary
from tensorboardX.proto import event_pb2
from tensorboardX.proto import summary_pb2

from dopamine_jax.metrics import base

# More runs than these can't be told apart on a page.
_MAX_SEED_RUNS = 10


class TensorBoard(base.Collector):
  """Writes `BASE_DIR/tensorboard`: scalars over agent steps, and the config.

  One seed writes into the folder itself. Several have the runs `mean`,
  `interval_low` and `interval_high` below it: the mean over the seeds that
  report a number, and its 95% interval by Student's t where two or more do. Up
  to 10 seeds have runs of their own beside these, `seed_0`, `seed_1`, ...; more
  would make a page that nobody can read. TensorBoard keeps 32-bit floats;
  `metrics.csv` has every seed and every bit.

  Events are written in the caller's thread: `tensorboardX.SummaryWriter`
  hands them to another one, and its `flush` doesn't wait for that.
  """

  def open(self, run: base.Run) -> None:
    """Starts an event file a run, and takes back points after a checkpoint.

    TensorBoard hides those points at once when it loads with
    `--load_fast=false`; its default loader hides a tag's when the tag's next
    point comes.
    """
    root = run.base_dir / 'tensorboard'
    # A start hides what earlier files hold at its own step and beyond.
    first_step = run.agent_steps + 1 if run.iteration > 0 else 0
    self._writers = {}
    self._seeds = run.seeds
    for name in _run_names(run.seeds):
      writer = _writer(root / name)
      self._writers[name] = writer
      start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
      config = _markdown('config', run.config)
      for content in ({'session_log': start}, {'summary': config}):
        writer.write_event(
          event_pb2.Event(wall_time=time.time(), step=first_step, **content)
        )
      writer.flush()

  def write(self, statistics: Sequence[base.Statistic]) -> None:
    """Adds one point for each statistic."""
    points = [(_seed_run(self._seeds, s.seed), s) for s in statistics]
    if len(self._seeds) > 1:
      with np.errstate(invalid='ignore'):  # An infinite number has no interval.
        points += _over_seeds(statistics)
    for name, s in points:
      if name not in self._writers:
        continue
      # Not `summary.scalar`, which alters tags with uncommon characters.
      scalar = summary_pb2.Summary.Value(tag=s.name, simple_value=s.value)
      self._writers[name].write_event(
        event_pb2.Event(
          wall_time=s.wall_time,
          step=s.agent_steps,
          summary=summary_pb2.Summary(value=[scalar]),
        )
      )
    for writer in self._writers.values():
      writer.flush()

  def close(self) -> None:
    """Closes the files."""
    for writer in self._writers.values():
      writer.close()


def _seed_run(seeds: Sequence[int], seed: int) -> str:
  """Returns the run that one seed's points go to, if it has one."""
  return '' if len(seeds) == 1 else f'seed_{seed}'


def _run_names(seeds: Sequence[int]) -> list[str]:
  names = []
  if len(seeds) <= _MAX_SEED_RUNS:
    names += [_seed_run(seeds, seed) for seed in seeds]
  if len(seeds) > 1:
    names += ['mean', 'interval_low', 'interval_high']
  return names


def _over_seeds(
  statistics: Sequence[base.Statistic],
) -> Iterator[tuple[str, base.Statistic]]:
  """Yields the mean over the seeds, and its interval, with their runs."""
  by_name = {}
  for s in statistics:
    by_name.setdefault(s.name, []).append(s)
  for several in by_name.values():
    values = np.array([s.value for s in several])
    mean, n = values.mean(), len(values)
    yield 'mean', several[0]._replace(value=mean)
    if n > 1:
      error = values.std(ddof=1) / np.sqrt(n)
      margin = special.stdtrit(n - 1, 0.975) * error
      yield 'interval_low', several[0]._replace(value=mean - margin)
      yield 'interval_high', several[0]._replace(value=mean + margin)


def _writer(folder: pathlib.Path) -> event_file_writer.EventsWriter:
  """Opens a file that sorts after those in the folder and replaces none."""
  folder.mkdir(parents=True, exist_ok=True)
  # The name has whole seconds, too coarse for a quick start after a kill.
  number = sum(1 for _ in folder.glob('events.out.tfevents.*'))
  prefix = str(folder / 'events')
  return event_file_writer.EventsWriter(prefix, f'.{number:04d}')


def _markdown(tag: str, text: str) -> summary_pb2.Summary:
  """A text card; the indentation makes it code, with its lines as they are."""
  indented = ''.join(f'    {line}\n' for line in text.splitlines())
  card = summary.text(tag, indented)
  card.value[0].tag = tag  # without the suffix that tensorboardX adds
  card.value[0].tensor.ClearField('tensor_shape')  # one text, not a table
  return card
