"""Discounts and n-step returns that follow schedules over updates."""

import csv
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import dopamine_jax as dj
from dopamine_jax import errors
from dopamine_jax import networks
from dopamine_jax import runner as runner_lib
from dopamine_jax import values
from dopamine_jax.agents import dqn
from dopamine_jax.callbacks import resets
from dopamine_jax.environments import catch
from dopamine_jax.replay import hindsight
from dopamine_jax.replay import prioritized
from dopamine_jax.replay import prioritized_sequences
from dopamine_jax.replay import ring as ring_lib
from dopamine_jax.replay import rollout
from dopamine_jax.replay import sequences
from dopamine_jax.replay import uniform

GAMMA = values.call(optax.linear_schedule, 0.5, 0.75, 100)
N_STEP = values.call(optax.linear_schedule, 4.0, 2.0, 100)
# (updates, gamma, n): 3.4 and 2.6 steps are both rounded to 3.
ANNEALED = [(0, 0.5, 4), (30, 0.575, 3), (70, 0.675, 3), (900, 0.75, 2)]
SMALL = {'capacity': 64, 'batch_size': 16, 'min_history': 24}
STEPS = 24


def played(replay):
  """Returns a ring of a running episode, whose rewards count its steps."""

  def step(i):
    frame = np.full((1, 1), i, np.float32)
    observation = frame
    if isinstance(replay, hindsight.HindsightReplay):
      observation = {'achieved_goal': frame, 'desired_goal': -frame}
    return ring_lib.Step(
      observation=observation,
      action=np.zeros(1, np.int32),
      reward=np.full(1, i, np.float32),
      terminated=np.zeros(1, bool),
      truncated=np.zeros(1, bool),
      next_observation=jax.tree.map(lambda x: x + 1, observation),
    )

  steps = jax.tree.map(lambda *rows: np.stack(rows), *map(step, range(STEPS)))
  return jax.jit(
    lambda: jax.lax.scan(
      lambda ring, each: (replay.add(ring, each), None),
      replay.init(jax.tree.map(lambda x: x[0], steps)),
      steps,
    )[0]
  )()


@pytest.mark.parametrize(
  'kind', [uniform.UniformReplay, prioritized.PrioritizedReplay]
)
def test_samples_go_by_the_updates_so_far(kind):
  replay = kind(n_step=4, gamma=GAMMA, annealed_n_step=N_STEP, **SMALL)
  ring, sample = played(replay), jax.jit(replay.sample)
  for updates, gamma, n in ANNEALED:
    found = sample(ring, jax.random.key(updates), np.int32(updates))
    slot, batch = np.asarray(found.slot), found.transition
    # What is valid stays the same: all four steps have been taken.
    assert slot.max() <= STEPS - 4
    reward = sum(gamma**i * (slot + i) for i in range(n))
    np.testing.assert_allclose(batch.reward, reward, rtol=1e-5)
    np.testing.assert_allclose(batch.discount, gamma**n, rtol=1e-5)
    np.testing.assert_array_equal(batch.next_observation[:, 0], slot + n)


@pytest.mark.parametrize(
  'replay',
  [
    hindsight.HindsightReplay(gamma=GAMMA, relabelled=1.0, **SMALL),
    sequences.SequenceReplay(gamma=GAMMA, length=4, burn_in=1, **SMALL),
    prioritized_sequences.PrioritizedSequenceReplay(
      gamma=GAMMA, length=4, burn_in=1, **SMALL
    ),
    rollout.Rollout(gamma=GAMMA, steps=8),
  ],
  ids=lambda replay: type(replay).__name__,
)
def test_gamma_of_every_replay_may_be_a_schedule(replay):
  ring = played(replay)
  found = jax.jit(replay.sample)(ring, jax.random.key(0), np.int32(30))
  np.testing.assert_allclose(found.transition.discount, 0.575, rtol=1e-6)


def test_without_schedules_a_replay_stays_itself():
  replay = prioritized.PrioritizedReplay(
    beta=values.call(optax.linear_schedule, 0.4, 1.0, 9)
  )
  assert replay.at(3) is replay


def test_an_agent_gives_its_schedule_on():
  replay = agent().make_replay(stack=1)
  assert [float(replay.at(count).gamma) for count in (0, 50)] == [0.5, 0.625]


def test_a_replay_that_is_made_before_its_agent_is_told_the_steps():
  with pytest.raises(errors.UserError, match=r'by functools\.partial'):
    uniform.UniformReplay(annealed_n_step=2.0, **SMALL)
  replay = functools.partial(
    uniform.UniformReplay, annealed_n_step=2.0, **SMALL
  )
  assert agent(replay=replay, n_step=3).make_replay(stack=1).n_step == 3


def agent(**changes):
  replay = uniform.UniformReplay(annealed_n_step=N_STEP, **SMALL)
  given = {'gamma': GAMMA, 'n_step': 4, 'replay': replay} | changes
  return dqn.DQN(network=networks.MLP(hidden=()), **given)


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    (
      {'n_step': 3},
      r'annealed_n_step = 4.0 is more than n_step = 3.* at count 0',
    ),
    (
      {'gamma': values.call(optax.linear_schedule, 0.9, 1.5, 10)},
      r'dqn.DQN.gamma = 1.2 is out of range.* at count 5',
    ),
  ],
)
def test_a_schedule_that_goes_too_far_is_refused(changes, words):
  runner = runner_lib.Runner(
    agent=agent(**changes),
    environment=catch.Catch(),
    num_iterations=1,
    training_steps=40,
  )
  with pytest.raises(errors.UserError, match=words):
    runner.make_loop(catch.Catch().make(1))


class Telling(dqn.DQN):
  """Tells the discounts that it learns with."""

  def losses(self, params, target_params, batch, key):
    losses, metrics = super().losses(params, target_params, batch, key)
    return losses, metrics | {'Discount': jnp.max(batch.discount)}


@pytest.mark.parametrize('names', [['Dense_0.*'], ['Dense_0.*', 'updates']])
def test_a_reset_of_the_count_begins_schedules_anew(names, tmp_path):
  dj.train(
    Telling(
      network=networks.MLP(hidden=()),
      replay=uniform.UniformReplay(**SMALL),
      gamma=GAMMA,
      update_period=1,
      target_update_period=8,
    ),
    catch.Catch(),
    tmp_path,
    agent_steps=80,
    num_iterations=2,
    callbacks=[resets.Reset(period=1, names=names)],
    evaluation_episodes=0,
    quiet=True,
  )
  rows = csv.DictReader((tmp_path / 'metrics.csv').read_text().splitlines())
  found = [float(x['value']) for x in rows if x['name'] == 'Train/Discount']
  # 40 steps each; the first 23 of them complete the history.
  ages = np.arange(17), np.arange(40) + (0 if 'updates' in names else 17)
  expected = [np.mean(0.5 + 0.25 * age / 100) for age in ages]
  np.testing.assert_allclose(found, expected, rtol=1e-5)
