"""Reinforcement-learning research in JAX.

```python
import dopamine_jax as dj

run = dj.train('dqn_cartpole', 'runs/a', num_seeds=3)
agent = dj.load('runs/a')
action = agent.act(observation)
```

Importing this package alone imports no JAX: `train`, `load`, `Runner`, `Run`
and `call` are fetched when they are used. Read `dopamine_jax.agent` first, then
an agent in `dopamine_jax.agents`.
"""

import importlib
import typing

__version__ = '0.1.0'

if typing.TYPE_CHECKING:
  from dopamine_jax.library import Run as Run
  from dopamine_jax.library import load as load
  from dopamine_jax.library import train as train
  from dopamine_jax.runner import Runner as Runner
  from dopamine_jax.values import call as call

_OFFERED = {
  'Run': 'library',
  'Runner': 'runner',
  'call': 'values',
  'load': 'library',
  'train': 'library',
}


def __getattr__(name: str) -> typing.Any:
  """Fetches what the package offers, and JAX with it, when it is used."""
  if name not in _OFFERED:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  return getattr(importlib.import_module(f'{__name__}.{_OFFERED[name]}'), name)


def __dir__() -> list[str]:
  return sorted({*globals(), *_OFFERED})
