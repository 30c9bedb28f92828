"""Compares groups of runs: tables, figures, and what they allow to say."""

from collections.abc import Callable, Mapping, Sequence
import pathlib
import re
import types
from typing import NamedTuple

import numpy as np
import pandas as pd

from dopamine_jax.analysis import baselines as baselines_lib
from dopamine_jax.analysis import curves as curves_lib
from dopamine_jax.analysis import games as games_lib
from dopamine_jax.analysis import groups as groups_lib
from dopamine_jax.analysis import plots
from dopamine_jax.analysis import ranking as ranking_lib
from dopamine_jax.analysis import rungs as rungs_lib
from dopamine_jax.analysis import statistics
from dopamine_jax.analysis import verdicts
from dopamine_jax.system import safe_files
from dopamine_jax.system import texts

# Points that make a score: training returns are noisy, and there are many; an
# evaluation is of the agent as it is then.
_LAST = {'Train/AverageReturns': 5}
_AGGREGATES = {
  'IQM': statistics.iqm,
  'median': statistics.median,
  'mean': statistics.mean,
  'optimality gap': statistics.optimality_gap,
}
_SCORE_COLUMNS = (
  *('group', 'game', 'agent_steps', 'points', 'runs'),
  *('mean', 'low', 'high', 'worst', 'best'),
)
_FORK = re.compile(r'\bstart_from$|\bStartFrom\.')
# One game may decide a mean, and few runs bias a median.
_WITH_INTERVAL = ('IQM', 'optimality gap')


class Comparison(NamedTuple):
  """Groups side by side.

  Attributes:
    metric: the tag.
    last: how many points make a run's score, where it has so many.
    titles: of the games, by key.
    differences: settings in which the groups differ, with their values.
    curves: by group's name and game's key.
    bands: of published runs, by baseline's name and game's key.
    ends: the agent step that scores are taken at, by the keys of those games
      that all groups can be compared on.
    stops: the same by group's name: trials that a sweep stopped have earlier
      ones.
    scores: [R, G] by group's name, on those games.
    pairs: what the scores say of each two groups.
    sentences: all that is said in words.
    places: folders that runs come from; a stranger may have made them.
    ranking: of all groups, where they are too many to speak of each pair.
    means: by baseline's name and game's key, where only means over runs are
      published: nothing can be said about chance with those.
  """

  metric: str
  last: int
  titles: Mapping[str, str]
  differences: Mapping[str, Sequence[str]]
  curves: curves_lib.Curves
  bands: Mapping[str, Mapping[str, pd.DataFrame]]
  ends: Mapping[str, int]
  stops: Mapping[str, Mapping[str, int]]
  scores: Mapping[str, np.ndarray]
  pairs: Sequence[verdicts.Pair]
  sentences: Sequence[str]
  places: Sequence[pathlib.Path] = ()
  ranking: ranking_lib.Ranking | None = None
  means: Mapping[str, Mapping[str, float]] = types.MappingProxyType({})

  @property
  def human_games(self) -> list[str]:
    """Keys of the compared games with known random and human scores."""
    known = games_lib.random_human().index
    return [game for game in self.ends if game in known]

  def normalized_scores(self) -> dict[str, np.ndarray]:
    """Returns scores [R, G] on `human_games` by group: 0 random, 1 human."""
    columns = {game: i for i, game in enumerate(self.ends)}
    return {
      name: self._normalized(
        [scores[:, columns[game]] for game in self.human_games]
      )
      for name, scores in self.scores.items()
    }

  def normalized_means(self) -> dict[str, np.ndarray]:
    """Returns the same [1, G] of baselines that have means alone."""
    return {
      name: self._normalized([[by_game[game]] for game in self.human_games])
      for name, by_game in self.means.items()
      if by_game.keys() >= {*self.human_games}
    }

  def _normalized(self, columns):
    return np.stack(
      [
        games_lib.human_normalized(np.asarray(scores), game)
        for scores, game in zip(columns, self.human_games, strict=True)
      ],
      axis=1,
    )


def compare(
  arguments: Sequence[str],
  metric: str | None = None,
  baselines: Sequence[str] = (),
  last: int | None = None,
  say: Callable[[str], None] = print,
) -> Comparison:
  """Compares runs.

  Args:
    arguments: each PATH or NAME=PATH, of a run or a folder above several.
    metric: a tag; None is that of a sweep, if all runs are of one, else that of
      the first baseline, else 'Train/AverageReturns'.
    baselines: as 'dopamine:DQN:cnn' or 'atari100k:DER'.
    last: how many points make a run's score; None is 5 of training returns and
      1 of everything else.
    say: prints what is left out, and why.

  Raises:
    UserError: if nothing can be compared.
  """
  # First, so that a misspelt one is told before anything is read.
  published = {name: baselines_lib.parse(name) for name in baselines}
  own = groups_lib.gather(arguments, say)
  sweep = rungs_lib.of(own)
  metric, last = _judged_by(sweep, published, metric, last)
  curves = curves_lib.of_groups(own, metric, say)
  own = [group for group in own if group.name in curves]
  for line in () if sweep else verdicts.unfinished(own):
    say(line)
  titles = _titles(own)
  rivals, bands, means = baselines_lib.fitting(published, metric, titles, say)
  if rivals:
    curves |= curves_lib.of_groups(rivals, metric, say)
    sweep = None  # published runs have no rungs
  scored = {name: bands[name] for name in (*(x.name for x in rivals), *means)}
  ends, stops = rungs_lib.where(curves, titles, sweep, scored, say)
  scores = {
    name: curves_lib.score_matrix(
      {game: c[game].until(end) for game, end in stops[name].items()},
      [*ends],
      last,
    )
    for name, c in curves.items()
    if ends
  }
  means = baselines_lib.laid_beside(means, bands, curves, stops, titles, say)
  for line in verdicts.of_means(means, ends, titles):
    say(line)
  return _spoken_of(
    Comparison(
      metric=metric,
      last=last,
      titles=titles,
      differences=_differences(own, sweep),
      curves=curves,
      bands=bands,
      ends=ends,
      stops=stops,
      scores=scores,
      pairs=(),
      sentences=[
        *_departures(own, curves, bands, titles),
        *baselines_lib.other_protocols(own, bands, metric),
      ],
      means=means,
      places=[
        *(run.path for group in own for run in group.runs),
        *(groups_lib.split(argument)[1] for argument in arguments),
      ],
    ),
    [group.name for group in rivals],
  )


def write(comparison: Comparison, folder: pathlib.Path) -> list[pathlib.Path]:
  """Writes figures, numbers and words; returns the files.

  Raises:
    UserError: if the folder can't be written.
  """
  safe_files.make_folder(folder, *comparison.places)
  tables = {
    'curves.csv': curve_table(comparison),
    'scores.csv': score_table(comparison),
  }
  if comparison.ranking:
    tables['ranking.csv'] = ranking_table(comparison)
  for name, table in tables.items():
    csv = table.map(_cell).to_csv(index=False)
    safe_files.write(folder / name, csv, *comparison.places)
  lines = map(texts.line, comparison.sentences)
  summary = ''.join(f'{line}\n' for line in lines)
  safe_files.write(folder / 'summary.txt', summary, *comparison.places)
  figures = {
    'curves': plots.learning_curves(
      *(comparison.curves, comparison.titles, comparison.bands),
      *(comparison.metric, comparison.ranking),
    )
  }
  games = comparison.human_games
  if len(games) > 1:
    normalized = {
      name: {
        game: curves_lib.normalized(
          c[game].until(comparison.stops[name][game]), game
        )
        for game in games
      }
      for name, c in comparison.curves.items()
    }
    figures['aggregate'] = plots.aggregate(normalized, games, comparison.last)
  for name, figure in figures.items():
    plots.save(figure, folder, name, *comparison.places)
  names = [f'{name}.{suffix}' for name in figures for suffix in ('png', 'svg')]
  names += [*tables, 'summary.txt']
  return [folder / name for name in names]


def curve_table(comparison: Comparison) -> pd.DataFrame:
  """Returns each point of each curve, with its interval over runs."""
  tables = []
  for name, by_game in comparison.curves.items():
    for game, curve in by_game.items():
      interval = curve.interval()
      columns = {
        'group': name,
        'game': comparison.titles[game],
        'agent_steps': curve.steps,
        'runs': curve.num_runs,
        'mean': interval.value,
        'low': interval.low,
        'high': interval.high,
      }
      tables.append(pd.DataFrame(columns))
  return pd.concat(tables, ignore_index=True)


def score_table(comparison: Comparison) -> pd.DataFrame:
  """Returns each group's score on each game, with its interval over runs."""
  rows = []
  for game in comparison.ends:
    for name in comparison.scores:
      curve = comparison.curves[name][game].until(comparison.stops[name][game])
      scores = curve.scores(comparison.last)
      interval = curve.score_interval(comparison.last)
      rows.append(
        {
          'group': name,
          'game': comparison.titles[game],
          'agent_steps': int(curve.steps[-1]),
          'points': min(comparison.last, len(curve.steps)),
          'runs': len(scores),
          'mean': interval.value,
          'low': interval.low,
          'high': interval.high,
          'worst': scores.min(),
          'best': scores.max(),
        }
      )
  return pd.DataFrame(rows, columns=_SCORE_COLUMNS)


def ranking_table(comparison: Comparison) -> pd.DataFrame:
  """Returns groups in their order, with the settings in which they differ."""
  rows = []
  for place, row in enumerate(comparison.ranking.rows, 1):
    numbers = {'rank': place, **row._asdict()}
    settings = numbers.pop('settings')
    numbers['group'] = numbers.pop('name')
    del numbers['label']
    named = zip(comparison.differences, settings, strict=True)
    rows.append({**numbers, **dict(named)})
  return pd.DataFrame(rows)


def aggregate_table(comparison: Comparison) -> pd.DataFrame | None:
  """Returns human-normalized aggregates, or None where no human is known.

  With stratified bootstrap intervals where these hold: see
  `statistics.bootstrap`.
  """
  if not comparison.human_games:
    return None
  rows = []
  normalized = comparison.normalized_scores()
  for name, scores in comparison.normalized_means().items():
    normalized[f'{name} (means)'] = scores
  for name, scores in normalized.items():
    for label, statistic in _AGGREGATES.items():
      interval = statistics.bootstrap(statistic, scores)
      if label not in _WITH_INTERVAL:
        interval = interval._replace(low=np.nan, high=np.nan)
      numbers = {key: float(x) for key, x in interval._asdict().items()}
      rows.append({'group': name, 'statistic': label, **numbers})
  return pd.DataFrame(rows)


def _cell(value):
  return texts.cell(value) if isinstance(value, str) else value


def _judged_by(sweep, published, metric, last):
  """Returns the metric, and how many points make a score."""
  if sweep and metric in (None, sweep.metric):
    return sweep.metric, last or sweep.last
  theirs = [table.metric.iloc[0] for table in published.values()]
  metric = metric or next(iter(theirs), 'Train/AverageReturns')
  return metric, last or _LAST.get(metric, 1)


def _differences(own, sweep):
  """Returns settings that differ; whom a trial goes on from is none."""
  found = groups_lib.differences(own)
  if sweep is None:
    return found
  return {k: v for k, v in found.items() if not _FORK.search(k)}


def _spoken_of(comparison, rivals):
  """Returns a comparison with pairs and words; of many groups a ranking."""
  scores, stops = comparison.scores, comparison.stops
  words = comparison.sentences
  if len(scores) > ranking_lib.FEW:
    ranking = ranking_lib.rank(
      *(comparison.curves, stops, comparison.last),
      *(comparison.differences, rivals),
    )
    return comparison._replace(
      pairs=ranking.pairs,
      ranking=ranking,
      sentences=[*ranking.sentences, *words],
    )
  # What ended at other steps is not compared.
  alike = {n: x for n, x in scores.items() if stops[n] == comparison.ends}
  pairs = verdicts.pairs(alike, rivals)
  words = [
    *(verdicts.sentence(pair) for pair in pairs),
    *verdicts.on_several(pairs, next(iter(alike), '')),
    *words,
  ]
  return comparison._replace(pairs=pairs, sentences=words)


def _titles(groups):
  """Returns games as their runs write them, by key and in order of names."""
  titles = {}
  for group in groups:
    for run in group.runs:
      titles.setdefault(games_lib.key(run.game), run.game)
  return dict(sorted(titles.items()))


def _departures(own, curves, bands, titles):
  """Says for each band where groups leave it."""
  lines = [
    f'{titles[game]}, {baseline}: '
    + verdicts.departures(group.name, curves[group.name][game], band)
    for baseline, by_game in bands.items()
    for game, band in by_game.items()
    for group in own
    if game in curves[group.name]
  ]
  if not lines:
    return []
  counts = [x.runs.max() for games in bands.values() for x in games.values()]
  if any(0 < count < baselines_lib.MANY for count in counts):
    lines.append(
      'By chance alone a single run of the same kind is outside the range of '
      'five at a third of its points, the mean of several runs less often.'
    )
  if max(counts) >= baselines_lib.MANY:
    lines.append(
      'By chance alone a single run of the same kind is outside the 95% range '
      'of many one time in twenty, the mean of several runs less often.'
    )
  return lines
