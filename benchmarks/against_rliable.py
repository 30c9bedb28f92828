"""Our statistics beside rliable's, on Dopamine's published scores.

rliable 1.2.0 doesn't run with pandas 3, so it has an environment of its own:

    python3 -m venv /tmp/rliable
    /tmp/rliable/bin/pip install rliable==1.2.0 'pandas<3'
    /tmp/rliable/bin/python -m benchmarks.against_rliable

Point estimates must be equal. Both intervals are bootstraps, so each is redone
with several seeds, and their means must agree within four standard errors. Of R
runs R are drawn here, as rliable does; `compare` draws R - 1, since with R the
intervals of 5 runs are too narrow by a tenth (`python -m benchmarks.coverage`).
Seen of the scores after 200 iterations, 55 games, 5 runs:

                             value              ours     rliable 1.2.0
    IQM, DQN                1.3741    1.343 to 1.406    1.343 to 1.405
    median, DQN             1.0948    1.041 to 1.117    1.041 to 1.118
    mean, DQN               7.1353    5.359 to 8.814    5.372 to 8.850
    optimality gap, DQN     0.2867    0.276 to 0.298    0.276 to 0.298
    IQM, Rainbow            1.6349    1.598 to 1.672    1.598 to 1.671
    median, Rainbow         1.3468    1.322 to 1.395    1.322 to 1.394
    mean, Rainbow           9.1833    8.725 to 9.556    8.725 to 9.553
    optimality gap, Rainbow 0.2170    0.208 to 0.225    0.208 to 0.225
"""

import numpy as np
from rliable import library
from rliable import metrics

from dopamine_jax import analysis
from dopamine_jax.analysis import games
from dopamine_jax.analysis import statistics

_SEEDS = 20
_RESAMPLES = 1_000
_SLOW_RESAMPLES = 100  # rliable counts wins game by game
_STATISTICS = {
  'IQM': (statistics.iqm, metrics.aggregate_iqm),
  'median': (statistics.median, metrics.aggregate_median),
  'mean': (statistics.mean, metrics.aggregate_mean),
  'optimality gap': (
    statistics.optimality_gap,
    metrics.aggregate_optimality_gap,
  ),
}


def scores(agent: str, iteration: int = 200, last: int = 5) -> np.ndarray:
  """Returns human-normalized scores of the cnn agent, [5, 55]."""
  table = analysis.baseline(agent, 'cnn')
  window = (table.iteration > iteration - last) & (table.iteration <= iteration)
  window &= table.game.isin(games.random_human().index)
  wide = table[window].pivot_table(
    index='seed', columns='game', values='value', aggfunc='mean'
  )
  return np.stack(
    [games.human_normalized(wide[game].to_numpy(), game) for game in wide],
    axis=1,
  )


def main():
  """Prints a table, and fails where the two don't agree."""
  dqn, rainbow = scores('DQN'), scores('Rainbow')
  thresholds = np.linspace(0, 8, 81)
  theirs, _ = library.create_performance_profile(
    {'DQN': dqn}, thresholds, reps=10
  )
  ours = statistics.performance_profile(dqn, thresholds)
  np.testing.assert_allclose(ours, theirs['DQN'], atol=1e-12)
  print('Performance profile of DQN at 81 thresholds: equal.')
  print(f'{"":24}{"value":>8}  {"ours":>16}  {"rliable 1.2.0":>16}')
  for agent, x in (('DQN', dqn), ('Rainbow', rainbow)):
    for name, (ours, theirs) in _STATISTICS.items():
      print(_row(f'{name}, {agent}', ours, theirs, (x,)), flush=True)
  ours = statistics.probability_of_improvement
  theirs = metrics.probability_of_improvement
  pair = rainbow, dqn
  print(_row('P(Rainbow > DQN)', ours, theirs, pair, _SLOW_RESAMPLES))


def _row(name, ours, theirs, x, resamples=_RESAMPLES):
  np.testing.assert_allclose(ours(*x), theirs(*x), rtol=1e-12)
  mine, other = [], []
  for seed in range(_SEEDS):
    interval = statistics.bootstrap(
      ours, *x, resamples=resamples, seed=seed, fewer=0
    )
    mine.append([interval.low, interval.high])
    _, intervals = library.get_interval_estimates(
      {'x': x if len(x) > 1 else x[0]},
      lambda *s: np.array([theirs(*s)]),
      reps=resamples,
      random_state=np.random.RandomState(seed),
    )
    other.append(intervals['x'][:, 0])
  mine, other = np.array(mine), np.array(other)
  error = np.sqrt(
    (mine.var(axis=0, ddof=1) + other.var(axis=0, ddof=1)) / _SEEDS
  )
  gap = np.abs(mine.mean(axis=0) - other.mean(axis=0))
  if (gap > 4 * error).any():
    raise AssertionError(f'{name}: {mine.mean(0)} is not {other.mean(0)}')
  columns = [
    f'{low:.3f} to {high:.3f}' for low, high in (mine.mean(0), other.mean(0))
  ]
  return f'{name:24}{ours(*x):8.4f}  {columns[0]:>16}  {columns[1]:>16}'


if __name__ == '__main__':
  main()
