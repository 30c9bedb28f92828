"""`dopamine-jax new agent NAME`: a first agent of one's own, to change.

It writes an agent, its gin file and its tests, which pass.
"""

import importlib.util
import keyword
import pathlib
import string

import typer

from dopamine_jax import errors

app = typer.Typer(
  name='new',
  help='Write the first files of something of your own.',
  no_args_is_help=True,
)

_AGENT = string.Template('''\
"""$name: DQN with advantage learning, to be changed into yours.

Bellemare et al. (2016), Increasing the Action Gap.
https://arxiv.org/abs/1512.04860
"""

import jax
import jax.numpy as jnp

from dopamine_jax.agents import dqn
from dopamine_jax.learning import action_values


class $name(dqn.DQN):
  """Values other actions than the best one less than DQN does.

  Attributes:
    alpha: how much of the action's disadvantage is taken off its target.
  """

  # A setting has a type. A gin file sets it: `$module.$name.alpha = 0.5`.
  alpha: float = 0.1

  def __post_init__(self):
    super().__post_init__()
    self.require_fraction('alpha')

  def losses(self, params, target_params, batch, key):
    """Returns the loss of each transition [B], and metrics by name.

    `batch` is an `agent.Transition`. A function without side effects: it is
    differentiated and compiled.
    """
    q = self.q_values(params, batch.observation, key)  # [B, A]
    keys = jax.random.split(key)  # of noisy networks, which this one is not
    q_now = self.q_values(target_params, batch.observation, keys[0])
    q_next = self.q_values(target_params, batch.next_observation, keys[1])
    target = batch.reward + batch.discount * jnp.max(q_next, axis=-1)
    gap = jnp.max(q_now, axis=-1) - _of_actions(q_now, batch.action)
    target = jax.lax.stop_gradient(target - self.alpha * gap)
    losses = self.td_losses(target - _of_actions(q, batch.action))
    return losses, action_values.metrics(q) | {'ActionGap': jnp.mean(gap)}


def _of_actions(q, actions):
  """Returns the values [B] of these actions."""
  return jnp.take_along_axis(q, actions[:, None], axis=-1)[:, 0]
''')

_GIN = string.Template("""\
# $name on CartPole-v1.
#   dopamine-jax train $module.gin
from __gin__ import dynamic_registration
import $module
from dopamine_jax import runner
include 'dopamine_jax/configs/dqn_cartpole.gin'

# What that file sets for dqn.DQN holds for its subclass, too.
runner.Runner.agent = @$module.$name
$module.$name.alpha = 0.1
""")

_TEST = string.Template('''\
"""$name: by numbers worked out by hand, and by a short training."""

import pathlib

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

import dopamine_jax as dj
from dopamine_jax import agent as agent_lib
from dopamine_jax import networks
import $module

GIN = pathlib.Path(__file__).with_name('$module.gin')


def test_the_loss_is_that_of_the_paper():
  agent = $module.$name(
    observation_space=gymnasium.spaces.Box(0, 1, (2,)),
    action_space=gymnasium.spaces.Discrete(2),
    network=networks.MLP(hidden=()),  # linear
    alpha=0.5,
  )
  # Observations (1, 0) and (0, 1) have the rows as their Q-values.
  params = {'Dense_0': {'kernel': np.eye(2), 'bias': np.zeros(2)}}
  target = {'Dense_0': {'kernel': [[3.0, 1.0], [2.0, 4.0]], 'bias': [0.0, 0.0]}}
  target = jax.tree.map(jnp.asarray, target, is_leaf=lambda x: type(x) is list)
  batch = agent_lib.Transition(
    observation=jnp.array([[1.0, 0.0]]),
    action=jnp.array([1]),
    reward=jnp.array([10.0]),
    discount=jnp.array([0.5]),
    next_observation=jnp.array([[0.0, 1.0]]),
  )
  losses, _ = agent.losses(params, target, batch, jax.random.key(0))
  # Of 10 + 0.5 * 4 - 0.5 * (3 - 1) = 11, Q is 0: an error of 11.
  np.testing.assert_allclose(losses, [11.0**2])


def test_it_trains(tmp_path):
  short = [
    'runner.Runner.num_iterations = 1',
    'runner.Runner.training_steps = 300',
    'runner.Runner.evaluation_episodes = 0',
    'uniform.UniformReplay.min_history = 100',
  ]
  run = dj.train(GIN, tmp_path / 'run', bindings=short, quiet=True)
  statistics = run.statistics
  assert np.isfinite(statistics['Train/Loss']).all()
  assert (statistics['Train/Updates'] > 90).all()
''')


@app.callback()
def new():
  """Write the first files of something of your own."""


@app.command()
def agent(
  name: str = typer.Argument(
    metavar='NAME', help='Its class, such as MyAgent.'
  ),
):
  """Write an agent, its gin file and its tests into the current folder."""
  module = _module(name)
  files = {
    pathlib.Path(f'{module}.py'): _AGENT,
    pathlib.Path(f'{module}.gin'): _GIN,
    pathlib.Path(f'{module}_test.py'): _TEST,
  }
  for path in files:
    if path.exists():
      raise errors.UserError(
        f'{path} is there, and is not overwritten. Give another name, or stand '
        'in another folder.'
      )
  if importlib.util.find_spec(module) is not None:
    raise errors.UserError(
      f'{name} would lie in {module}.py, and a module {module} is installed: '
      'Python would import that one. Give another name.'
    )
  try:
    for path, template in files.items():
      with open(path, 'x') as stream:
        stream.write(template.substitute(name=name, module=module))
  except OSError as error:
    raise errors.UserError(
      f'could not write {path}: {error.strerror}. Stand in another folder.'
    ) from error
  typer.echo(f'Written: {", ".join(map(str, files))}')
  typer.echo(f'  python -m pytest {module}_test.py')
  typer.echo(f'  dopamine-jax train {module}.gin')


def _module(name):
  """Returns `my_agent` of MyAgent."""
  if not (name.isidentifier() and name.isascii() and name[0].isupper()):
    raise errors.UserError(
      f'{name!r} names no class: expected letters and digits, the first one '
      'large, as in MyAgent.'
    )
  module = ''.join(
    f'_{c.lower()}' if c.isupper() and not name[i - 1 : i].isupper() else c
    for i, c in enumerate(name)
  )
  module = module.lower().strip('_')
  if keyword.iskeyword(module) or module in ('optax', 'runner'):
    raise errors.UserError(f'{module} is a word of its own. Give another name.')
  return module
