"""Agents with memory: their targets by a loop, and a probe that needs it."""

import functools

import gymnasium
import jax
import numpy as np
import optax
import pytest

import dopamine_jax as dj
from dopamine_jax import agent as agent_lib
from dopamine_jax import errors
from dopamine_jax import networks
from dopamine_jax import values
from dopamine_jax.agents import dqn
from dopamine_jax.agents import ppo
from dopamine_jax.agents import ppo_rnn
from dopamine_jax.agents import pqn_rnn
from dopamine_jax.agents import r2d2
from dopamine_jax.engines import compiled
from dopamine_jax.environments import memory_chain
from dopamine_jax.networks import heads
from dopamine_jax.networks import recurrent
from dopamine_jax.replay import prioritized_sequences
from dopamine_jax.replay import uniform

T, N, A, GAMMA = 7, 2, 3, 0.8
SPACES = {
  'observation_space': gymnasium.spaces.Box(-9, 9, (2,), np.float32),
  'action_space': gymnasium.spaces.Discrete(A),
}
TORSO = networks.MLPTorso(hidden=(8,))


def trajectory(module, seed=0):
  """Returns a random Sequence [T, N] in which episodes end in both ways."""
  rng = np.random.default_rng(seed)
  last = np.zeros((T, N), bool)
  last[2, 0] = last[4, 0] = last[1, 1] = True
  discount = np.full((T, N), GAMMA, np.float32)
  discount[4, 0] = 0.0
  observation = rng.normal(size=(T, N, 2)).astype(np.float32)
  following = rng.normal(size=(T, N, 2)).astype(np.float32)
  following[:-1] = np.where(last[:-1, :, None], following[:-1], observation[1:])
  action = rng.integers(A, size=(T, N)).astype(np.int32)
  reward = rng.normal(size=(T, N)).astype(np.float32)
  first = np.concatenate([np.array([[False, True]]), last[:-1]])
  memory = jax.tree.map(
    lambda x: rng.normal(size=x.shape).astype(np.float32),
    module.init_memory(N),
  )
  before = np.concatenate([np.ones((1, N), np.int32), action[:-1]])
  rewarded = np.concatenate([np.ones((1, N), np.float32), reward[:-1]])
  return agent_lib.Sequence(
    observation=observation,
    action=action,
    reward=reward,
    discount=discount,
    next_observation=following,
    last=last,
    seen=agent_lib.Seen(
      observation=observation,
      action=np.where(first, 0, before),
      reward=np.where(first, 0, rewarded).astype(np.float32),
      first=first,
    ),
    next_seen=agent_lib.Seen(
      observation=following,
      action=action,
      reward=reward,
      first=np.zeros((T, N), bool),
    ),
    memory=memory,
    taken=np.ones((T, N), bool),
  )


def one_by_one(module, params, sequence):
  """Yields what the network gives of each row, and of what followed it."""
  step = jax.jit(functools.partial(recurrent.one_step, module))
  memory = sequence.memory
  for t in range(len(sequence.reward)):
    row, after = jax.tree.map(
      lambda x, t=t: x[t], (sequence.seen, sequence.next_seen)
    )
    memory = jax.tree.map(
      lambda x, row=row: np.where(row.first[:, None], 0.0, x), memory
    )
    outputs, memory = step(params, memory, row)
    following, _ = step(params, memory, after)
    yield jax.tree.map(np.array, (outputs, following))


def lambda_returns(sequence, following, lambda_):
  """Returns the targets [T, N], by a loop."""
  targets = np.zeros((T, N))
  for n in range(N):
    for t in reversed(range(T)):
      later = following[t][n]
      if t + 1 < T and not sequence.last[t, n]:
        later = (1 - lambda_) * later + lambda_ * targets[t + 1, n]
      targets[t, n] = sequence.reward[t, n] + sequence.discount[t, n] * later
  return targets


def test_ppo_learns_from_what_acting_would_have_seen():
  agent = ppo_rnn.PPORNN(
    network=networks.RecurrentActorCritic(
      torso=TORSO, cell='gru', units=4, sees_past=True
    ),
    update_period=T * N,
    num_minibatches=1,
    gae_lambda=0.7,
    normalize_advantages=False,
    **SPACES,
  )
  state = jax.jit(agent.init)(jax.random.key(0), np.zeros((N, 2), np.float32))
  params = jax.tree.map(lambda x: x + 0.1, state.params)
  sequence = trajectory(agent.module)
  rows = list(one_by_one(agent.module, params['network'], sequence))
  batch = jax.jit(agent.batch)(params, sequence)
  logits = np.array([outputs[0] for outputs, _ in rows])
  log_probs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
  chosen = np.take_along_axis(log_probs, sequence.action[..., None], -1)
  np.testing.assert_allclose(batch.log_prob, chosen[..., 0], rtol=1e-4)
  value = np.array([outputs[1] for outputs, _ in rows])
  np.testing.assert_allclose(batch.value, value, rtol=1e-4, atol=1e-5)
  following = [following[1] for _, following in rows]
  target = lambda_returns(sequence, following, 0.7)
  np.testing.assert_allclose(batch.target, target, rtol=1e-4, atol=1e-5)
  # On its own experience, the policy has not moved.
  stretches = agent.rows(sequence, batch)
  assert stretches.seen.first.shape == (N, T)
  loss, metrics = jax.jit(agent.loss)(params, stretches, 0)
  np.testing.assert_allclose(metrics['KL'], 0, atol=1e-6)
  error = np.mean((target - value) ** 2) / 2
  np.testing.assert_allclose(metrics['ValueLoss'], error, rtol=1e-4)
  expected = -np.mean(target - value) + 0.5 * error
  np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_pqn_learns_from_what_acting_would_have_seen():
  agent = pqn_rnn.PQNRNN(
    network=networks.RecurrentQ(
      torso=TORSO, cell='gru', units=4, head=heads.Plain
    ),
    update_period=T * N,
    num_minibatches=1,
    q_lambda=0.7,
    **SPACES,
  )
  params = jax.jit(agent.init)(
    jax.random.key(0), np.zeros((N, 2), np.float32)
  ).params
  sequence = trajectory(agent.module)
  rows = list(one_by_one(agent.module, params, sequence))
  batch = jax.jit(agent.batch)(params, sequence)
  following = [following.max(axis=-1) for _, following in rows]
  target = lambda_returns(sequence, following, 0.7)
  np.testing.assert_allclose(batch.target, target, rtol=1e-4, atol=1e-5)
  loss, _ = jax.jit(agent.loss)(params, agent.rows(sequence, batch), 0)
  q = np.array([outputs for outputs, _ in rows])
  chosen = np.take_along_axis(q, sequence.action[..., None], -1)[..., 0]
  expected = np.mean((chosen - target) ** 2) / 2
  np.testing.assert_allclose(loss, expected, rtol=1e-4)


def h(x):
  return np.sign(x) * (np.sqrt(np.abs(x) + 1) - 1) + 1e-3 * x


def h_inverse(x):
  root = np.sqrt(1 + 4e-3 * (np.abs(x) + 1 + 1e-3))
  return np.sign(x) * (((root - 1) / 2e-3) ** 2 - 1)


def test_r2d2_learns_n_step_double_q_of_rescaled_values():
  n, burn_in = 2, 2
  agent = r2d2.R2D2(
    network=networks.RecurrentQ(torso=TORSO, units=4),
    n_step=n,
    priority_mix=0.75,
    **SPACES,
  )
  init = jax.jit(agent.init)
  state = init(jax.random.key(0), np.zeros((N, 2), np.float32))
  target_params = jax.tree.map(lambda x: x - 0.2, state.params)
  state = state.replace(target_params=target_params)
  sequence = trajectory(agent.module).replace(burn_in=burn_in)
  taken = np.ones((T, N), bool)
  taken[3, 0] = False  # an episode's last observation
  sequence = sequence.replace(taken=taken)
  q, target_q = (
    np.array([outputs for outputs, _ in one_by_one(agent.module, p, sequence)])
    for p in (state.params, target_params)
  )
  errors_ = np.zeros((T - n - burn_in, N))
  for lane in range(N):
    for t in range(burn_in, T - n):
      total, factor, row = 0.0, 1.0, t
      for _ in range(n):
        total += factor * sequence.reward[row, lane]
        factor *= sequence.discount[row, lane]
        row += 1
        if sequence.last[row - 1, lane]:
          break
      best = target_q[row, lane, q[row, lane].argmax()]
      target = h(total + factor * h_inverse(best))
      if taken[t, lane]:
        error = target - q[t, lane, sequence.action[t, lane]]
        errors_[t - burn_in, lane] = error
  found, _ = jax.jit(agent.td_errors)(state.params, target_params, sequence)
  np.testing.assert_allclose(found, errors_, rtol=1e-3, atol=1e-5)
  weight = np.array([1.0, 0.5], np.float32)
  sample = agent_lib.Sample(sequence, np.arange(N), weight)
  _, metrics, priorities = jax.jit(agent.update)(
    state, sample, jax.random.key(0)
  )
  count = taken[burn_in : T - n].sum(axis=0)
  loss = np.mean(weight * (errors_**2).sum(axis=0) / count)
  np.testing.assert_allclose(metrics['Loss'], loss, rtol=1e-3)
  error = np.abs(errors_)
  mixed = 0.75 * error.max(axis=0) + 0.25 * error.sum(axis=0) / count
  np.testing.assert_allclose(priorities, mixed, rtol=1e-3)


def test_each_environment_of_r2d2_explores_by_its_own_epsilon():
  agent = r2d2.R2D2(
    network=networks.RecurrentQ(torso=TORSO, units=4),
    epsilon=0.5,
    epsilon_alpha=3.0,
    evaluation_epsilon=0.0,
    **SPACES,
  )
  lanes = np.zeros((4, 2), np.float32)
  state = jax.jit(agent.init)(jax.random.key(0), lanes)
  seen = agent_lib.Seen(lanes, np.zeros(4, int), np.zeros(4), np.ones(4, bool))
  memory = agent.init_memory(4)

  @jax.jit
  @jax.vmap
  def explored(key):
    actions, _ = agent.act_with_memory(
      state, memory, seen, 0, key, explore=True
    )
    greedy, _ = agent.act_with_memory(
      state, memory, seen, 0, key, explore=False
    )
    return actions != greedy

  share = explored(jax.random.split(jax.random.key(1), 4_000)).mean(axis=0)
  # One random action in A is the greedy one.
  expected = 0.5 ** (1 + 3.0 * np.arange(4) / 3) * (1 - 1 / A)
  np.testing.assert_allclose(share, expected, atol=0.03)


def test_environments_that_minibatches_can_not_share_are_refused(tmp_path):
  agent = ppo_rnn.PPORNN(update_period=24, num_minibatches=2)
  with pytest.raises(errors.UserError, match='does not divide num_envs = 3'):
    dj.train(
      agent, memory_chain.MemoryChain(), tmp_path, agent_steps=24, num_envs=3
    )


LEARNING = {'update_period': 128, 'num_epochs': 4, 'num_minibatches': 4}
QUICK = {
  'optimizer': values.call(optax.adam, 1e-2),
  'gamma': 0.9,
}
WITH_MEMORY = {
  'ppo_rnn': ppo_rnn.PPORNN(
    network=networks.RecurrentActorCritic(torso=TORSO, cell='gru', units=16),
    **LEARNING,
    **QUICK,
  ),
  'pqn_rnn': pqn_rnn.PQNRNN(
    network=networks.RecurrentQ(
      torso=networks.MLPTorso(hidden=(8,), activation=networks.normalized_relu),
      cell='gru',
      units=16,
      head=heads.Plain,
    ),
    epsilon=0.2,
    **LEARNING,
    **QUICK,
  ),
  'r2d2': r2d2.R2D2(
    network=networks.RecurrentQ(torso=TORSO, units=16),
    replay=prioritized_sequences.PrioritizedSequenceReplay(
      capacity=2_000, batch_size=16, length=4, burn_in=2, min_history=256
    ),
    n_step=2,
    update_period=16,
    target_update_period=160,
    epsilon=1.0,
    **QUICK,
  ),
}
WITHOUT = {
  'ppo': ppo.PPO(
    network=networks.ActorCritic(torso=TORSO), **LEARNING, **QUICK
  ),
  'dqn': dqn.DQN(
    network=networks.MLP(hidden=(16,)),
    replay=uniform.UniformReplay(
      capacity=2_000, batch_size=16, min_history=256
    ),
    update_period=16,
    target_update_period=160,
    epsilon=1.0,
    **QUICK,
  ),
}


def reached(agent, folder, steps):
  run = dj.train(
    agent,
    memory_chain.MemoryChain(length=3),
    folder,
    agent_steps=steps,
    num_envs=8,
    engine=compiled.CompiledEngine,
    evaluation_episodes=64,
    quiet=True,
  )
  return float(run.statistics['Eval/AverageReturns'][0])


# Losses and targets are compared with loops above, what agents carry is in
# `memory_test`, and how their sequences begin in `sequences_test`.
@pytest.mark.slow
@pytest.mark.parametrize('name', ['ppo_rnn', 'pqn_rnn', 'r2d2'])
def test_an_agent_with_memory_repeats_what_it_saw_first(name, tmp_path):
  assert reached(WITH_MEMORY[name], tmp_path, 8_192) > 0.9


def test_the_cue_is_not_seen_when_it_is_asked_for():
  environment = memory_chain.MemoryChain(length=3)

  @jax.jit
  @jax.vmap
  def play(cue):
    outcomes, state = [], memory_chain.State(cue=cue, step=0)
    for _ in range(3):
      outcomes.append(environment.step(state, 0, None))
      state = outcomes[-1].state
    return outcomes

  *before, last = play(np.arange(2))
  for outcome in before:
    np.testing.assert_array_equal(*outcome.observation)
    assert outcome.reward.tolist() == [0, 0]
  assert last.reward.tolist() == [1, -1]


# That the probe wants a memory: the test above says why.
@pytest.mark.slow
@pytest.mark.parametrize('name', WITHOUT)
def test_no_agent_without_memory_does(name, tmp_path):
  assert reached(WITHOUT[name], tmp_path, 4_096) < 0.5
