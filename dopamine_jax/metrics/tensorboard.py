"""Event files that TensorBoard shows, written without TensorFlow."""

from collections.abc import Sequence
import pathlib
import time

from tensorboardX import event_file_writer
from tensorboardX import summary
from tensorboardX.proto import event_pb2
from tensorboardX.proto import summary_pb2

from dopamine_jax.metrics import base


class TensorBoard(base.Collector):
  """Writes `BASE_DIR/tensorboard`: scalars over agent steps, and the config.

  One seed writes into the folder itself, several into `seed_0`, `seed_1`, ...
  below it. TensorBoard keeps 32-bit floats; `metrics.csv` has every bit.

  Events are written in the caller's thread: `tensorboardX.SummaryWriter`
  hands them to another one, and its `flush` doesn't wait for that.
  """

  def open(self, run: base.Run) -> None:
    """Starts an event file a seed, and takes back points after a checkpoint.

    TensorBoard hides those points at once when it loads with
    `--load_fast=false`; its default loader hides a tag's when the tag's next
    point comes.
    """
    root = run.base_dir / 'tensorboard'
    # A start hides what earlier files hold at its own step and beyond.
    first_step = run.agent_steps + 1 if run.iteration > 0 else 0
    self._writers = {}
    for seed in run.seeds:
      folder = root if len(run.seeds) == 1 else root / f'seed_{seed}'
      writer = _writer(folder)
      self._writers[seed] = writer
      start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
      config = _markdown('config', run.config)
      for content in ({'session_log': start}, {'summary': config}):
        writer.write_event(
          event_pb2.Event(wall_time=time.time(), step=first_step, **content)
        )
      writer.flush()

  def write(self, statistics: Sequence[base.Statistic]) -> None:
    """Adds one point for each statistic."""
    for s in statistics:
      # Not `summary.scalar`, which alters tags with uncommon characters.
      scalar = summary_pb2.Summary.Value(tag=s.name, simple_value=s.value)
      self._writers[s.seed].write_event(
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
