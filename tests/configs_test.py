"""Every shipped gin file: builds, learns, and says what to expect of it."""

import re
import shutil

import jax
import numpy as np
import pytest

from dopamine_jax import config
from dopamine_jax import runner
from dopamine_jax.analysis import runs
from dopamine_jax.checkpoints import checkpoints
from dopamine_jax.engines import loop
from dopamine_jax.training import fingerprint
from tests import programs

IMPORT = 'from __gin__ import dynamic_registration'
# What an environment needs besides the default install.
EXTRAS = {
  'atari': 'ale_py',
  'minatar': 'minatar',
  'minatar_compiled': 'gymnax',
  'playground_compiled': 'mujoco_playground',
  'craftax_compiled': 'craftax',
  'lunarlander': 'Box2D',
  'mujoco': 'mujoco',
  'robotics': 'gymnasium_robotics',
}
RUN = (
  'runner.Runner.num_iterations = 2',
  'runner.Runner.training_steps = 16',
  'runner.Runner.evaluation_episodes = 0',
  'runner.Runner.checkpoint_period = 1',
)
SMALL_REPLAY = ('capacity = 200', 'min_history = 16', 'batch_size = 4')
SMALL_SEQUENCES = (
  'runner.Runner.num_envs = 2',
  'r2d2.R2D2.update_period = 4',
  'r2d2.R2D2.n_step = 2',
  'prioritized_sequences.PrioritizedSequenceReplay.length = 3',
  'prioritized_sequences.PrioritizedSequenceReplay.burn_in = 1',
)
# Each step that a model is unrolled for, and each layer, is long in compiling.
SMALL_MODEL = (
  'latent.Encoder.hidden = (8,)',
  'latent.LatentModel.hidden = (8,)',
  'latent.Actor.hidden = (8,)',
  'latent.Critic.hidden = (8,)',
)


def shrunk(path):
  """Returns bindings under which a config trains for two updates or more."""
  settings = re.search(r'agent = @(\w+\.\w+)', path.read_text())[1]
  often = re.findall(r'@((?:resets|redo)\.\w+)', path.read_text())
  return *smaller(path, settings), *(f'{each}.period = 1' for each in often)


def smaller(path, settings):
  """Returns those of `shrunk` that are of the runner and the agent."""
  if not settings.startswith(('ppo', 'pqn')):
    replay = re.search(r'replay = @(\w+\.\w+)', path.read_text())[1]
    small = [f'{replay}.{binding}' for binding in SMALL_REPLAY]
    sequences = SMALL_SEQUENCES if settings.startswith('r2d2') else ()
    small += ['mrq.MRQ.prediction_steps = 2'] * settings.startswith('mrq')
    model = SMALL_MODEL if 'latent.Encoder' in path.read_text() else ()
    if settings.startswith('fast_td3'):  # which has many environments
      small += ['runner.Runner.num_envs = 2', f'{settings}.update_period = 2']
    return *RUN, *small, *sequences, *model
  return (
    *RUN,
    'runner.Runner.num_envs = 2',
    f'{settings}.update_period = 8',
    f'{settings}.num_epochs = 2',
    f'{settings}.num_minibatches = 2',
  )


# Modules whose parts count when configs are compared.
PARTS = ('networks', 'uniform', 'prioritized', 'hindsight', 'optax')
# Agents and replays of the runs that `resume_test` kills.
RESUMED = {
  *('dqn.DQN', 'ppo.PPO', 'sac.SAC'),
  *('uniform.UniformReplay', 'prioritized.PrioritizedReplay'),
}
# Agents whose states are made of the same parts: they have other losses, which
# tests of their own work out. `offline_test` resumes a run from another's
# replay; memory is resumed by R2D2, a rollout by PPO in `resume_test`, and
# statistics of batches, which CrossQ has, in `variables_test`.
ALIKE = {
  *('c51.C51', 'iqn.IQN', 'quantile.QuantileDQN', 'rainbow.Rainbow'),
  'classification.ClassificationDQN',
  *('munchausen.MunchausenDQN', 'full_rainbow.FullRainbow'),
  *('pqn.PQN', 'ppo_rnn.PPORNN', 'pqn_rnn.PQNRNN'),
  *('cql.CQL', 'files.OwnReplay', 'spr.SPR', 'bbf.BBF'),
  'behaviour_cloning.BehaviourCloning',
  *('tqc.TQC', 'redq.REDQ', 'fast_td3.FastTD3', 'drq_v2.DrQV2'),
  'crossq.CrossQ',
}


def learners_of(path):
  """Returns the agent of a config and its replay, as gin names them."""
  return set(re.findall(r'(?:agent|replay) = @(\w+\.\w+)', path.read_text()))


def parts_of(path):
  """Returns all that a config's updates are made of."""
  text = re.sub('#.*', '', path.read_text())
  found = re.findall(r'@(?:\w+/)?(\w+\.\w+)', text)
  return learners_of(path) | {x for x in found if x.split('.')[0] in PARTS}


def cost(path):
  """Returns what puts those first that are quick to compile."""
  costly = ('atari', 'full_rainbow', 'mujoco', 'robotics', 'minatar')
  return *(each in path.stem for each in costly), 'cart' not in path.stem


def marked(paths):
  """Returns configs; the quick ones are one for each agent and replay.

  Of the others, `test_a_config_is_complete` traces an update if they have parts
  that no other has; so it does of those that are alike, and of Atari's, which
  take long to compile.
  """
  seen = RESUMED | ALIKE
  for path in sorted(paths, key=cost):
    is_quick = learners_of(path) - seen and 'atari' not in path.stem
    marks = () if is_quick else pytest.mark.slow
    seen |= learners_of(path)
    yield pytest.param(path, is_quick, marks=marks, id=path.stem)


def with_new_parts(paths):
  """Returns few configs that have all parts between them."""
  missing, found = set().union(*map(parts_of, paths)), set()
  while missing:
    paths = sorted(paths, key=cost)
    most = max(paths, key=lambda path: len(parts_of(path) & missing))
    found.add(most)
    missing -= parts_of(most)
  return found


def with_new_pairs(paths):
  """Returns the configs whose network none before them has on what it sees."""
  return {pair_of(path): path for path in sorted(paths, reverse=True)}.values()


def pair_of(path):
  """Returns what decides on the shapes of a config's parameters."""
  text = re.sub('#.*', '', path.read_text())
  seen = re.findall(r'environment = .*|(?:id|stack|observed) = .*', text)
  parts = set(re.findall(r'@(?:\w+/)?(\w+\.\w+)', text))
  made = {x for x in parts if re.search(r'^networks|[nN]etwork', x)}
  named = ('ppo', 'sac', 'td3', 'tqc', 'redq')
  policies = {x for x in parts if x.startswith(named)}
  lines = tuple(line.replace(' ', '') for line in seen)
  return lines, *sorted(made or policies)


TRAINED = [*marked(config.shipped())]
QUICK = {param.values[0] for param in TRAINED if not param.marks}
NEW = with_new_parts(config.shipped())
PAIRS = {*with_new_pairs(config.shipped()), *NEW}


def skip_without_extras(path):
  for name, module in EXTRAS.items():
    if name in path.stem:
      pytest.importorskip(module)


every = pytest.mark.parametrize(
  'path', config.shipped(), ids=lambda path: path.stem
)


@every
def test_a_config_is_complete(path):
  skip_without_extras(path)
  loaded = config.load([path])
  made = loaded.build(runner.Runner)
  environments = made.environment.make(1)  # a hundred games take long to make
  frames = environments.reset([0])
  space = environments.action_space
  for _ in range(3):
    action = np.asarray(loop.random_actions(space, jax.random.key(0), 1))
    step = environments.step(action)
    jax.tree.map(assert_same_shape, step.next_observation, frames)
  environments.close()
  assert not loaded.unused()
  # As `compare` and `report` read it from a run's folder.
  agent, game, *_ = runs.identify(config.record(made, ''), path.stem)
  assert re.search(rf'agent = @\w+\.{agent}\n', path.read_text())
  named = [vars(made.environment).get(key) for key in ('id', 'game')]
  assert game in (named if any(named) else [type(made.environment).__name__])
  if path in QUICK:  # which is trained below
    return
  environments.num_envs = made.num_envs
  if path not in PAIRS:
    assert made.make_loop(environments).agent
    return
  engine = made.make_engine(environments, [0], check_finite=True)
  engine.first_frames = jax.tree.map(
    lambda leaf: np.repeat(leaf, made.num_envs, axis=0), frames
  )
  state = engine.abstract_state()
  assert state.agent.params
  if path in NEW:
    learn = engine.vectorize_loop(loop.Loop.learn)
    assert 'Loss' in jax.eval_shape(learn, state)[1]


def assert_same_shape(one, other):
  assert one.shape == other.shape


@pytest.mark.parametrize(('path', 'is_quick'), TRAINED)
def test_a_config_trains_and_resumes_exactly(
  path, is_quick, tmp_path, monkeypatch
):
  skip_without_extras(path)
  if is_quick:
    # Programs that were traced anew are resumed by `resume_test`, and that a
    # written config builds the same is seen whenever one is written.
    programs.share(monkeypatch)
  whole, stopped = tmp_path / 'whole', tmp_path / 'stopped'
  bindings = shrunk(path)
  if 'files.OwnReplay.run' in path.read_text():  # which a DQN has left
    first = path.with_name('dqn_cartpole.gin')
    made = config.load([first], shrunk(first)).build(runner.Runner)
    made.train(tmp_path / 'first', quiet=True)
    bindings += (f"files.OwnReplay.run = '{tmp_path / 'first'}'",)
  save = checkpoints.Checkpoints.save

  def save_and_copy(self, iteration, *args, **kwargs):
    save(self, iteration, *args, **kwargs)
    if iteration == 1:  # as a kill would leave it
      shutil.copytree(whole, stopped)

  def train(folder, files, bindings, says=()):
    made = config.load(files, bindings).build(runner.Runner)
    said = []
    statistics = made.train(folder, say=said.append)
    assert [message[:8] for message in said] == list(says)
    return statistics

  with monkeypatch.context() as patch:
    patch.setattr(checkpoints.Checkpoints, 'save', save_and_copy)
    statistics = train(whole, [path], bindings)
  assert statistics['Train/Updates'][0] >= 2
  assert np.isfinite(statistics['Train/Loss'][0])
  # The config that it wrote repeats it.
  train(stopped, [stopped / 'config.gin'], [], says=['Going on'])
  assert fingerprint.fingerprint(stopped) == fingerprint.fingerprint(whole)


@every
def test_a_config_fits_on_60_lines_and_says_what_to_expect(path):
  lines = path.read_text().splitlines()
  assert len(lines) <= 60
  header = ' '.join(line.lstrip('# ') for line in lines[: lines.index(IMPORT)])
  assert re.search(r'\(.*(19|20)\d\d\)', lines[0]), 'the paper and its year'
  assert f'dopamine-jax train {path.stem} ' in header
  assert re.search(r'[Rr]eturn', header), 'the result seen'
  assert re.search(r'\d+ (s|min|h)\b', header), 'the time it took'


# Ten seeds of the rest take minutes; of these they would take hours.
DEAR = (
  *('atari', 'minatar', 'lunarlander', 'mujoco'),
  *('playground', 'craftax'),
)


@every
def test_a_header_quotes_ten_fresh_seeds_or_says_how_few_it_has(path):
  lines = path.read_text().splitlines()
  header = ' '.join(line.lstrip('# ') for line in lines[: lines.index(IMPORT)])
  if not any(domain in path.stem for domain in DEAR):
    figure = r'-?\d+(\.\d+)?( of \d+)?'
    quoted = f'seeds 100 to 109: mean {figure}, worst {figure};'
    assert re.search(quoted, header), 'all ten seeds, by mean and worst'
    assert '(--seed 100 --num_seeds 10)' in header, 'how to repeat them'
    return
  few = r'nly (one seed|\d+ seeds, \d+ to \d+, not held out from tuning)'
  assert re.search(f'{few}|[Nn]ot measured', header)


def test_every_config_loads_and_sets_nothing_in_vain():
  for each in config.shipped():
    config.load([each])
