"""A user's own agents, environments, collectors and metrics that go wrong.

Each is told in a sentence, by every command that meets it; none is stored.
"""

import importlib
import os
import shutil
import sys

import pytest

from dopamine_jax.commands import cli

# What is wrong is seen in programs of its own settings.
pytestmark = pytest.mark.usefixtures('same_programs')

CONFIG = """
from __gin__ import dynamic_registration
import theirs
from dopamine_jax.engines import compiled
from dopamine_jax.metrics import health
from dopamine_jax import networks
from dopamine_jax import runner
from dopamine_jax.agents import dqn
from dopamine_jax.agents import ppo
from dopamine_jax.environments import catch
from dopamine_jax.environments import gym
from dopamine_jax.metrics import csv_file
from dopamine_jax.replay import prioritized
from dopamine_jax.replay import uniform

runner.Runner:
  agent = @dqn.DQN
  environment = @catch.Catch()
  num_iterations = 2
  training_steps = 40
  evaluation_episodes = 1
  collectors = [@csv_file.CSV]
dqn.DQN:
  network = @networks.MLP
  replay = @uniform.UniformReplay
  update_period = 4
  target_update_period = 8
networks.MLP.hidden = ()
uniform.UniformReplay:
  capacity = 60
  batch_size = 4
  min_history = 8
"""

THEIRS = """
from dopamine_jax import agent as agent_lib
from dopamine_jax.metrics import health
from dopamine_jax.agents import dqn
from dopamine_jax.agents import sac
from dopamine_jax.environments import catch
from dopamine_jax.environments import native
from dopamine_jax.metrics import base
import jax
import jax.numpy as jnp
import numpy as np


LATER = []  # what is wrong from now on with what no program depends on


class Agent(dqn.DQN):
  kind: str = ''

  def init(self, key, observation):
    state = super().init(key, observation)
    return {'all': state, 'note': 'mine'} if self.kind == 'init' else state

  def act(self, state, observation, step, key, *, explore):
    actions = super().act(state, observation, step, key, explore=explore)
    return {
      'act none': None,
      'act pair': (actions, 1),
      'act beyond': actions + 3,
      'act below': actions - 3,
      'act late': jnp.where(step > 20, 9, actions),
      'act judged': actions if explore else actions + 3,
    }.get(self.kind, actions)

  def make_replay(self, stack):
    replay = super().make_replay(stack)
    return {'replay none': None, 'replay 7': 7}.get(self.kind, replay)

  def last_count(self, name, agent_steps):
    count = super().last_count(name, agent_steps)
    return {'count': 'many', 'counts back': -5}.get(self.kind, count)

  def schedules(self, step):
    kind = LATER[0] if LATER else ''
    if kind == 'schedules raise':
      raise ValueError('no schedule')
    return {
      'schedules none': None,
      'schedules text': {'Epsilon': 'low'},
      'schedules array': {'Epsilon': np.ones(2)},
      'schedules nan': {'Epsilon': float('nan')},
      'schedules huge': {'Epsilon': 10**400},
      'schedules complex': {'Epsilon': 1j},
      'schedules lie': {'AverageReturns': 999.0},
      'schedules line': {'a\\n0,1': 1.0},
      'schedules 5': {5: 1.0},
    }.get(kind, super().schedules(step))

  def update(self, state, sample, key):
    state, metrics, priorities = super().update(state, sample, key)
    more = {
      'update lies': {'AverageReturns': jnp.float32(777)},
      'update text': {'V': 'x'},
      'update complex': {'V': jnp.complex64(1)},
    }.get(self.kind, {})
    if self.kind == 'no priorities':
      priorities = None
    return state, metrics | more, priorities

  def anatomy(self, state):
    if self.kind == 'anatomy raises':
      raise ValueError('no anatomy')
    found = super().anatomy(state)
    return {'anatomy none': None, 'anatomy 4': {'': 4}}.get(self.kind, found)

  def outlook(self, state, observation, key):
    if 'outlook raises' in LATER:
      raise ValueError('no outlook')
    found = super().outlook(state, observation, key)
    if 'outlook 5' in LATER:
      return 5
    if 'outlook large' in LATER:
      return found._replace(value=jnp.zeros((3, 4)))
    return found

  def greedy(self):
    return None if 'greedy' in LATER else super().greedy()


class Collector(base.Collector):
  KIND = ''

  def open(self, run):
    if self.KIND == 'open':
      raise ValueError('can not open')

  def write(self, statistics):
    if self.KIND == 'write':
      raise ValueError('can not write')
    if self.KIND == 'leave':
      raise SystemExit(0)
    if self.KIND == 'stop':
      raise StopIteration
    if self.KIND == 'change':
      statistics.clear()

  def close(self):
    if self.KIND == 'close':
      raise ValueError('can not close')


for kind in ('open', 'write', 'leave', 'stop', 'change', 'close'):
  globals()[f'Collector{kind}'] = type(
    f'Collector{kind}', (Collector,), {'KIND': kind, '__module__': __name__}
  )


class Metric(health.Metric):
  kind: str = ''

  def measure(self, view):
    if self.kind == 'raise':
      raise ValueError('can not measure')
    return {
      'none': None,
      'text': {'A': 'x'},
      'vector': {'A': jnp.ones(3)},
    }[self.kind]


class Environment(catch.Catch):
  kind: str = ''

  def reset(self, key):
    state, observation = super().reset(key)
    if self.kind == 'reset raises':
      raise ValueError('can not begin')
    return {
      'reset one': state,
      'reset none': (state, None),
    }.get(self.kind, (state, observation))

  def step(self, state, action, key):
    outcome = super().step(state, action, key)
    if self.kind == 'step raises':
      raise ValueError('can not go on')
    return {
      'step none': None,
      'step tuple': tuple(outcome),
      'step state': outcome._replace(state={'all': outcome.state}),
      'step if': outcome._replace(
        reward=1.0 if self.kind == 'step if' and state.row > 1 else 0.0
      ) if self.kind == 'step if' else None,
    }.get(self.kind, outcome)
"""


@pytest.fixture(scope='module', autouse=True)
def theirs(tmp_path_factory):
  """Has the module imported once: gin takes no second class of one name."""
  folder = tmp_path_factory.mktemp('theirs')
  (folder / 'theirs.py').write_text(THEIRS)
  sys.path.append(str(folder))
  yield
  sys.path.remove(str(folder))


@pytest.fixture(scope='module')
def sound(tmp_path_factory):
  """Returns where a run goes whose agent is as it should be."""
  return tmp_path_factory.mktemp('sound')


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
  """Returns a function: runs a command; returns status, and what it said."""
  (tmp_path / 'theirs.gin').write_text(CONFIG)
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(sys, 'path', [*sys.path])
  monkeypatch.delenv('DOPAMINE_JAX_TRACEBACK', raising=False)

  def run(*words):
    monkeypatch.setattr(sys, 'argv', ['dopamine-jax', *words])
    status = cli.main()
    return status, capsys.readouterr().err

  return run


def train(command, *bindings):
  options = [word for binding in bindings for word in ('-b', binding)]
  return command(
    'train', 'theirs.gin', '--base_dir', 'run', '--quiet', *options
  )


def agent(kind):
  return 'runner.Runner.agent = @theirs.Agent', f"theirs.Agent.kind = '{kind}'"


# The replay is full enough after step 8, so that neither acting nor learning is
# compiled for what is about other things.
ASLEEP = ('runner.Runner.training_steps = 3',)
UNJUDGED = ('runner.Runner.evaluation_episodes = 0',)
# Acts from step 8 on, and never learns.
IDLE = (
  'dqn.DQN.update_period = 1_000',
  'dqn.DQN.target_update_period = 1_000',
)
COMPILED = ('runner.Runner.engine = @compiled.CompiledEngine',)
PRIORITIZED = (
  'dqn.DQN.replay = @prioritized.PrioritizedReplay',
  'prioritized.PrioritizedReplay.batch_size = 4',
  'prioritized.PrioritizedReplay.min_history = 8',
  'prioritized.PrioritizedReplay.capacity = 60',
)
OUTSIDE = (
  "the agent's action lies outside Discrete(3), whose actions are 0 to 2"
)


@pytest.mark.parametrize(
  ('kind', 'words'),
  [
    ('init', "init must return a state of arrays, and its state['note'] is"),
    ('act none', 'Agent.act must return actions of shape (1,), integers'),
    ('act pair', 'it gave tuple. Mend the agent'),
    ('act beyond', OUTSIDE),
    ('act below', OUTSIDE),
    ('act late', OUTSIDE),
    ('act judged', OUTSIDE),
    (
      'replay none',
      'make_replay must return settings of a replay, and it gave',
    ),
    ('replay 7', 'it gave 7. Mend the agent'),
    ('count', "last_count must return a count, and it gave 'many' for"),
    ('counts back', 'last_count must return a count, and it gave -5'),
    ('schedules raise', 'ValueError: no schedule, raised by '),
    ('schedules none', 'schedules must return metrics by name, a dict'),
    ('schedules text', "its Epsilon is 'low' (str)"),
    ('schedules array', 'its Epsilon is float64 (2,)'),
    ('schedules nan', 'gave Epsilon = nan, which is no finite number'),
    ('schedules huge', 'which is no finite number'),
    ('schedules complex', 'its Epsilon is 1j (complex)'),
    ('schedules lie', 'Train/AverageReturns is measured already'),
    ('schedules line', 'must name its metrics by text'),
    ('schedules 5', 'one is called 5'),
    ('update lies', 'update calls a metric AverageReturns, and'),
    ('update text', "its V is 'x' (str)"),
    ('update complex', 'its V is complex64 ()'),
  ],
)
def test_an_agent_that_gives_what_it_must_not_is_told(
  command, kind, words, monkeypatch
):
  if kind.startswith('schedules'):
    theirs = importlib.import_module('theirs')
    monkeypatch.setattr(theirs, 'LATER', [kind])
    kind = ''
  idle = (*ASLEEP, *UNJUDGED)
  if kind.startswith(('act', 'update')):  # what takes more steps to be seen
    idle = IDLE if kind.startswith('act') else ()
  status, said = train(command, *agent(kind), *idle)
  assert status == 1
  assert words in said
  lines = said.splitlines()
  assert sum(line.startswith('Error: ') for line in lines) == 1
  assert 'Traceback' not in said
  if os.path.exists('run/metrics.csv'):
    with open('run/metrics.csv') as file:
      assert '999' not in (text := file.read()) and '777' not in text


# Late actions are beyond what there is, too.
@pytest.mark.parametrize(
  'kind',
  [
    pytest.param('act beyond', marks=pytest.mark.slow),
    'act below',
    'act late',
  ],
)
def test_the_compiled_engine_stores_no_action_that_there_is_not(command, kind):
  status, said = train(command, *agent(kind), *IDLE, *UNJUDGED, *COMPILED)
  assert status == 1 and OUTSIDE in said
  assert not os.path.exists('run/checkpoints')


def test_no_priorities_are_told(command):
  status, said = train(command, *agent('no priorities'), *PRIORITIZED)
  assert status == 1
  assert 'a priority for each transition' in said and 'gave NoneType' in said


@pytest.mark.parametrize(
  ('kind', 'words'),
  [
    ('open', 'ValueError: can not open, raised by '),
    ('write', 'ValueError: can not write, raised by '),
    ('leave', 'SystemExit: 0, raised by '),
    ('stop', 'StopIteration: StopIteration, raised by '),
    ('change', "AttributeError: 'tuple' object has no attribute 'clear'"),
    ('close', 'ValueError: can not close, raised by '),
  ],
)
def test_a_collector_that_fails_is_told(command, kind, words):
  collectors = f'[@theirs.Collector{kind}, @csv_file.CSV]'
  bindings = (f'runner.Runner.collectors = {collectors}', *ASLEEP, *UNJUDGED)
  status, said = train(command, *bindings)
  assert status == 1
  assert words in said and 'theirs.py, line' in said
  assert 'Traceback' not in said
  assert 'DOPAMINE_JAX_TRACEBACK=1 before the command' in said


def test_the_whole_traceback_is_shown_if_asked(command, monkeypatch):
  monkeypatch.setenv('DOPAMINE_JAX_TRACEBACK', '1')
  collectors = 'runner.Runner.collectors = [@theirs.Collectorwrite]'
  with pytest.raises(ValueError, match='can not write'):
    train(command, collectors, *ASLEEP, *UNJUDGED)


@pytest.mark.parametrize(
  ('kind', 'words'),
  [
    ('raise', 'ValueError: can not measure, raised by '),
    ('none', 'Metric.measure must return metrics by name, a dict'),
    ('text', "its A is 'x' (str)"),
    ('vector', 'its A is float32 (3,)'),
  ],
)
def test_a_metric_of_health_that_fails_is_told(command, kind, words):
  metric = ('runner.Runner.health = [@theirs.Metric()]', *IDLE, *UNJUDGED)
  status, said = train(command, *metric, f"theirs.Metric.kind = '{kind}'")
  assert status == 1
  assert words in said and 'Traceback' not in said


@pytest.mark.parametrize(
  ('kind', 'words'),
  [
    ('anatomy raises', 'ValueError: no anatomy, raised by '),
    ('anatomy none', 'anatomy must return an agent.Anatomy by name'),
    ('anatomy 4', 'anatomy must return an agent.Anatomy by name'),
  ],
)
def test_an_anatomy_that_is_none_is_told(command, kind, words):
  metric = 'runner.Runner.health = [@health.DormantNeurons()]', *IDLE
  status, said = train(command, *agent(kind), *metric, *UNJUDGED)
  assert status == 1
  assert words in said and 'Traceback' not in said


ENVIRONMENTS = {
  'reset raises': 'ValueError: can not begin, raised by ',
  'reset one': 'reset must give a state and an observation, and it gave',
  'reset none': 'and it gave NoneType. Mend the environment',
  'step raises': 'ValueError: can not go on, raised by ',
  'step none': 'step must give an Outcome, and it gave NoneType',
  'step tuple': 'step must give an Outcome, and it gave tuple',
  'step state': 'has states of two kinds',
  'step if': 'TracerBoolConversionError',
}


# Both engines have one way to begin and to go on, which is looked at here.
@pytest.mark.parametrize(
  ('kind', 'engine'),
  [
    *((kind, ()) for kind in ENVIRONMENTS),
    *(
      pytest.param(
        *(kind, COMPILED),
        marks=() if kind in ('reset one', 'step if') else pytest.mark.slow,
      )
      for kind in ENVIRONMENTS
    ),
  ],
)
def test_an_environment_in_jax_that_fails_is_told(command, kind, engine):
  environment = (
    'runner.Runner.environment = @theirs.Environment()',
    f"theirs.Environment.kind = '{kind}'",
  )
  status, said = train(command, *environment, *engine)
  assert status == 1
  assert ENVIRONMENTS[kind] in said and 'Traceback' not in said


@pytest.mark.parametrize(
  ('kind', 'name', 'words'),
  [
    ('outlook raises', 'record', 'ValueError: no outlook, raised by '),
    (
      'outlook 5',
      'record',
      'must return an agent.Outlook with a value of shape',
    ),
    ('outlook large', 'record', 'it gave a value of shape (3, 4). Mend'),
    ('greedy', 'record', 'greedy must return an agent like itself'),
    ('greedy', 'evaluate', 'greedy must return an agent like itself'),
  ],
)
def test_what_is_wrong_when_it_is_shown_is_told(
  command, sound, monkeypatch, kind, name, words
):
  run = sound / 'run'
  if not run.exists():
    assert train(command, *agent(''), *ASLEEP, *UNJUDGED)[0] == 0
    shutil.copytree('run', run)
  monkeypatch.setattr(sys.modules['theirs'], 'LATER', [kind])
  status, said = command(name, str(run))
  assert status == 1
  assert words in said and 'Traceback' not in said
