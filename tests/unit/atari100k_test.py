"""The published scores on Atari 100k, and runs beside them."""

import gymnasium
import jax
import numpy as np
import pytest

from dopamine_jax import agent as agent_lib
from dopamine_jax import config
from dopamine_jax import errors
from dopamine_jax import networks
from dopamine_jax import runner
from dopamine_jax import values
from dopamine_jax.agents import full_rainbow
from dopamine_jax.analysis import atari100k
from dopamine_jax.analysis import baselines
from dopamine_jax.analysis import compare as compare_lib
from dopamine_jax.analysis import games
from dopamine_jax.analysis import statistics
from dopamine_jax.learning import augmentation
from dopamine_jax.learning import optimization
from dopamine_jax.replay import prioritized
from dopamine_jax.replay import uniform
from tests.unit import analysis_compare_test

EVAL, make_run = analysis_compare_test.EVAL, analysis_compare_test.make_run
compare = analysis_compare_test.compare


@pytest.fixture(autouse=True)
def working_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)


def normalized(agent):
  """Returns human-normalized scores, [R, 26]."""
  table = baselines.parse(f'atari100k:{agent}')
  columns = [
    games.human_normalized(rows.value.to_numpy(), game)
    for game, rows in table.groupby('game')
  ]
  return np.stack(columns, axis=1)


# What rliable computes of these runs, to three decimals. Those of CURL, DER,
# SPR, SimPLe, IRIS and DIAMOND are in papers; the last three are of means.
@pytest.mark.parametrize(
  ('agent', 'runs', 'iqm', 'median', 'mean', 'gap'),
  [
    ('CURL', 100, 0.113, 0.092, 0.261, 0.768),
    ('DER', 100, 0.183, 0.189, 0.350, 0.698),
    ('DrQ', 100, 0.224, 0.212, 0.369, 0.692),
    ('DrQ(eps)', 100, 0.280, 0.313, 0.465, 0.631),
    ('SPR', 100, 0.337, 0.396, 0.616, 0.577),
    ('SimPLe', 5, 0.130, 0.134, 0.332, 0.729),
    ('IRIS', 5, 0.501, 0.289, 1.046, 0.512),
    ('DIAMOND', 5, 0.641, 0.373, 1.459, 0.480),
    ('DreamerV3', 5, 0.541, 0.487, 1.282, 0.475),
    ('SR-SPR', 1, 0.700, 0.684, 1.271, 0.407),
    ('EfficientZero', 1, 1.047, 1.090, 1.943, 0.367),
    ('BBF', 1, 1.139, 0.917, 2.247, 0.311),
  ],
)
def test_aggregates_are_those_of_the_published_runs(
  agent, runs, iqm, median, mean, gap
):
  scores = normalized(agent)
  assert scores.shape == (runs, 26)
  found = [
    round(float(each(scores)), 3)
    for each in (
      *(statistics.iqm, statistics.median, statistics.mean),
      statistics.optimality_gap,
    )
  ]
  assert found == [iqm, median, mean, gap]


def test_all_methods_are_named_in_any_case():
  assert len(atari100k.agents()) == 12
  for agent in atari100k.agents():
    assert (
      len(baselines.parse(f'atari100k:{agent.lower()}').game.unique()) == 26
    )
  with pytest.raises(errors.UserError, match=r'Did you mean DrQ.* There are'):
    baselines.parse('atari100k:DRQv')
  with pytest.raises(errors.UserError, match=r'expected .*atari100k:AGENT'):
    baselines.parse('atari100k:DER:cnn')


def runs_of(values, game, folder, **options):
  """Writes runs of 100,000 steps with these scores at their end."""
  values = np.array(values, float)[:, None]
  settings = {'game': game, 'metric': EVAL, 'steps': 100_000, **options}
  return make_run(folder, values, **settings)


def test_runs_are_compared_at_their_end_with_95_of_100():
  runs_of([-15.0, -10.0, -5.0], 'Pong', 'mine/pong')
  runs_of([60.0, 70.0, 80.0], 'Boxing', 'mine/boxing')
  comparison, said = compare('m=mine', baselines=['atari100k:DER'])
  assert comparison.metric == EVAL and comparison.last == 1
  assert comparison.ends == {'boxing': 100_000, 'pong': 100_000}
  band = comparison.bands['atari100k:DER']['pong'].iloc[0]
  runs = atari100k.scores('DER').query('game == "pong"').value
  assert band.runs == len(runs) == 100
  assert (band.low, band.high) == pytest.approx(
    tuple(np.percentile(runs, [2.5, 97.5]))
  )
  assert runs.min() < band.low and band.high < runs.max()
  text = '\n'.join(comparison.sentences)
  assert 'Pong, atari100k:DER: m has -10 at 100,000 agent steps, within' in text
  assert 'Boxing, atari100k:DER: m has 70 at 100,000 agent steps, above' in text
  assert 'one time in twenty' in text
  table = compare_lib.aggregate_table(comparison)
  assert set(table.group) == {'m', 'atari100k:DER'}
  assert not said
  files = compare_lib.write(comparison, comparison.places[0].parent / 'out')
  assert all(file.exists() for file in files)
  label = 'mean and 95% range of 100 runs'
  assert label in analysis_compare_test._legend_of(comparison)


def test_what_has_means_alone_is_told_and_never_tested():
  runs_of([-15.0, -10.0, -5.0], 'Pong', 'mine/pong')
  runs_of([60.0, 70.0, 80.0], 'Boxing', 'mine/boxing')
  comparison, said = compare(
    'm=mine', baselines=['atari100k:BBF', 'atari100k:SPR']
  )
  assert len(said) == 1 and 'only the means over its runs' in said[0]
  assert 'flatters it' in said[0]
  assert {x.better for x in comparison.pairs} <= {'m', 'atari100k:SPR'}
  assert 'Pong, atari100k:BBF: m has -10 at 100,000 agent steps' in '\n'.join(
    comparison.sentences
  )
  table = compare_lib.aggregate_table(comparison).set_index('group')
  means = table.loc['atari100k:BBF (means)'].set_index('statistic')
  expected = [
    games.human_normalized(np.array(value), game)
    for game, value in comparison.means['atari100k:BBF'].items()
  ]
  assert means.value['mean'] == pytest.approx(np.mean(expected))
  assert np.isnan(means.low).all()
  compare_lib.write(comparison, comparison.places[0].parent / 'out')


def test_another_game_and_a_longer_run_are_told_and_the_rest_is_compared():
  runs_of([1.0, 2.0], 'Pong', 'mine/pong')
  runs_of([1.0, 2.0], 'Skiing', 'mine/skiing')
  values = np.array([[1.0, 9.0], [2.0, 9.0]])
  make_run('mine/boxing', values, game='Boxing', metric=EVAL, steps=100_000)
  comparison, said = compare('m=mine', baselines=['atari100k:DER'])
  said = '\n'.join(said)
  assert 'atari100k:DER has no curve of Skiing' in said
  assert 'Not compared, since not all groups have it: Skiing' in said
  assert 'Compared up to 100,000 agent steps' in said and 'Boxing' in said
  np.testing.assert_array_equal(comparison.scores['m'], [[1, 1], [2, 2]])


def test_a_run_without_a_number_at_the_end_is_drawn_alone():
  make_run('mine', [[1.0, 2.0]], game='Pong', metric=EVAL, steps=80_000)
  comparison, said = compare('mine', baselines=['atari100k:DER'])
  assert 'which is 100,000 alone' in '\n'.join(comparison.sentences)
  assert 'Pong is not compared: there is no agent step' in '\n'.join(said)
  assert not comparison.scores and not comparison.pairs


def test_runs_without_a_number_where_a_mean_is_are_compared_with_each_other():
  for name, n_step in (('one', 1), ('two', 3)):
    settings = {'metric': EVAL, 'steps': 80_000, 'n_step': n_step}
    make_run(name, [[1.0, 2.0]], game='Pong', **settings)
  comparison, said = compare('one', 'two', baselines=['atari100k:BBF'])
  assert len(comparison.pairs) == 1 and comparison.ends == {'pong': 160_000}
  assert not comparison.means['atari100k:BBF']
  assert 'not laid beside the scores on Pong' in '\n'.join(said)
  groups = set(compare_lib.aggregate_table(comparison).group)
  assert groups == {'one', 'two'}


def test_scores_are_of_one_step_that_all_groups_and_a_baseline_have():
  # Of 4M and 3.75M steps: the last that both have is 3M.
  make_run('one', np.arange(4.0)[None], game='Pong', steps=1_000_000)
  make_run('two', np.arange(15.0)[None], game='Pong', steps=250_000, n_step=3)
  comparison, said = compare('one', 'two', baselines=['dopamine:DQN'])
  assert comparison.ends == {'pong': 3_000_000}
  assert 'Compared up to 3,000,000 agent steps' in '\n'.join(said)
  assert comparison.last == 5
  table = compare_lib.score_table(comparison)
  assert set(table.agent_steps) == {3_000_000}


CONFIG = """\
runner.Runner.agent = @dqn.DQN
runner.Runner.environment = @environment/atari.Atari100k()
runner.Runner.evaluation_environment = {}
environment/atari.Atari100k.game = 'Pong'
environment/atari.Atari100k.sticky_actions = 0.0
environment/atari.Atari100k.terminate_on_life_loss = True
evaluation/atari.Atari100k.game = 'Pong'
evaluation/atari.Atari100k.sticky_actions = {}
evaluation/atari.Atari100k.terminate_on_life_loss = False
"""


@pytest.mark.parametrize(
  ('evaluated', 'sticky', 'words'),
  [
    (
      '@evaluation/atari.Atari100k()',
      '0.0\nevaluation/atari.Atari100k.forget_on_life_loss = True',
      None,
    ),
    (  # an older run
      '@evaluation/atari.Atari100k()',
      0.0,
      'forget_on_life_loss = False and not True',
    ),
    (
      '@evaluation/atari.Atari100k()',
      0.25,
      'sticky_actions = 0.25 and not 0.0',
    ),
    (
      '@evaluation/atari.Atari100k()',
      '0.0\nevaluation/atari.Atari100k.forget_on_life_loss = False',
      'forget_on_life_loss = False and not True',
    ),
    (None, 0.0, 'terminate_on_life_loss = True and not False'),
    # As configs write two environments of the same settings.
    ('@atari.Atari100k()', 0.0, 'terminate_on_life_loss = True and not False'),
  ],
)
def test_another_protocol_than_the_published_one_is_told(
  evaluated, sticky, words
):
  path = make_run('mine', [[1.0]], game='Pong', metric=EVAL, steps=100_000)
  config = CONFIG.format(evaluated, sticky)
  if evaluated == '@atari.Atari100k()':
    config = config.replace('environment/atari', 'atari')
    config = ''.join(x for x in config.splitlines(True) if '/' not in x)
  (path / 'config.gin').write_text(config)
  comparison, _ = compare('mine', baselines=['atari100k:DER'])
  assert comparison.scores['mine'] == 1
  found = [x for x in comparison.sentences if 'same protocol' in x]
  assert len(found) == (words is not None)
  if words:
    assert words in found[0] and 'mine played with' in found[0]


@pytest.mark.parametrize(
  ('setting', 'baseline'),
  [
    ('gym.Gym.max_steps_per_episode = None', 'dopamine:SAC'),
    ('gym.Gym.sticky_actions = 0.0', 'dopamine:SAC'),
  ],
)
def test_what_is_no_atari_has_no_protocol_of_atari(setting, baseline):
  values = np.arange(10.0)[None]
  path = make_run('mine', values, game='Hopper-v5', steps=1_000)
  config = (path / 'config.gin').read_text()
  (path / 'config.gin').write_text(f'{config}{setting}\n')
  comparison, _ = compare('mine', baselines=[baseline])
  assert comparison.sentences
  assert not any('same protocol' in line for line in comparison.sentences)


def test_a_longer_run_is_laid_beside_means_where_these_are():
  make_run('mine', [[1.0, 2.0]], game='Pong', metric=EVAL, steps=100_000)
  comparison, said = compare('mine', baselines=['atari100k:BBF'])
  assert 'Compared up to 100,000 agent steps' in '\n'.join(said)
  assert comparison.scores['mine'] == 1


def test_five_runs_and_means_are_each_spoken_of():
  runs_of([-15.0, -10.0, -5.0], 'Pong', 'mine/pong')
  runs_of([60.0, 70.0, 80.0], 'SpaceInvaders', 'mine/invaders')
  names = ['atari100k:SimPLe', 'atari100k:BBF']
  comparison, said = compare('m=mine', baselines=names)
  text = '\n'.join(comparison.sentences)
  assert 'outside the range of five at a third' in text
  # Space Invaders is compared with nobody, so that it is in no aggregate.
  groups = set(compare_lib.aggregate_table(comparison).group)
  assert groups == {'m', 'atari100k:SimPLe', 'atari100k:BBF (means)'}
  comparison, said = compare('m=mine', baselines=names[1:])
  assert any('no aggregates, since it lacks SpaceInvaders' in x for x in said)
  assert set(compare_lib.aggregate_table(comparison).group) == {'m'}


# The protocol and the numbers of Dopamine's `labs/atari_100k`, written down by
# hand; what is missing in a row is `full_rainbow.FullRainbow`'s there.
PROTOCOL = {
  'sticky_actions': 0.0,
  'noop_max': 30,  # that is 0 to 29
  'frame_skip': 4,
  'size': 84,
  'stack': 4,
  'max_steps_per_episode': 27_000,
  'reward_clip': 1.0,
}
ALL = {
  'gamma': 0.99,
  'update_period': 1,
  'huber_delta': None,
  'augmentation': (),
  'dueling': True,
  'double': True,
}
DRQ = {
  'n_step': 10,
  'noisy': False,
  'distributional': False,
  'huber_delta': 1.0,
  'updates_per_period': 1,
  'target_update_period': 1,
  'double': False,  # theirs is double, which then is the same: see below
  'augmentation': (augmentation.RandomShift(), augmentation.Intensity()),
}
THEIRS = {
  'der': {
    'n_step': 10,
    'noisy': True,
    'distributional': True,
    'updates_per_period': 1,
    'target_update_period': 2_000,
    'epsilon': (0, 0, 0.01),  # beside the noise
    'evaluation_epsilon': 0.001,
  },
  'otrainbow': {
    'n_step': 3,
    'noisy': False,
    'dueling': False,
    'double': False,
    'distributional': True,
    'updates_per_period': 8,
    'target_update_period': 500,
    'epsilon': (20_000, 70_000, 0.01),
    'evaluation_epsilon': 0.001,
  },
  'drq': DRQ | {'epsilon': (1_600, 6_600, 0.1), 'evaluation_epsilon': 0.05},
  'drq_eps': DRQ
  | {'epsilon': (1_600, 6_600, 0.01), 'evaluation_epsilon': 0.001},
}
SPR = {
  'n_step': 10,
  'noisy': True,
  'distributional': True,
  'updates_per_period': 2,
  'target_update_period': None,
  'target_tau': 1.0,
  'augmentation': (augmentation.RandomShift(), augmentation.Intensity()),
  'prediction_steps': 5,
  'prediction_weight': 5.0,
  'epsilon': (2_000, 4_001, 0.0),
  'evaluation_epsilon': 0.001,
}
RESET = SPR | {
  'noisy': False,
  'target_tau': 0.005,
  'published_priorities': False,
}
THEIRS |= {
  'spr': SPR | {'target_update_period': 1},
  'sr_spr': RESET | {'updates_per_period': 16},
  'bbf': RESET | {'gamma': None},
  'bbf_rr8': RESET | {'updates_per_period': 8, 'gamma': None},
}
REPLAYS = {
  'der': (prioritized.PrioritizedReplay, 1_600, 1e-4),
  'otrainbow': (prioritized.PrioritizedReplay, 20_000, 6.25e-5),
  'drq': (uniform.UniformReplay, 1_600, 1e-4),
  'drq_eps': (uniform.UniformReplay, 1_600, 1e-4),
  **{
    name: (prioritized.PrioritizedReplay, 2_000, 1e-4)
    for name in ('spr', 'sr_spr', 'bbf', 'bbf_rr8')
  },
}
DECAY = {'weight_decay': 0.1, 'mask': optimization.kernels}


def layer(inputs, units, noisy=False):
  """Returns the numbers of a layer: kernel and bias, noise's besides."""
  return (inputs + 1) * units * (2 if noisy else 1)


def sizes(units=512, atoms=51, streams=(18, 1), noisy=False):
  """Returns those of a convolutional network of 18 actions."""
  torso = layer(8 * 8 * 4, 32) + layer(4 * 4 * 32, 64) + layer(9 * 64, 64)
  last = sum(layer(units, atoms * count, noisy) for count in streams)
  return torso + layer(11 * 11 * 64, units, noisy) + last


# What SPR adds: two convolutions, of maps and one-hot actions, and a layer.
AHEAD = layer(9 * (64 + 18), 64) + layer(9 * 64, 64) + layer(512, 512)
SIZES = {
  'der': sizes(noisy=True),
  'otrainbow': sizes(streams=(18,)),
  'drq': sizes(atoms=1),
  'drq_eps': sizes(atoms=1),
  'spr': sizes(noisy=True) + AHEAD,
  'sr_spr': sizes() + AHEAD,
}
SIGMA = {'der': 0.1, 'spr': 0.5}  # times 1 / sqrt(inputs)


@pytest.mark.parametrize('name', THEIRS)
def test_a_config_has_the_published_protocol_and_numbers(name):
  bindings = ["atari.Atari100k.game = 'Boxing'"]
  run = config.load([f'{name}_atari100k'], bindings).build(runner.Runner)
  assert run.num_iterations * run.training_steps == 100_000
  assert run.evaluation_period == run.num_iterations
  assert run.evaluation_episodes == 100
  for environment in (run.environment, run.evaluated_on):
    assert environment.game == 'Boxing'
    found = {each: getattr(environment, each) for each in PROTOCOL}
    assert found == PROTOCOL
  assert run.environment.terminate_on_life_loss
  assert run.evaluated_on.forget_on_life_loss
  assert not run.evaluated_on.terminate_on_life_loss
  agent = run.make_part(
    'agent',
    observation_space=gymnasium.spaces.Box(0, 255, (84, 84, 4), np.uint8),
    action_space=gymnasium.spaces.Discrete(18),
  )
  expected = ALL | THEIRS[name]
  if expected['gamma'] is None:  # it is annealed
    del expected['gamma']
  begin, end, low = expected.pop('epsilon', (0, 0, 0.0))
  found = {each: getattr(agent, each) for each in expected}
  assert found | {'augmentation': tuple(agent.augmentation)} == expected
  assert agent.epsilon_at(end, explore=True) == pytest.approx(low)
  if end:
    assert agent.epsilon_at(begin, explore=True) == pytest.approx(1)
  kind, history, rate = REPLAYS[name]
  replay = agent.make_replay(4)
  assert type(replay) is kind
  assert (replay.batch_size, replay.min_history) == (32, history)
  assert replay.capacity > 100_000  # each episode takes a slot more
  if kind is prioritized.PrioritizedReplay:
    assert (replay.beta, replay.stratified) == (0.5, True)
  if agent.distributional:
    assert (agent.num_atoms, agent.v_min, agent.v_max) == (51, -10.0, 10.0)
  seen = jax.ShapeDtypeStruct((1, 84, 84, 4), np.uint8)
  params = jax.eval_shape(agent.init, jax.random.key(0), seen).params
  if name in SIZES:  # the others' are in a test of their own
    assert sum(x.size for x in jax.tree.leaves(params)) == SIZES[name]
  if name in SIGMA:
    assert agent.module.sigma0 == SIGMA[name]
  assert values.origin(agent.optimizer).keywords == {
    'learning_rate': rate,
    'eps': 1.5e-4,
    **(DECAY if 'bbf' in name else {}),
  }


# Agent steps from reset to reset, and what is left of the encoder.
RESETS = {
  'sr_spr': (2_500, 0.8),  # 40,000 updates of 16 a step, as of 8 in 5,000
  'bbf': (20_000, 0.5),
  'bbf_rr8': (5_000, 0.5),
}


@pytest.mark.parametrize('name', RESETS)
def test_a_config_is_reset_as_published(name):
  run = config.load([f'{name}_atari100k'], []).build(runner.Runner)
  steps, left = RESETS[name]
  shrink, reset = run.callbacks
  assert shrink.period * run.training_steps == steps
  assert reset.period * run.training_steps == steps
  assert (shrink.shrink, shrink.perturb) == (left, pytest.approx(1 - left))
  assert shrink.separate_targets and reset.separate_targets


@pytest.mark.parametrize('name', ['bbf', 'bbf_rr8'])
def test_bbf_anneals_from_reset_to_reset(name):
  run = config.load([f'{name}_atari100k'], []).build(runner.Runner)
  agent = run.make_part(
    'agent',
    observation_space=gymnasium.spaces.Box(0, 255, (84, 84, 4), np.uint8),
    action_space=gymnasium.spaces.Discrete(18),
  )
  replay = agent.make_replay(4)
  for count, n_step, gamma in ((0, 10, 0.97), (10_000, 3, 0.997)):
    found = replay.at(count)
    assert found.annealed_n_step == pytest.approx(n_step, rel=1e-5)
    assert found.gamma == pytest.approx(gamma, rel=1e-5)
  assert agent.schedule_count in run.callbacks[1].names


def test_the_large_network_has_the_published_sizes():
  run = config.load(['bbf_atari100k'], []).build(runner.Runner)
  agent = run.make_part(
    'agent',
    observation_space=gymnasium.spaces.Box(0, 255, (84, 84, 4), np.uint8),
    action_space=gymnasium.spaces.Discrete(18),
  )
  seen = jax.ShapeDtypeStruct((1, 84, 84, 4), np.uint8)
  params = jax.eval_shape(agent.init, jax.random.key(0), seen).params
  shapes = {
    name: params[name]['kernel'].shape for name in ('projection', 'predictor')
  }
  assert shapes == {
    'projection': (11 * 11 * 128, 2_048),
    'predictor': (2_048, 2_048),
  }
  convolutions = [
    each['kernel'].shape[-1] for each in params['encoder'].values()
  ]
  assert sorted(convolutions) == [64] * 5 + [128] * 10
  channels = [x['kernel'].shape for x in params['transition'].values()]
  assert channels == [(3, 3, 128 + 18, 128), (3, 3, 128, 128)]


def test_with_the_online_network_as_target_double_q_learning_changes_nothing():
  box = gymnasium.spaces.Box(-1, 1, (3,))
  draw = np.random.default_rng(0).normal
  batch = agent_lib.Transition(
    observation=np.float32(draw(size=(8, 3))),
    action=np.arange(8) % 4,
    reward=np.float32(draw(size=8)),
    discount=np.float32(np.arange(8) > 1),
    next_observation=np.float32(draw(size=(8, 3))),
  )
  losses = []
  for double in (True, False):
    agent = full_rainbow.FullRainbow(
      network=values.call(
        full_rainbow.RainbowNetwork,
        torso=networks.MLP(num_outputs=8),
        hidden=(),
      ),
      observation_space=box,
      action_space=gymnasium.spaces.Discrete(4),
      noisy=False,
      distributional=False,
      double=double,
    )
    params = agent.init(jax.random.key(1), batch.observation).params
    losses.append(agent.losses(params, params, batch, jax.random.key(2))[0])
  np.testing.assert_array_equal(*losses)
