"""What a person sees while a run trains."""

from collections.abc import Iterable, Mapping, Sequence
import io
import math
import time

from rich import console as rich_console
from rich import live
from rich import progress_bar
from rich import table
from rich import text

from dopamine_jax.metrics import base

_RETURNS = {'train': 'Train/AverageReturns', 'eval': 'Eval/AverageReturns'}
_WIDTH = 80
_CELL_PERIOD = 0.5  # seconds
_SETTLED = 2.0  # seconds of steps, from which the time left is told


class Console(base.Collector):
  """Shows progress: a bar on a terminal or in a notebook, else plain lines.

  A plain line comes once an iteration.

  Returns are means over the seeds. The speed is that of all seeds together
  since this start, evaluations included, and the time left follows from it.
  All lines but the one with the folder's name fit 80 columns.
  """

  def open(self, run: base.Run) -> None:
    """Says what starts, and shows the bar."""
    self._run = run
    self._iteration = run.iteration
    self._agent_steps = run.agent_steps
    self._returns: dict[str, float] = {}
    self._opened = time.monotonic()
    self._first: tuple[float, int] | None = None
    self._live: live.Live | _Cell | None = None
    self._evaluating = False
    self._console = rich_console.Console(
      quiet=run.quiet, highlight=False, emoji=False
    )
    self._print(_headline(run))
    # Rich alone takes FORCE_COLOR, common in CI, for a terminal.
    on_screen = self._console.is_interactive and self._console.file.isatty()
    if self._console.is_jupyter and not run.quiet:
      self._live = _Cell(self._bar())
    elif on_screen and not run.quiet:
      # Redrawn by hand: a thread for it would slow the step loop.
      self._live = live.Live(
        self._bar(), console=self._console, auto_refresh=False
      )
      self._live.start(refresh=True)

  def progress(self, agent_steps: int, statistics: dict[str, float]) -> None:
    """Moves the bar."""
    self._advance(agent_steps, statistics)

  def evaluating(self) -> None:
    """Says so in the bar, which stands still meanwhile."""
    self._evaluating = True
    if self._live:
      self._live.update(self._bar(), refresh=True)

  def write(self, statistics: Sequence[base.Statistic]) -> None:
    """Moves the bar, or prints the iteration's plain line."""
    self._evaluating = False
    if not statistics:
      return
    self._iteration = statistics[-1].iteration
    means = {
      name: _mean(s.value for s in statistics if s.name == name)
      for name in _RETURNS.values()
    }
    self._advance(statistics[-1].agent_steps, means)
    if not self._live:
      iteration = f'iteration {self._iteration:3}'
      steps = f'{_compact(self._agent_steps):>6} steps'
      line = [iteration, steps, _format(means), self._speed('/s'), self._time()]
      self._print('  '.join(filter(None, line)))

  def close(self) -> None:
    """Leaves the last state of the bar on the screen."""
    if self._live:
      self._live.stop()

  def _advance(self, agent_steps: int, returns: Mapping[str, float]) -> None:
    self._agent_steps = agent_steps
    # Where no episode ended, the bar goes on showing the last return.
    self._returns |= {k: v for k, v in returns.items() if math.isfinite(v)}
    if self._first is None:
      # Not in `open`: the first steps wait for the compiler.
      self._first = time.monotonic(), agent_steps
    if self._live:
      self._live.update(self._bar(), refresh=True)

  def _rate(self) -> float:
    """Agent steps a second of one seed; 0 while there is nothing to tell."""
    clock, agent_steps = self._first or (0.0, self._agent_steps)
    seconds = time.monotonic() - clock
    return (self._agent_steps - agent_steps) / seconds if seconds > 0 else 0.0

  def _speed(self, unit: str) -> str:
    rate = self._rate() * len(self._run.seeds)
    return f'{_compact(rate, digits=3)}{unit}' if rate else ''

  def _time(self) -> str:
    left = self._run.total_agent_steps - self._agent_steps
    if left <= 0:
      return f'took {_duration(time.monotonic() - self._opened)}'
    rate = self._rate()
    begun = self._first and time.monotonic() - self._first[0] >= _SETTLED
    return f'{_duration(left / rate)} left' if rate and begun else ''

  def _bar(self) -> rich_console.RenderableType:
    total = self._run.total_agent_steps
    running = 1 if self._agent_steps < total or self._evaluating else 0
    iteration = f'iteration {self._iteration + running}'
    time_left = 'evaluating' if self._evaluating else self._time()
    part = f'{100 * self._agent_steps // max(total, 1):3}%  {time_left}'
    width = min(self._console.width, _WIDTH) - len(iteration) - len(part) - 3
    bar = progress_bar.ProgressBar(total, self._agent_steps, max(width, 4))
    first = table.Table.grid(padding=(0, 1, 0, 0))
    first.add_row(iteration, bar, part)
    steps = f'{_compact(self._agent_steps)}/{_compact(total)} steps'
    if len(self._run.seeds) > 1:
      steps += f' x {len(self._run.seeds)} seeds'
    steps = '  '.join(filter(None, [steps, self._speed(' steps/s')]))
    second = text.Text.assemble((steps, 'dim'), '  ', _format(self._returns))
    second.truncate(self._console.width, overflow='ellipsis')
    return rich_console.Group(first, second)

  def _print(self, line: str) -> None:
    self._console.print(line, markup=False, soft_wrap=True)


class _Cell:
  """A bar in a notebook, drawn anew in its place; has what `Live` has."""

  def __init__(self, bar: rich_console.RenderableType):
    import IPython.display

    self._show = IPython.display.Pretty
    self._place = IPython.display.display(
      self._show(_plain(bar)), display_id=True
    )
    self._next = 0.0

  def update(self, bar: rich_console.RenderableType, refresh: bool) -> None:
    """Draws the bar, twice a second at most."""
    del refresh
    self._last = bar
    if time.monotonic() >= self._next:
      self._next = time.monotonic() + _CELL_PERIOD
      self._place.update(self._show(_plain(bar)))

  def stop(self) -> None:
    """Draws what came last."""
    if hasattr(self, '_last'):
      self._place.update(self._show(_plain(self._last)))


def _plain(bar: rich_console.RenderableType) -> str:
  """Returns a bar as text without colours."""
  stream = io.StringIO()
  plain = rich_console.Console(
    file=stream, width=_WIDTH, force_jupyter=False, color_system=None
  )
  plain.print(bar)
  return stream.getvalue()


def _headline(run: base.Run) -> str:
  seeds = f'seed {run.seeds[0]}'
  if len(run.seeds) > 1:
    seeds = f'{len(run.seeds)} seeds, {run.seeds[0]} to {run.seeds[-1]}'
  each = ' each' if len(run.seeds) > 1 else ''
  is_done = run.agent_steps >= run.total_agent_steps
  lines = [
    f'{"Trained" if is_done else "Training"} {seeds}: '
    f'{_compact(run.total_agent_steps)} agent steps{each}',
    f'Run folder: {run.base_dir}',
  ]
  if run.ended_by:
    lines.append(f'It is finished: ended by {run.ended_by}.')
  elif is_done:
    lines.append(
      f'All {run.iteration} iterations are done. To go on, set '
      'runner.Runner.num_iterations higher.'
    )
  elif run.iteration:
    done = _compact(run.agent_steps)
    lines.append(f'Going on after iteration {run.iteration}, at {done} steps')
  return '\n'.join(lines)


def _format(returns: Mapping[str, float]) -> str:
  return '  '.join(
    f'{label} {_return(returns[name]):>6}'
    for label, name in _RETURNS.items()
    if math.isfinite(returns.get(name, math.nan))
  )


def _return(value: float) -> str:
  """About four digits: 1234, 123.4, 12.34, 0.12."""
  if abs(value) >= 1e6:
    return _compact(value)
  if abs(value) >= 1e3:
    return f'{value:.0f}'
  return f'{value:.1f}' if abs(value) >= 1e2 else f'{value:.2f}'


def _compact(number: float, digits: int = 4) -> str:
  """12,346 as 12.35k (4 digits) or 12.3k (3 digits)."""
  # Rounded first, so that 999,999 is 1M and not 1000k.
  number = float(f'{number:.{digits}g}')
  for unit, suffix in ((1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
    if abs(number) >= unit:
      return f'{number / unit:.{digits}g}{suffix}'
  return f'{number:.{digits}g}'


def _duration(seconds: float) -> str:
  """The two largest units: 45s, 12m34s, 3h05m, 4d03h."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  days, hours = divmod(hours, 24)
  if days:
    return f'{days}d{hours:02}h'
  if hours:
    return f'{hours}h{minutes:02}m'
  return f'{minutes}m{seconds:02}s' if minutes else f'{seconds}s'


def _mean(values: Iterable[float]) -> float:
  finite = [value for value in values if math.isfinite(value)]
  return sum(finite) / len(finite) if finite else math.nan
