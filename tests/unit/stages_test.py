"""Stages: a number that changes at a step, under both engines, exactly."""

import itertools

import jax
import numpy as np
import optax
import pytest

from dopamine_jax import errors
from dopamine_jax import networks
from dopamine_jax import runner as runner_lib
from dopamine_jax import values
from dopamine_jax import variations
from dopamine_jax.agents import dqn
from dopamine_jax.agents import ppo
from dopamine_jax.agents import sac
from dopamine_jax.callbacks import stages
from dopamine_jax.checkpoints import checkpoints as checkpoints_lib
from dopamine_jax.engines import compiled
from dopamine_jax.engines import evaluation
from dopamine_jax.engines import python_engine
from dopamine_jax.environments import catch
from dopamine_jax.learning import augmentation
from dopamine_jax.metrics import csv_file
from dopamine_jax.playing import trained
from dopamine_jax.replay import prioritized
from dopamine_jax.training import fingerprint
from tests import programs

# The updates fall on agent steps 8, 12, 16, ...
AGENT = dqn.DQN(
  network=networks.MLP(hidden=(4,)),
  replay=prioritized.PrioritizedReplay(
    capacity=64, batch_size=4, min_history=8
  ),
  optimizer=values.call(optax.adam, 1e-2),
  gamma=0.9,
  epsilon=0.5,
)


def staged(setting, *at):
  steps, numbers = zip(*at, strict=True)
  return stages.Stages(setting=setting, at_steps=steps, values=numbers)


STILL = staged('optimizer.learning_rate', (17, 0.0), (33, 1e-2))
GAMMA = staged('gamma', (12, 0.5), (20, 0.25))
GREEDY = staged('evaluation_epsilon', (24, 0.75))


def make(*callbacks, **given):
  return runner_lib.Runner(
    **{
      'agent': AGENT,
      'environment': catch.Catch(),
      'engine': compiled.CompiledEngine,
      'num_iterations': 5,
      'training_steps': 8,
      'max_to_keep': 5,
      'evaluation_episodes': 2,
      'evaluation_period': 5,
      'collectors': [csv_file.CSV],
      **given,
    },
    callbacks=callbacks,
  )


def train(folder, *callbacks, num_seeds=2, **given):
  make(*callbacks, **given).train(
    folder, num_seeds=num_seeds, quiet=True, say=lambda line: None
  )


def loop_of(*callbacks, **given):
  runner = make(*callbacks, **given)
  return runner.make_loop(runner.environment.make(1))


def moves(folder):
  """Returns whether any parameter changed in each iteration from 2 on."""
  store = checkpoints_lib.Checkpoints(folder)
  arrays = [
    np.concatenate([np.ravel(x) for x in jax.tree.leaves(each.params)])
    for each in (
      trained.load(folder, checkpoint=str(i)).state for i in store.iterations()
    )
  ]
  return [bool((a != b).any()) for a, b in itertools.pairwise(arrays)]


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  folder = tmp_path_factory.mktemp('stages') / 'run'
  with pytest.MonkeyPatch.context() as patch:
    programs.share(patch)
    train(folder, STILL, GAMMA, GREEDY)
  return folder


def test_the_numbers_hold_from_their_steps_on():
  loop = loop_of(GAMMA)
  for step, gamma in ((0, 0.9), (11, 0.9), (12, 0.5), (19, 0.5), (20, 0.25)):
    assert loop.at(step).agent.gamma == loop.at(step).replay.gamma
    assert loop.at(step).agent.gamma == pytest.approx(gamma)
    traced = jax.jit(lambda step: loop.at(step).replay.gamma)(step)
    assert float(traced) == pytest.approx(gamma)
  later = loop_of(GREEDY).agent_at(AGENT, 24)
  assert later == AGENT.replace(evaluation_epsilon=0.75)
  assert loop_of().at(12) == loop_of()


def test_learning_goes_by_them_in_a_compiled_program(run):
  # Iterations 2 to 5 end at 16, 24, 32 and 40; a rate of 0 holds from 17 to 32.
  assert moves(run) == [True, False, False, True]


# The functions of a step are the same; what calls them is another engine.
@pytest.mark.slow
def test_learning_goes_by_them_where_python_steps(tmp_path):
  train(tmp_path, STILL, num_seeds=1, engine=python_engine.PythonEngine)
  assert moves(tmp_path) == [True, False, False, True]


@pytest.mark.usefixtures('same_programs')
def test_a_run_that_was_killed_between_two_stages_is_the_same(run, tmp_path):
  class Died(BaseException):
    pass

  def die(*_):
    raise Died

  with pytest.MonkeyPatch.context() as patch:
    # In iteration 5, before its checkpoint: that of step 32 is the newest.
    patch.setattr(evaluation.Evaluator, 'run', die)
    with pytest.raises(Died):
      train(tmp_path, STILL, GAMMA, GREEDY)
  assert checkpoints_lib.Checkpoints(tmp_path).iterations() == [1, 2, 3, 4]
  train(tmp_path, STILL, GAMMA, GREEDY)
  assert fingerprint.fingerprint(tmp_path) == fingerprint.fingerprint(run)


def test_a_checkpoint_plays_with_the_numbers_of_its_step(run):
  found = [trained.load(run, checkpoint=i).agent for i in ('2', '3')]
  assert [each.gamma for each in found] == [0.5, 0.25]


def test_a_number_of_a_list_changes():
  shifts = tuple(augmentation.Intensity(scale=scale) for scale in (0.05, 0.1))
  agent = AGENT.replace(augmentation=shifts)
  stage = staged('augmentation.1.scale', (9, 0.3))
  for step, scale in ((8, 0.1), (9, 0.3)):
    found = [x.scale for x in stage.applied(agent, step).augmentation]
    assert found == [0.05, scale]
  with pytest.raises(errors.UserError, match=r'2 is none of 0, 1\.'):
    staged('augmentation.2.scale', (9, 0.3)).applied(agent, 9)


def test_what_shapes_the_program_is_refused():
  for setting, value, message in (
    ('n_step', 3.0, r"what is 1\. Only a real .*start_from = 'FOLDER'"),
    ('replay.batch_size', 8.0, 'names what is 4'),
    ('gamm', 0.5, 'gamm is none of .*gamma'),
    ('gamma', 1.5, r'values = \(1.5,\) do not fit: .*must lie in'),
  ):
    with pytest.raises(errors.UserError, match=message):
      loop_of(staged(setting, (9, value)))
  with pytest.raises(errors.UserError, match='is a schedule or function'):
    schedule = values.call(optax.linear_schedule, 1.0, 0.1, 9)
    loop_of(staged('epsilon', (9, 0.1)), agent=AGENT.replace(epsilon=schedule))
  decay = values.call(optax.exponential_decay, 1.0, 9, 0.5)
  with pytest.raises(errors.UserError, match=r'decay_rate can not .* decides'):
    agent = AGENT.replace(epsilon=decay)
    loop_of(staged('epsilon.decay_rate', (9, 0.1)), agent=agent)
  with pytest.raises(errors.UserError, match='have several'):
    make(GAMMA, GAMMA)
  for agent, name in ((sac.SAC(), 'temperature'), (ppo.PPO(), 'log_std')):
    with pytest.raises(errors.UserError, match="agent's first state alone"):
      staged(name, (9, 0.1)).applied(agent, 0)
  fixed = sac.SAC(temperature_optimizer=None)
  assert staged('temperature', (9, 0.1)).applied(fixed, 9).temperature == 0.1
  for bad in (
    {'at_steps': (9, 9), 'values': (1.0, 2.0)},
    {'at_steps': (9,), 'values': ()},
    {'at_steps': (0,), 'values': (1.0,)},
  ):
    with pytest.raises(errors.UserError):
      stages.Stages(setting='gamma', **bad)


def test_a_number_both_varies_and_is_staged_only_apart(tmp_path):
  runners = {
    str(g): make(GAMMA, agent=AGENT.replace(gamma=g), num_iterations=1)
    for g in (0.9, 0.5)
  }
  with pytest.raises(errors.UserError, match='gamma differs between'):
    variations.train(runners, tmp_path, quiet=True)
