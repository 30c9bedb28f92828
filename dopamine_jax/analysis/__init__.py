"""Several runs: loaded as one table, compared with intervals, drawn.

```python
from dopamine_jax import analysis

table = analysis.load('runs')  # every run below this folder
published = analysis.baseline('Rainbow', 'cnn')  # Dopamine's, the same columns
```

Both are tidy data frames with these columns, a row for each number:

| Column      | Meaning                                                       |
| ----------- | ------------------------------------------------------------- |
| run         | the folder, or the file, that it comes from                   |
| config      | digest of the settings that decide results, without the game |
| agent       | such as 'DQN'                                                 |
| game        | such as 'CartPole-v1'                                         |
| seed        | of the run; in a baseline, its number                         |
| iteration   | counted from 1                                                |
| agent_steps | of this seed until then; four frames each on Atari            |
| metric      | a tag of `dopamine_jax.metrics`, 'Train/AverageReturns'       |
| value       | the number                                                    |

`statistics` has the statistics, and `dopamine-jax compare` shows the whole.
"""

from dopamine_jax import errors

try:
  import matplotlib  # noqa: F401
  import pandas  # noqa: F401
except ImportError as error:
  raise errors.UserError(
    f'analysis needs {error.name}, which is not installed: '
    f'{errors.install("analysis")}'
  ) from error

from dopamine_jax.analysis.baselines import baseline
from dopamine_jax.analysis.runs import load

__all__ = ['baseline', 'load']
