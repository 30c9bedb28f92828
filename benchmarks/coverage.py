"""How often a 95% interval holds what it is about, and how often a test errs.

    python -m benchmarks.coverage

draws runs from known distributions and prints three tables. They stand in
docs/statistics.md, with what they mean; `tests/unit/intervals_test.py` holds a
short form of them.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from dopamine_jax.analysis import chance
from dopamine_jax.analysis import statistics
from dopamine_jax.metrics import intervals

SEEDS = (2, 3, 5, 10, 30)
_DRAWS = 20_000
_POPULATION = 2_000_000
_MATRICES = 500
_RESAMPLES = 400

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def two_modes(share: float) -> Draw:
  """Returns scores of which a share is near 0.9, and the rest near 0.1."""

  def draw(rng, size):
    modes = np.where(rng.random(size) < share, 0.9, 0.1)
    return np.clip(modes + 0.03 * rng.normal(size=size), 0, 1)

  return draw


# Scores on a scale from 0, where a training begins, to 1, the most there is.
# Only what is lognormal has no most.
SCORES: Mapping[str, Draw] = {
  'normal': lambda rng, size: rng.normal(0.5, 0.15, size),
  'uniform': lambda rng, size: rng.random(size),
  'beta(8, 0.8), near the cap': lambda rng, size: rng.beta(8, 0.8, size),
  '70% at the cap': lambda rng, size: np.minimum(
    1, rng.normal(1.05, 0.1, size)
  ),
  '90% at the cap': lambda rng, size: np.where(
    rng.random(size) < 0.9, 1, rng.random(size)
  ),
  'two modes, 50/50': two_modes(0.5),
  'two modes, 80% high': two_modes(0.8),
  'two modes, 20% high': two_modes(0.2),
  'lognormal, sigma 0.5': lambda rng, size: rng.lognormal(-1.5, 0.5, size),
  'lognormal, sigma 1': lambda rng, size: rng.lognormal(-1.5, 1, size),
}


def of_a_mean(
  draw: Draw,
  n: int,
  seen: tuple[float, float] = (np.inf, -np.inf),
  draws: int = _DRAWS,
  population: int = _POPULATION,
) -> float:
  """Returns how often the interval of a mean over n runs holds the true one.

  Args:
    draw: the runs' distribution.
    n: runs.
    seen: the lowest and the highest score that such runs were seen to have.
    draws: how often n runs are drawn.
    population: scores whose mean is taken for the true one.
  """
  rng = np.random.default_rng(n)
  mean = draw(rng, (population,)).mean()
  interval = intervals.of_mean(draw(rng, (draws, n)), *seen)
  return float(np.mean((interval.low <= mean) & (mean <= interval.high)))


def of_bootstrap(
  statistic: statistics.Statistic, runs: int, games: int, fewer: int
) -> float:
  """Returns how often the stratified bootstrap holds the true statistic."""
  rng = np.random.default_rng(runs * games)
  kinds = [SCORES[name] for name in SCORES if 'sigma 1' not in name]
  # Games differ in scale too: some are solved, and some hardly begun.
  scales = np.geomspace(0.2, 4, games)

  def draw(*size):
    columns = [kinds[i % len(kinds)](rng, size) for i in range(games)]
    return np.stack(columns, axis=-1) * scales

  truth = statistic(draw(20_000))
  held = 0
  for trial in range(_MATRICES):
    interval = statistics.bootstrap(
      *(statistic, draw(runs)),
      **dict(resamples=_RESAMPLES, seed=trial, fewer=fewer, always=True),
    )
    held += interval.low <= truth <= interval.high
  return held / _MATRICES


def of_verdict(draw: Draw, n: int, draws: int = 4_000) -> float:
  """Returns how often equal groups of n runs each are told apart."""
  rng = np.random.default_rng(n)
  x, y = draw(rng, (draws, n)), draw(rng, (draws, n))
  p_values = [chance.shift(a, b).p_value for a, b in zip(x, y, strict=True)]
  return float(np.mean(np.array(p_values) <= chance.LEVEL))


def main():
  """Prints the three tables."""
  print('Mean over runs of one game: % of 95% intervals that hold it, by runs')
  for title, seen in (
    ('lowest and highest possible score were seen', (0.0, 1.0)),
    ('runs began at 0; none higher was seen', (0.0,)),
    ('nothing but these runs was seen', ()),
  ):
    _table(title, SCORES, SEEDS, lambda draw, n, s=seen: of_a_mean(draw, n, s))
  print('Verdicts: % of equal groups of so many runs that are told apart')
  _table('', SCORES, SEEDS, of_verdict)
  print('Aggregates: % of stratified bootstrap 95% intervals that hold them')
  for fewer, draws in ((0, 'R'), (1, 'R - 1')):
    for games in (5, 10, 26, 55):
      _table(
        f'{games} games, {draws} of R runs drawn; by R',
        {
          'IQM': statistics.iqm,
          'optimality gap': statistics.optimality_gap,
          'mean': statistics.mean,
          'median': statistics.median,
        },
        (2, 3, 5, 10),
        lambda s, runs, g=games, f=fewer: of_bootstrap(s, runs, g, f),
      )


def _table(title: str, rows: Mapping, columns: Sequence[int], measure):
  print(f'{title:40}' + ''.join(f'{n:>8}' for n in columns))
  for name, row in rows.items():
    cells = [f'{100 * measure(row, n):8.1f}' for n in columns]
    print(f'  {name:38}' + ''.join(cells), flush=True)
  print()


if __name__ == '__main__':
  main()
