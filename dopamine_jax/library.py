"""Training, loading and playing from Python, in a few lines.

`dopamine_jax.train` and `load` are these. What the commands set up
before JAX starts (a cache of compiled programs, memory that is kept) is set up
here too, when the first of them is called.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import inspect
import pathlib
import re
from typing import Any, overload

import numpy as np

from dopamine_jax import agent as agent_lib
from dopamine_jax import errors
from dopamine_jax import runner as runner_lib
from dopamine_jax import variations
from dopamine_jax.config import names
from dopamine_jax.engines import startup
from dopamine_jax.environments import base
from dopamine_jax.playing import player
from dopamine_jax.playing import trained
from dopamine_jax.system import texts
from dopamine_jax.training import run_folder

_ITERATIONS = 10  # at most, where a training's length is given in agent steps
_SETTINGS = [field.name for field in dataclasses.fields(runner_lib.Runner)]


@dataclasses.dataclass(frozen=True)
class Run:
  """A training that has ended.

  Attributes:
    folder: where it lies.
    seeds: S of them.
    statistics: the last iteration's, [S] by name; of a run that was finished
      before, evaluations only if it has a metrics.csv.
  """

  folder: pathlib.Path
  seeds: tuple[int, ...]
  statistics: dict[str, np.ndarray] = dataclasses.field(repr=False)

  def load(self, seed: int | None = None) -> player.Player:
    """Returns the agent of one seed, ready to act; see `load`."""
    return load(self.folder, seed=seed)


@overload
def train(
  what: str | pathlib.Path | Sequence[str | pathlib.Path],
  base_dir: str | pathlib.Path,
  /,
  *,
  vary: Mapping[str, Sequence[Any]],
  bindings: Sequence[str] = (),
  **options: Any,
) -> dict[str, Run]: ...


@overload
def train(
  what: str | pathlib.Path | Sequence[str | pathlib.Path],
  base_dir: str | pathlib.Path,
  /,
  *,
  bindings: Sequence[str] = (),
  **options: Any,
) -> Run: ...


@overload
def train(
  what: runner_lib.Runner, base_dir: str | pathlib.Path, /, **options: Any
) -> Run: ...


@overload
def train(
  what: agent_lib.Agent,
  environment: base.Environment,
  base_dir: str | pathlib.Path,
  /,
  *,
  agent_steps: int,
  **settings_and_options: Any,
) -> Run: ...


@overload
def train(
  what: Mapping[str, runner_lib.Runner],
  base_dir: str | pathlib.Path,
  /,
  **options: Any,
) -> dict[str, Run]: ...


def train(what, *where, **kwargs):
  """Trains, or goes on where a run in the folder was stopped.

  Of a gin file, a Runner, or an agent and an environment:

      train('dqn_cartpole', 'runs/a', num_seeds=3,
            bindings=['dqn.DQN.n_step = 1'])
      train(Runner(agent=..., environment=..., ...), 'runs/b')
      train(dqn.DQN(n_step=1), gym.Gym(id='CartPole-v1'), 'runs/c',
            agent_steps=25_000, num_envs=4)

  Several that differ in real numbers of their agents train in one program, as
  a dict of Runners by the names of their folders, or of a gin file by `vary`;
  a Run of each comes back by that name:

      train('dqn_cartpole', 'runs/d', vary={'dqn.DQN.gamma': [0.9, 0.99]})

  Args:
    what: the name of a shipped config or the path of a gin file, or several of
      them; a Runner, or several by name; or an agent.
    *where: the run's folder; of an agent, its environment before it.
    **kwargs: options of `Runner.train`: `seed`, `num_seeds`, `resume`, `quiet`
      and so on. With gin files, `bindings`: lines of gin, which win. With an
      agent, `agent_steps` of the whole training, and any settings of `Runner`;
      by default it has up to ten iterations.

  Raises:
    UserError: if a setting, the folder or a checkpoint doesn't fit.
  """
  for name in kwargs.keys() & {'self', 'base_dir', 'agent', 'environment'}:
    raise errors.UserError(
      f'train takes no {name} by name: what to train, then of an agent its '
      'environment, then the folder are given in this order.'
    )
  _prepare()
  if isinstance(what, (agent_lib.Agent, functools.partial, type)):
    environment, base_dir = _parts(where, 'an environment', 'a folder')
    runner, kwargs = _runner(what, environment, base_dir, **kwargs)
    return _train(runner, base_dir, **kwargs)
  (base_dir,) = _parts(where, 'a folder')
  if isinstance(what, runner_lib.Runner):
    return _train(what, base_dir, **kwargs)
  if isinstance(what, Mapping):
    return _train_together(what, base_dir, **kwargs)
  files = [what] if isinstance(what, (str, pathlib.Path)) else what
  if (
    not isinstance(files, Sequence)
    or not files
    or not all(isinstance(each, (str, pathlib.Path)) for each in files)
  ):
    raise errors.UserError(
      f'train({what!r}, ...): expected the name or path of a gin file, a '
      'Runner, or an agent and an environment.'
    )
  bindings = kwargs.pop('bindings', ())
  bindings = [bindings] if isinstance(bindings, str) else bindings or ()
  if isinstance(bindings, Mapping) or not all(
    isinstance(each, str) for each in bindings
  ):
    raise errors.UserError(
      f'bindings = {bindings!r:.80}; expected lines of gin, such as '
      "['dqn.DQN.gamma = 0.9']."
    )
  say = kwargs.get('say', _say)
  if vary := kwargs.pop('vary', None):
    runners = variations.of_files(files, bindings, vary, say)
    return _train_together(runners, base_dir, **kwargs)
  with runner_lib.configured(files, bindings, say) as (runner, title):
    return _train(runner, base_dir, **{'title': title, **kwargs})


def load(
  base_dir: str | pathlib.Path,
  *,
  seed: int | None = None,
  checkpoint: str | int | None = None,
  trusted: Sequence[str] = (),
) -> player.Player:
  """Returns a run's agent, all exploration off, ready to act.

  Call it once for each run: agents of any settings live side by side.

  Args:
    base_dir: the run's folder.
    seed: which of the run's seeds; None: the first.
    checkpoint: which one: its iteration, or the name by which a callback keeps
      it, such as 'best'; None: the newest.
    trusted: packages that a stranger's run may import and call as well.

  Raises:
    UserError: if the folder holds no run, or no checkpoint that can be read.
  """
  if not isinstance(base_dir, (str, pathlib.Path)):
    raise errors.UserError(
      f'load({base_dir!r}): expected the path of a folder.'
    )
  if type(checkpoint) not in (str, int, type(None)):
    raise errors.UserError(
      f'checkpoint = {checkpoint!r}; expected an iteration or a name.'
    )
  _prepare()
  name = None if checkpoint is None else str(checkpoint)
  return player.Player(trained.load(base_dir, _say, trusted, name), seed)


def _train(runner, base_dir, *, seed=0, num_seeds=1, **options) -> Run:
  options.setdefault('say', _say)
  seed, num_seeds = (
    int(x) if isinstance(x, np.integer) else x for x in (seed, num_seeds)
  )
  _refuse_unknown(options)
  statistics = runner.train(base_dir, seed=seed, num_seeds=num_seeds, **options)
  seeds = tuple(range(seed, seed + num_seeds))
  return Run(pathlib.Path(base_dir), seeds, statistics)


def _train_together(runners, base_dir, *, seed=0, num_seeds=1, **options):
  options.setdefault('say', _say)
  wrong = [
    each for each in runners.values() if not isinstance(each, runner_lib.Runner)
  ]
  if not runners or wrong:
    raise errors.UserError(
      f'train({runners!r:.60}, ...): expected Runners by the names of their '
      'folders, at least one.'
    )
  found = variations.train(
    runners, base_dir, seed=seed, num_seeds=num_seeds, **options
  )
  seeds = tuple(range(seed, seed + num_seeds))
  return {
    name: Run(pathlib.Path(base_dir) / name, seeds, statistics)
    for name, statistics in found.items()
  }


def _runner(agent, environment, base_dir, *, agent_steps=None, **kwargs):
  """Returns a runner, and the options that are none of its settings."""
  if not isinstance(environment, base.Environment) and (
    isinstance(environment, str) or hasattr(environment, 'step')
  ):
    id = environment if isinstance(environment, str) else 'CartPole-v1'
    raise errors.UserError(
      f'the environment is {environment!r}; expected its settings, such as '
      f'gym.Gym(id={id!r}), after `from dopamine_jax.environments import gym`.'
    )
  given = {k: kwargs.pop(k) for k in list(kwargs) if k in _SETTINGS}
  lengths = {'num_iterations', 'training_steps'}
  if agent_steps is None and not lengths <= given.keys():
    raise errors.UserError(
      'train(agent, environment, folder) needs agent_steps: how long to train.'
    )
  made = {'agent': agent, 'environment': environment, **given}
  if agent_steps is not None:
    # What is divided by below is looked at first.
    envs = given.get('num_envs', 1)
    missing = dict.fromkeys(
      lengths - given.keys(), envs if type(envs) is int and envs > 0 else 1
    )
    checked = runner_lib.Runner(**made, **missing)
    made |= _iterations(agent_steps, given, checked.num_envs, base_dir)
  return runner_lib.Runner(**made), kwargs


def _iterations(agent_steps, given, num_envs, base_dir) -> dict[str, int]:
  """Returns how many iterations, and how long, make so many agent steps.

  A run that lies in the folder keeps the length of its own.
  """
  if isinstance(agent_steps, np.integer):
    agent_steps = int(agent_steps)
  if type(agent_steps) is not int or agent_steps < 1:
    raise errors.UserError(
      f'agent_steps = {agent_steps!r}; expected a whole number, at least 1.'
    )
  if agent_steps % num_envs:
    raise errors.UserError(
      f'agent_steps = {agent_steps} is not a multiple of num_envs = {num_envs}.'
    )
  number, length = given.get('num_iterations'), given.get('training_steps')
  if number is None and length is None:
    before = _length_before(base_dir)
    length = before if before and agent_steps % before == 0 else None
  if number is None and length is not None:
    number = agent_steps // length
  elif number is None:
    rounds = agent_steps // num_envs
    number = max(n for n in range(1, _ITERATIONS + 1) if rounds % n == 0)
  if length is None:
    length = agent_steps // number
  if number * length != agent_steps or length % num_envs:
    names_given = [
      k for k in ('num_iterations', 'training_steps') if k in given
    ]
    shown = ' and '.join(f'{k} = {given[k]}' for k in names_given)
    raise errors.UserError(
      f'agent_steps = {agent_steps} can not be parted by {shown} into '
      'iterations of one length. Change one of them, or give agent_steps alone.'
    )
  return {'num_iterations': number, 'training_steps': length}


def _length_before(base_dir) -> int | None:
  """Returns the `training_steps` of the run in a folder; None without one."""
  config = run_folder.read_config(pathlib.Path(base_dir)) or ''
  found = re.search(r'Runner\.training_steps = (\d+)', config)
  return int(found[1]) if found else None


def _refuse_unknown(options):
  known = inspect.signature(runner_lib.Runner.train).parameters
  for name in options:
    if name in known:
      continue
    if name in ('agent_steps', 'bindings'):
      hint = ' Bindings go with gin files, and agent_steps with an agent.'
    elif name in _SETTINGS:
      hint = (
        f" It is a setting: of a gin file, bindings=['runner.Runner.{name} = "
        f"...'] sets it; of a Runner, runner.replace({name}=...)."
      )
    else:
      hint = names.did_you_mean(name, [*known, *_SETTINGS])
    raise errors.UserError(f'train takes no {name} here.{hint}')


def _parts(where, *expected):
  if len(where) != len(expected):
    raise errors.UserError(
      f'train takes {" and ".join(expected)} behind what to train, and '
      f'{len(where)} were given.'
    )
  return where


@functools.cache
def _prepare():
  startup.prepare(_say, users_code=False)
  startup.find_devices()


def _say(message: str):
  print(texts.printable(message))
