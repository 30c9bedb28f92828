"""What a sweep does next: a pure function of its journal.

Trials enter a rung in an order, are divided into packs in that order, and a
scheduler looks at the packs of a rung in that order too, whoever finishes
first. So the decisions, the packs and with them every bit of the results are
the same for one worker and for many, and after any kill.

Events of the journal, and what they hold beside `trial` or `pack`:

    trial     name, settings, group, parent, rung   a trial exists; those of one
                                                    group fit into one program
    entered   rung             it is to train up to this rung
    pack      rung, trials     these train together up to this rung
    result    rung, scores     what a trial reached there, by seed
    failed    attempt, why     a pack could not be trained
    split     into             its halves are tried instead
    stopped   rung, why        a trial does not go on
    given_up  why              a trial failed too often
    retried                    it is tried again, as the user asked
"""

from collections.abc import Iterable, Sequence
import dataclasses
import string
from typing import Any

import numpy as np

from dopamine_jax.sweeps import spaces
from dopamine_jax.sweeps import study as study_lib

ATTEMPTS = 3  # of a trial


@dataclasses.dataclass(frozen=True)
class Trial:
  """Settings that are tried.

  Attributes:
    number: counted from 0.
    name: of its folder.
    settings: values by the names of settings.
    group: trials of one group can train in one program.
    parent: the trial that it begins with; None: it begins anew.
    rung: at which it begins; -1: before the first.
  """

  number: int
  name: str
  settings: dict[str, Any]
  group: int
  parent: int | None = None
  rung: int = -1

  def record(self) -> dict[str, Any]:
    """Returns the event that tells of it."""
    fields = dataclasses.asdict(self)
    return {'event': 'trial', 'trial': fields.pop('number'), **fields}


@dataclasses.dataclass(frozen=True)
class Pack:
  """Trials that train together up to a rung.

  Attributes:
    name: its rung and its number there, such as '0.2'; halves add a letter.
    rung: counted from 0.
    trials: their numbers.
  """

  name: str
  rung: int
  trials: tuple[int, ...]

  def record(self) -> dict[str, Any]:
    """Returns the event that tells of it."""
    return {
      'event': 'pack',
      'pack': self.name,
      'rung': self.rung,
      'trials': list(self.trials),
    }


class State:
  """What a journal tells.

  Attributes:
    trials: all of them, by number.
    entered: for each rung the trials that are to train up to it, in order.
    packs: those that are to be trained or were, in order, without those that
      were split.
    scores: [S] by (trial, rung).
    means: of them over seeds; NaN if one is.
    stopped: the rung after which a trial does not go on, by trial.
    given_up: why, by trial.
    failures: how often a pack has failed, by its name.
  """

  def __init__(self, records: Iterable[dict[str, Any]] = (), rungs: int = 0):
    self.trials: list[Trial] = []
    self.entered: list[list[int]] = [[] for _ in range(rungs)]
    self.packs: list[Pack] = []
    self.scores: dict[tuple[int, int], np.ndarray] = {}
    self.means: dict[tuple[int, int], float] = {}
    self.stopped: dict[int, int] = {}
    self.given_up: dict[int, str] = {}
    self.failures: dict[str, int] = {}
    self._packed: set[tuple[int, int]] = set()
    self.take(records)

  def take(self, records: Iterable[dict[str, Any]]):
    """Goes on with more lines of the journal."""
    for each in records:
      take = getattr(self, f'_take_{each["event"]}', None)
      if take is None:
        raise ValueError(f'there is no event {each["event"]!r:.40}')
      self._check(each)
      take(each)

  def is_over(self, trial: int, rung: int) -> bool:
    """Whether a trial has reached a rung, or never will."""
    return (trial, rung) in self.scores or trial in self.given_up

  def is_done(self, pack: Pack) -> bool:
    """Whether nothing of a pack is left to train."""
    return all(self.is_over(each, pack.rung) for each in pack.trials)

  def packs_of(self, rung: int) -> list[Pack]:
    """Returns the packs of a rung, in order."""
    return [each for each in self.packs if each.rung == rung]

  def unpacked(self, rung: int) -> list[Trial]:
    """Returns the trials that have entered a rung and are in no pack there."""
    return [
      self.trials[each]
      for each in self.entered[rung]
      if (each, rung) not in self._packed
    ]

  def waiting(self) -> list[Pack]:
    """Returns the packs that are to be trained, those of high rungs first."""
    left = [each for each in self.packs if not self.is_done(each)]
    return sorted(left, key=lambda each: -each.rung)  # stable

  def _check(self, record):
    """Raises ValueError for what can't follow from what was before."""
    is_new = record['event'] == 'trial'
    trials = record.get('trials')
    if trials is None:
      trials = [record['trial']] if 'trial' in record else []
    known = range(len(self.trials) + is_new)
    rung = record.get('rung', 0)
    fits = isinstance(trials, list) and all(
      type(x) is int and x in known for x in trials
    )
    if is_new:
      fits = fits and record['trial'] == len(self.trials)
      fits = fits and isinstance(record['settings'], dict)
    if type(rung) is not int or not -is_new <= rung < len(self.entered):
      fits = False
    if not fits:
      raise ValueError(f'{record!r:.100} does not follow')

  def _take_trial(self, record):
    names = [each.name for each in dataclasses.fields(Trial)]
    fields = {name: record[name] for name in names if name != 'number'}
    settings = fields['settings'].items()
    fields['settings'] = {k: spaces.hashable(v) for k, v in settings}
    self.trials.append(Trial(record['trial'], **fields))

  def _take_entered(self, record):
    self.entered[record['rung']].append(record['trial'])

  def _take_pack(self, record):
    pack = Pack(record['pack'], record['rung'], tuple(record['trials']))
    self.packs.append(pack)
    self._packed.update((each, pack.rung) for each in pack.trials)

  def _take_result(self, record):
    scores = [np.nan if x is None else x for x in record['scores']]
    place = record['trial'], record['rung']
    self.scores[place] = np.array(scores, float)
    self.means[place] = float(np.mean(self.scores[place]))

  def _take_stopped(self, record):
    self.stopped[record['trial']] = record['rung']

  def _take_given_up(self, record):
    self.given_up[record['trial']] = record['why']

  def _take_retried(self, record):
    del self.given_up[record['trial']]
    for pack in self.packs:
      if record['trial'] in pack.trials and not self.is_done(pack):
        self.failures.pop(pack.name, None)

  def _take_failed(self, record):
    self.failures[record['pack']] = record['attempt']

  def _take_split(self, record):
    (index,) = (
      i for i, each in enumerate(self.packs) if each.name == record['pack']
    )
    whole = self.packs[index]
    halves = [
      Pack(name, whole.rung, tuple(trials))
      for name, trials in record['into'].items()
    ]
    self.packs[index : index + 1] = halves


def advance(study: study_lib.Study, state: State, search, scheduler):
  """Returns what follows from what is known, and has the state take it.

  Args:
    study: the sweep.
    state: what its journal tells.
    search: `propose(state)` returns the events of new trials; an empty list
      while results are awaited, or when none are left.
    scheduler: decides at the rungs: `decide(state, rung)` returns events.

  Returns:
    The events, which are to be appended to the journal.
  """
  everything = []
  while new := _next(study, state, search, scheduler):
    state.take(new)
    everything += new
  return everything


def has_more(study: study_lib.Study, state: State) -> bool:
  """Whether there are trials that were not proposed yet."""
  return len(state.trials) < study.trials


def is_complete(study: study_lib.Study, state: State) -> bool:
  """Whether nothing is left to train or to decide, all being decided."""
  return not state.waiting() and not has_more(study, state)


def _next(study, state, search, scheduler):
  """Returns the next events; none where results are awaited."""
  # Packs first: what is proposed or decided next must not fill them up.
  for rung in range(len(study.rungs)):
    if new := _packs(study, state, rung):
      return new
  if new := search.propose(state):
    return new
  for rung in range(len(study.rungs)):
    if new := scheduler.decide(state, rung, is_closed(study, state, rung)):
      return new
  return []


def is_closed(study: study_lib.Study, state: State, rung: int) -> bool:
  """Whether no more trials can enter a rung."""
  if rung == 0:
    return not has_more(study, state)
  decided = {*state.stopped, *state.given_up, *state.entered[rung]}
  below = rung - 1
  return decided.issuperset(state.entered[below]) and is_closed(
    study, state, below
  )


def _packs(study, state, rung):
  """Returns the packs into which those are divided that have entered a rung.

  The first rung takes all that are proposed at once. Higher ones wait for some,
  or for the last that can come: each pack has a program to start.
  """
  groups = {}
  for trial in state.unpacked(rung):
    groups.setdefault(trial.group, []).append(trial.number)
  few = {
    group
    for group, numbers in groups.items()
    if rung and len(numbers) < _enough(study, state, group)
  }
  # Those that have enough come first, for it depends on the workers when it is
  # known that no more trials come.
  ready = [group for group in groups if group not in few]
  if is_closed(study, state, rung):
    ready += [group for group in groups if group in few]
  made = {_origin(each) for each in state.packs_of(rung)}
  records = []
  for group in ready:
    for part in _parts(groups[group], study.pack):
      name = f'{rung}.{len(made) + len(records)}'
      pack = Pack(name, rung, tuple(sorted(part)))
      records.append(pack.record())
  return records


def _enough(study, state, group):
  """Returns how many trials of a group are a pack of a higher rung.

  As many as the group's first pack promotes from the first rung, but at least
  two, if packs have two. It is known whenever a trial of the group is promoted;
  of later packs it depends on the workers which exist by then.
  """
  packs = [
    each
    for each in state.packs_of(0)
    if state.trials[each.trials[0]].group == group
  ]
  first = [x for x in packs if _origin(x) == _origin(packs[0])]
  size = sum(len(each.trials) for each in first)
  return min(size, max(2, size // study.reduction))


def _origin(pack):
  """Returns the name of the pack of which it may be a half."""
  return pack.name.rstrip(string.ascii_lowercase)


def _parts(numbers: Sequence[int], most: int) -> list[tuple[int, ...]]:
  """Returns parts of almost one size, none larger than `most`."""
  count = -(-len(numbers) // most)
  return [tuple(each.tolist()) for each in np.array_split(numbers, count)]


def failed(state: State, pack: Pack, why: str) -> list[dict[str, Any]]:
  """Returns the events of a pack that could not be trained.

  Its halves are tried, until it is known which trial it is; that is given up
  after three attempts.

  Args:
    state: what the journal tells.
    pack: that failed.
    why: in a line.
  """
  attempt = state.failures.get(pack.name, 0) + 1
  records = [
    {'event': 'failed', 'pack': pack.name, 'attempt': attempt, 'why': why}
  ]
  if len(pack.trials) > 1:
    middle = len(pack.trials) // 2
    halves = {
      f'{pack.name}a': list(pack.trials[:middle]),
      f'{pack.name}b': list(pack.trials[middle:]),
    }
    records.append({'event': 'split', 'pack': pack.name, 'into': halves})
  elif attempt >= ATTEMPTS:
    (trial,) = pack.trials
    records.append({'event': 'given_up', 'trial': trial, 'why': why})
  return records


def entered(trial: int, rung: int) -> dict[str, Any]:
  """Returns the event of a trial that is to train up to a rung."""
  return {'event': 'entered', 'trial': trial, 'rung': rung}
