"""Event files that TensorBoard shows, written without TensorFlow."""

import ast
from collections.abc import Sequence
import contextlib
import csv
import logging
import pathlib
import re
import struct
import time

import numpy as np
from tensorboardX import event_file_writer
from tensorboardX import summary
from tensorboardX.proto import event_pb2
from tensorboardX.proto import summary_pb2
from tensorboardX.proto import tensor_pb2

from dopamine_jax.metrics import base
from dopamine_jax.metrics import intervals

# More runs than these can't be told apart on a page.
_MAX_SEED_RUNS = 10

# What the page "Custom scalars" draws: groups of charts. One of three tags is a
# line with a band around it, the others are lines of all tags that match.
_LAYOUT = {
  'Returns': {
    'Evaluation: mean over the seeds and its 95% interval': (
      'Eval/AverageReturns',
      'Interval/Eval/AverageReturns/low',
      'Interval/Eval/AverageReturns/high',
    ),
    'Training: mean over the seeds and its 95% interval': (
      'Train/AverageReturns',
      'Interval/Train/AverageReturns/low',
      'Interval/Train/AverageReturns/high',
    ),
    'Evaluation: mean, lowest and highest episode': (
      'Eval/AverageReturns',
      'Eval/MinReturns',
      'Eval/MaxReturns',
    ),
    'Training: mean, lowest and highest episode': (
      'Train/AverageReturns',
      'Train/MinReturns',
      'Train/MaxReturns',
    ),
    'Whole games, where lives end episodes': ('(Train|Eval)/GameReturn',),
    'Length of an episode': ('(Train|Eval)/AverageEpisodeLengths',),
  },
  'Losses': {
    'Losses': ('Train/.*Loss',),
    'Gradient norm': ('Train/GradientNorm',),
    'Parameter norm': ('Train/ParameterNorm',),
  },
  'Values and policy': {
    'Values': ('Train/(Q|Value)(Mean|Max)',),
    'Exploration': ('Train/(Epsilon|Entropy|Temperature)',),
    'Scale of rewards': ('Train/RewardScale',),
    'Gap of CQL': ('Train/Gap',),
    'Change of the policy': ('Train/(KL|ClipFraction)',),
    'Health': ('Health/.*',),
  },
  'Speed': {
    'Agent steps a second': ('(Train|Eval)/AverageStepsPerSecond',),
    'Memory in GB': ('System/MemoryGB',),
    'Part of the replay in use': ('Replay/Fill',),
  },
}


class TensorBoard(base.Collector):
  """Writes `BASE_DIR/tensorboard`: scalars over agent steps, and the settings.

  These are there as text, and as hyper-parameters: the page "HParams" has a row
  for each training below the folder that it is started on, and a column for
  each setting and statistic. "Custom scalars" has charts in groups.

  One seed writes into the folder itself. Several have runs of their own below
  it, `seed_0`, `seed_1`, ..., but not more than 10, which nobody could tell
  apart. Beside them the run `mean` is the mean over the seeds that report a
  number. Where two or more do, it also holds the 95% interval of the mean
  return (`intervals.of_mean`, as `compare` and `report` show it), which "Custom
  scalars" draws as a band. TensorBoard keeps 32-bit floats; `metrics.csv` has
  every seed and every bit.

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
    self._run = run
    self._steps = run.agent_steps
    self._charts = set()
    self._seen = _ranges_before(run)
    names = _run_names(run.seeds)
    if run.iteration > run.first_iteration:
      _warn_of_gaps(root, names, run.iteration)
    # Where what is true of the whole training goes: '' or 'mean'.
    self._whole = 'mean' if 'mean' in names else ''
    for name in names:
      if run.iteration == 0:
        _forget(root / name)
      self._writers[name] = _writer(root / name)
      start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
      self._add(name, first_step, time.time(), session_log=start)
    begin, _ = _hyperparameters(run)
    for each in (_markdown('config', run.config), begin):
      self._add_summary(self._whole, first_step, each)
    self._flush()

  def write(self, statistics: Sequence[base.Statistic]) -> None:
    """Adds one point for each statistic."""
    seeds = self._run.seeds
    points = [(_seed_run(seeds, s.seed), s) for s in statistics]
    if len(seeds) > 1:
      points += self._over_seeds(statistics)
    for name, s in points:
      # Not `summary.scalar`, which alters tags with uncommon characters.
      scalar = summary_pb2.Summary.Value(tag=s.name, simple_value=s.value)
      self._add_value(name, s, scalar)
    if statistics:
      self._steps = statistics[-1].agent_steps
    self._lay_out({s.name for _, s in points})
    self._flush()

  def write_histograms(self, histograms: Sequence[base.Histogram]) -> None:
    """Adds the histograms of the seeds that have a run of their own."""
    for h in histograms:
      proto = summary_pb2.HistogramProto(
        min=h.edges[0],
        max=h.edges[-1],
        num=h.counts.sum(),
        sum=h.total,
        sum_squares=h.squares,
        # Each has the right end of its own: the first one is for what lies
        # below the lowest number.
        bucket_limit=h.edges,
        bucket=[0, *h.counts],
      )
      value = summary_pb2.Summary.Value(tag=h.name, histo=proto)
      self._add_value(_seed_run(self._run.seeds, h.seed), h, value)

  def write_video(self, video: base.Video) -> None:
    """Adds the video as an image that moves, to its seed's run or the mean's.

    TensorBoard hands an image to the browser as it was written.
    """
    width, height = struct.unpack('<2H', video.gif[6:10])  # a GIF's header
    image = summary_pb2.Summary.Image(
      width=width,
      height=height,
      colorspace=3,  # RGB
      encoded_image_string=video.gif,
    )
    value = summary_pb2.Summary.Value(tag=video.name, image=image)
    name = _seed_run(self._run.seeds, video.seed)
    name = name if name in self._writers else self._whole
    self._add_value(name, video, value)

  def close(self) -> None:
    """Closes the files; says that the training is over, if it is."""
    if self._steps >= self._run.total_agent_steps:
      _, end = _hyperparameters(self._run)
      self._add_summary(self._whole, self._steps, end)
    for writer in self._writers.values():
      writer.close()

  def _over_seeds(self, statistics):
    """Yields the mean over the seeds, and the interval of the mean return."""
    by_name = {}
    for s in statistics:
      by_name.setdefault(s.name, []).append(s)
    for name, several in by_name.items():
      values = np.array([s.value for s in several])
      with np.errstate(invalid='ignore', over='ignore'):
        yield 'mean', several[0]._replace(value=values.mean())
      if not _has_interval(name):
        continue
      seen = self._seen[name] = _widened(self._seen.get(name), values)
      if len(values) > 1:
        _, low, high = intervals.of_mean(values, *seen)
        for end, value in (('low', low), ('high', high)):
          tag = f'Interval/{name}/{end}'
          yield 'mean', several[0]._replace(name=tag, value=value)

  def _lay_out(self, tags):
    """Shows the charts that have something to show."""
    new = {
      (group, title)
      for group, charts in _LAYOUT.items()
      for title, patterns in charts.items()
      if all(any(re.fullmatch(p, tag) for tag in tags) for p in patterns)
    }
    if new <= self._charts:
      return
    self._charts |= new
    layout = {}
    for group, charts in _LAYOUT.items():
      shown = {
        title: ['Margin' if len(tags) == 3 else 'Multiline', list(tags)]
        for title, tags in charts.items()
        if (group, title) in self._charts
      }
      if shown:
        layout[group] = shown
    self._add_summary(self._whole, self._steps, summary.custom_scalars(layout))

  def _add_value(self, name, s, value):
    """Adds one value of what a seed reported, if its run is there."""
    if name in self._writers:
      content = summary_pb2.Summary(value=[value])
      self._add(name, s.agent_steps, s.wall_time, summary=content)

  def _add_summary(self, name, step, content):
    self._add(name, step, time.time(), summary=content)

  def _add(self, name, step, wall_time, **content):
    self._writers[name].write_event(
      event_pb2.Event(wall_time=wall_time, step=step, **content)
    )

  def _flush(self):
    for writer in self._writers.values():
      writer.flush()


def _seed_run(seeds: Sequence[int], seed: int) -> str:
  """Returns the run that one seed's points go to, if it has one."""
  return '' if len(seeds) == 1 else f'seed_{seed}'


def _run_names(seeds: Sequence[int]) -> list[str]:
  names = []
  if len(seeds) <= _MAX_SEED_RUNS:
    names += [_seed_run(seeds, seed) for seed in seeds]
  if len(seeds) > 1:
    names.append('mean')
  return names


def _has_interval(name: str) -> bool:
  """Whether the mean over the seeds is shown with its interval."""
  return name.endswith('/AverageReturns')


def _ranges_before(run: base.Run) -> dict[str, tuple[float, float]]:
  """Returns where a run that goes on was seen, as far as its CSV says."""
  if run.iteration == 0:
    return {}
  ranges = {}
  with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
    with open(run.base_dir / 'metrics.csv', encoding='utf-8') as file:
      for row in csv.DictReader(file):
        shown = _has_interval(row['name'])
        if shown and int(row['iteration']) <= run.iteration:
          value = float(row['value'])
          ranges[row['name']] = _widened(ranges.get(row['name']), [value])
  return ranges


def _widened(seen, values):
  """Returns the lowest and highest of a range, if any, and finite values."""
  finite = [value for value in values if np.isfinite(value)]
  lowest, highest = seen or (np.inf, -np.inf)
  return min([lowest, *finite]), max([highest, *finite])


def _forget(folder: pathlib.Path) -> None:
  """Removes what a run wrote that reached no checkpoint.

  A start hides its points, but its hyper-parameters would stay: TensorBoard
  keeps the first ones that it finds.
  """
  for path in folder.glob('events.out.tfevents.*'):
    path.unlink()


def _warn_of_gaps(root, names, iteration):
  """Says what TensorBoard will not show of a run that goes on."""
  for name in names:
    if not any((root / name).glob('events.out.tfevents.*')):
      logging.getLogger(__name__).warning(
        '%s has lost its event files: TensorBoard shows this run from '
        'iteration %d on.',
        *(root / name, iteration + 1),
      )
      return  # Once is enough.


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


def _hyperparameters(
  run: base.Run,
) -> tuple[summary_pb2.Summary, summary_pb2.Summary]:
  """Returns what begins and what ends a row on the page "HParams".

  Without what tensorboardX would put before, a list of the columns: TensorBoard
  takes only one run's, and so would hide what others have beside.
  """
  seeds = run.seeds
  name = str(seeds[0]) if len(seeds) == 1 else f'{seeds[0]} to {seeds[-1]}'
  values = {'seed': name} | settings_of(run.config)
  _, begin, end = summary.hparams(values, {})
  for each in (begin, end):
    # TensorBoard's faster loader leaves out what has no value.
    each.value[0].tensor.CopyFrom(_nothing())
  return begin, end


def _nothing() -> tensor_pb2.TensorProto:
  """Returns a tensor without elements."""
  tensor = tensor_pb2.TensorProto(dtype='DT_FLOAT')
  tensor.tensor_shape.dim.add(size=0)
  return tensor


def settings_of(config: str) -> dict[str, float | bool | str]:
  """Returns the bindings of a gin configuration by name, in order.

  Numbers, booleans and strings are themselves; all else is as gin writes it.
  """
  bindings = re.findall(
    r'^([\w./]+) = (.*(?:\n[ \t]+\S.*)*)', config, re.MULTILINE
  )
  return {name: _parsed(value) for name, value in bindings}


def _parsed(text):
  text = ' '.join(text.replace('\\\n', ' ').split())
  try:
    value = ast.literal_eval(text)
  except (SyntaxError, ValueError):
    return text
  return value if isinstance(value, bool | int | float | str) else text
