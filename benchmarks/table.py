"""Results as Markdown: a section a job, each with its own date and machine."""

from collections.abc import Callable, Iterable, Mapping
import dataclasses
import pathlib
import statistics
from typing import Any

from benchmarks import jobs

_HEAD = """\
# Results

Written by `make bench`, which is `python -m benchmarks`; a run replaces the
sections of the jobs that it ran. In each round everybody runs once, in turn, in
a fresh process, and measures {windows} windows after warm-up and compilation. A
row shows the median of all windows, the lowest and the highest; a ratio is
taken in each round, of the medians there, and its median is shown. "Others"
is the share of the processors that other programs had meanwhile: where that
isn't near 0, trust ratios more than rates, and neither where PyTorch is in
them, whose threads wait for each other busily. Hyper-parameters are those of
`jobs.py`; each process reported what it really had, and it was that.

What can't be made equal: in DQN sb3 and sbx learn with Huber's loss, the others
with squared errors; sb3 also clips gradients. rejax does DQN's updates once all
its environments have stepped: one update in four agent steps takes four
environments, so ours has four beside it. In PPO sbx and rejax give policy and
value an optimizer each, which clips its own gradients, rejax each number by
itself; rejax bootstraps nothing where an episode is truncated. "On 2 devices"
is one processor that JAX takes for two, each with half the seeds
(`devices.Devices.split = 'seeds'`); rejax has no switch for it. In SAC sb3 and
sbx move the policy by critics that have moved, ours and dopamine-rl all by what
an update began with; dopamine-rl's targets are of its target policy's means,
and its entropy is of the environment's actions; sb3 and sbx give means and
deviations a layer each, counted as the one that the others have. dopamine-rl
runs with the repairs that `peers/dopamine.py` names, rejax with the one in
`peers/rejax.py`. One of them switches on dopamine-rl's prioritized replay,
which its Rainbow has off by mistake, so that job C is like for like; and in
Full Rainbow ours has, as dopamine-rl does, one hidden layer below both streams,
where the paper has two.
"""


@dataclasses.dataclass
class Row:
  """What one row of a job showed.

  Attributes:
    rounds: the values of each round's process.
    memory: peak resident bytes, the largest of the rounds.
    others: share of the processors that others had, the mean of the rounds.
  """

  rounds: list[list[float]] = dataclasses.field(default_factory=list)
  memory: int = 0
  others: float = 0.0


def add(
  rows: dict[str, Row], label: str, report: Mapping[str, Any], rounds: int
):
  """Adds to the rows what a process reported, in one of so many rounds."""
  values = report['values']
  if not isinstance(values, dict):
    values = {label: values}
  for name, numbers in values.items():
    row = rows.setdefault(name, Row())
    row.rounds.append(numbers)
    row.memory = max(row.memory, report['memory'])
    row.others += report['others'] / rounds


def section(
  job: jobs.Job,
  rows: Mapping[str, Row],
  versions: Mapping[str, str],
  machine: str,
  missing: Mapping[str, str] | None = None,
) -> str:
  """Returns the Markdown of one job.

  Args:
    job: the job.
    rows: by their labels, those that were run.
    versions: of packages, ours and the peers'.
    machine: date and machine in a line.
    missing: why a contestant has no row, by its label; comparisons with it are
      shown by their targets.
  """
  missing = missing or {}
  rounds = max((len(row.rounds) for row in rows.values()), default=0)
  show = yes_or_no if job.yes_or_no else number
  lines = [
    f'## {job.title}',
    '',
    f'{machine}; {rounds} round{"s" * (rounds > 1)}.' if rounds else machine,
    '',
    f'| | {job.unit} | lowest to highest | peak GB | others |',
    f'|{" --- |" * 5}',
  ]
  for label, row in rows.items():
    values = [value for each in row.rounds for value in each]
    cells = [
      label,
      show(statistics.median(values)),
      f'{show(min(values))} to {show(max(values))}',
      f'{row.memory / 1e9:.2f}',
      f'{row.others:.0%}',
    ]
    lines.append(f'| {" | ".join(cells)} |')
  lines += [f'| {label} | {why} | | | |' for label, why in missing.items()]
  lines += _compared(job, rows, bool(missing), show)
  named = ', '.join(f'{name} {versions[name]}' for name in sorted(versions))
  return '\n'.join([*lines, *(['', f'Versions: {named}.'] * bool(named)), ''])


def _compared(
  job: jobs.Job,
  rows: Mapping[str, Row],
  every: bool,
  show: Callable[[float], str],
) -> list[str]:
  """Returns the table of comparisons whose rows were run, or of every one."""
  lines = []
  for each in job.comparisons:
    cells = [f'{each.row} / {each.over}' if each.over else each.row]
    if each.row in rows and (not each.over or each.over in rows):
      values = compare(each, rows)
      median = statistics.median(values)
      cells += [
        show(median),
        f'{show(min(values))} to {show(max(values))}',
        *_verdict(each, median, show),
      ]
    elif every:
      cells += ['', '', _verdict(each, 0.0, show)[0], '']
    else:
      continue
    lines.append(f'| {" | ".join(cells)} |')
  if not lines:
    return []
  head = [
    '| compared | median | lowest to highest | target | reached |',
    f'|{" --- |" * 5}',
  ]
  return ['', *head, *lines]


def compare(each: jobs.Comparison, rows: Mapping[str, Row]) -> list[float]:
  """Returns the row's medians of each round, over the other row's if any."""
  medians = [statistics.median(values) for values in rows[each.row].rounds]
  if each.over is None:
    return medians
  below = [statistics.median(values) for values in rows[each.over].rounds]
  return [a / b for a, b in zip(medians, below, strict=True)]


def _verdict(
  each: jobs.Comparison, value: float, show: Callable[[float], str]
) -> tuple[str, str]:
  """Returns the target, and whether it was reached."""
  if each.at_least is not None:
    bound = '' if show is yes_or_no else '>= '
    return f'{bound}{show(each.at_least)}', yes_or_no(value >= each.at_least)
  if each.at_most is not None:
    return f'<= {show(each.at_most)}', yes_or_no(value <= each.at_most)
  return '', ''


def yes_or_no(value: float) -> str:
  """Returns 'yes' for 1, and else 'no': not each of them was a yes."""
  return 'yes' if value >= 1 else 'no'


def number(value: float) -> str:
  """Returns three digits, or all before the point."""
  if value >= 100:
    return f'{value:,.0f}'
  return f'{value:.1f}' if value >= 10 else f'{value:.2f}'


def read(path: pathlib.Path) -> dict[str, str]:
  """Returns the sections of a file of results by title; none without one."""
  if not path.exists():
    return {}
  texts = path.read_text('utf-8').split('\n## ')[1:]
  return {text.split('\n', 1)[0]: f'## {text.rstrip()}\n' for text in texts}


def write(path: pathlib.Path, sections: Mapping[str, str]):
  """Puts sections into RESULTS.md, in place of those of the same job.

  Args:
    path: the file; made if missing.
    sections: Markdown by the job's name.
  """
  titled = {jobs.JOBS[name].title: text for name, text in sections.items()}
  titles = [job.title for job in jobs.JOBS.values()]
  put(path, _HEAD.format(windows=jobs.WINDOWS), titles, titled)


def put(
  path: pathlib.Path,
  head: str,
  titles: Iterable[str],
  sections: Mapping[str, str],
):
  """Puts sections into a file of results, in place of those of their titles.

  Args:
    path: the file; made if missing.
    head: what stands above the sections.
    titles: of all sections that the file may have, in order.
    sections: Markdown by title.
  """
  every = read(path) | dict(sections)
  texts = [head, *(every[title] for title in titles if title in every)]
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text('\n'.join(texts), 'utf-8')
