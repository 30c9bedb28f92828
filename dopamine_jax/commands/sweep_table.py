"""What a person sees of a sweep: its rungs, what is best, the time left."""

from collections.abc import Callable
import contextlib
import shlex
import time

import rich.console
import rich.live
import rich.table

from dopamine_jax import errors
from dopamine_jax.metrics import intervals
from dopamine_jax.sweeps import schedulers
from dopamine_jax.sweeps import worker
from dopamine_jax.training import run_folder

_SETTLED = 10.0  # seconds, after which the time left is told
_BEST = 5  # trials at the end


class Table:
  """Shows a sweep on a terminal as a table, elsewhere a line for each news.

  Args:
    sweep: its folder, of which the journal is read anew.
    say: prints a line.
  """

  def __init__(self, sweep: worker.Sweep, say: Callable[[str], None]):
    self._sweep = sweep
    self._say = say
    self._console = rich.console.Console(highlight=False, emoji=False)
    self._live = None
    self._told = None
    self._began = time.monotonic(), None

  def __enter__(self):
    if self._console.is_interactive and self._console.file.isatty():
      self._live = rich.live.Live(console=self._console, auto_refresh=False)
      self._live.start()
    return self

  def __exit__(self, *exc):
    if self._live:
      self._live.update('', refresh=True)
      self._live.stop()
      self._live = None

  def say(self, message: str):
    """Prints a line above the table."""
    if self._live:
      self._live.console.print(message, markup=False, soft_wrap=True)
    else:
      self._say(message)

  def show(self):
    """Shows how far the sweep is."""
    self._sweep.look()
    if self._live:
      self._live.update(self._table(), refresh=True)
      return
    state = self._sweep.state
    news = len(state.scores), len(state.stopped), len(state.given_up)
    if news != self._told and any(news):
      self._told = news
      self._say('  '.join(filter(None, (*self._words(), self._left()))))

  def finish(self):
    """Shows what has come of it."""
    self._sweep.look()
    self._console.print(self._table(tells_time=False))
    best = self._best()
    if best:
      self._say('')
      self._say(f'Best by {self._sweep.study.metric}:')
    for trial, rung in best[:_BEST]:
      self._say(f'  {self._shown(trial, rung)}')
    failed = self._sweep.folder / worker.FAILURES
    for trial, why in self._sweep.state.given_up.items():
      name = self._sweep.state.trials[trial].name
      self._say(f'{name} was given up: {why}. Tracebacks: {failed}')
    folder = shlex.quote(str(self._sweep.folder))
    program = errors.program('dopamine-jax')
    self._say(f'The runs lie in {folder}. What matters, and what to run next:')
    self._say(f'  {program} sweep report {folder}')
    self._say('To compare them:')
    self._say(f'  {program} compare {folder}')

  def _table(self, tells_time=True):
    study, state = self._sweep.study, self._sweep.state
    table = rich.table.Table(box=None, pad_edge=False)
    for heading in ('RUNG', 'agent steps', 'trials', 'done', 'running'):
      table.add_column(heading, justify='right')
    table.add_column('stopped', justify='right')
    table.add_column('best')
    running = self._running()
    for rung, iterations in enumerate(study.rungs):
      entered = state.entered[rung]
      done = [each for each in entered if (each, rung) in state.scores]
      best = schedulers.ranked(state, entered, rung)
      table.add_row(
        str(rung + 1),
        f'{iterations * study.training_steps:,}',
        str(len(entered)),
        str(len(done)),
        str(running.get(rung, 0)),
        str(sum(each == rung for each in state.stopped.values())),
        f'{self._score(best[0], rung)} by {best[0]}' if best else '',
      )
    if tells_time and (left := self._left()):
      table.caption, table.caption_justify = left, 'left'
    return table

  def _words(self):
    """Yields the news of a sweep, in a few words each."""
    state = self._sweep.state
    for rung, entered in enumerate(state.entered):
      done = sum((each, rung) in state.scores for each in entered)
      if entered:
        yield f'rung {rung + 1}: {done} of {len(entered)}'
    if best := self._best():
      yield f'best {self._shown(*best[0])}'

  def _best(self):
    """Returns trials and the highest rung that they reached, best first."""
    state = self._sweep.state
    found = []
    taken = set()
    for rung in reversed(range(len(self._sweep.study.rungs))):
      for trial in schedulers.ranked(state, state.entered[rung], rung):
        if trial not in taken:
          taken.add(trial)
          if state.means[trial, rung] != state.means[trial, rung]:
            continue  # its score is unknown
          found.append((trial, rung))
    return found

  def _shown(self, trial, rung):
    """Returns a trial's score, and its name."""
    name = self._sweep.state.trials[trial].name
    return f'{self._score(trial, rung)}  {name}'

  def _score(self, trial, rung):
    """Returns a trial's mean over seeds, with its 95% interval."""
    mean, low, high = intervals.of_mean(self._sweep.state.scores[trial, rung])
    return f'{mean:.1f}' + (f' [{low:.1f}, {high:.1f}]' if low == low else '')

  def _running(self):
    """Returns how many trials are being trained, by rung."""
    found = {}
    for pack in self._sweep.state.waiting():
      if self._sweep.leases.is_alive(pack):
        found[pack.rung] = found.get(pack.rung, 0) + len(pack.trials)
    return found

  def _left(self):
    """Returns the time that is left, if that can be told."""
    done, total = self._progress()
    clock, first = self._began
    if first is None:
      self._began = clock, done
      return ''
    seconds = time.monotonic() - clock
    if seconds < _SETTLED or done <= first or done >= total:
      return ''
    left = (total - done) * seconds / (done - first)
    minutes, seconds = divmod(round(left), 60)
    hours, minutes = divmod(minutes, 60)
    shown = f'{hours}h{minutes:02}m' if hours else f'{minutes}m{seconds:02}s'
    return f'about {shown} left'

  def _progress(self):
    """Returns iterations of all trials that are done, and about how many."""
    study, state = self._sweep.study, self._sweep.state
    done = total = 0
    before, expected = 0, study.trials
    for rung, iterations in enumerate(study.rungs):
      length = iterations - before
      over = sum(state.is_over(each, rung) for each in state.entered[rung])
      expected = max(len(state.entered[rung]), expected)
      done += over * length
      total += expected * length
      before = iterations
      if study.scheduler == 'asha':
        expected //= study.reduction
    for pack in state.waiting():
      before = study.rungs[pack.rung - 1] if pack.rung else 0
      done += sum(max(0, self._iteration(x) - before) for x in pack.trials)
    return done, total

  def _iteration(self, trial):
    folder = self._sweep.path(trial)
    with contextlib.suppress(errors.UserError, OSError):
      if (folder / 'run.json').exists():
        facts = run_folder.read_facts(folder, lambda line: None)
        return facts.get('progress', {}).get('checkpoint', 0)
    return 0
