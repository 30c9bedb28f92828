"""Schedules and optimizers that can't work are refused before a run starts."""

import functools

import gymnasium
import jax
import numpy as np
import optax
import pytest

from dopamine_jax import errors
from dopamine_jax import networks
from dopamine_jax import settings
from dopamine_jax.agents import dqn
from dopamine_jax.agents import ppo
from dopamine_jax.agents import pqn
from dopamine_jax.agents import sac
from dopamine_jax.learning import optimization
from dopamine_jax.learning import trials
from dopamine_jax.replay import prioritized

OBSERVATIONS = gymnasium.spaces.Box(-1, 1, (3,))
DISCRETE = gymnasium.spaces.Discrete(2)
BOX = gymnasium.spaces.Box(-1, 1, (1,))
FLAT = functools.partial(networks.MLP, hidden=())  # Dense_0 alone


NOISY = optax.chain(optax.add_noise(0.1, 0.5, 0), optax.sgd(0.1))


def raises(count):
  raise NotImplementedError


def agent(make, **changes):
  space = BOX if make in (sac.SAC, ppo.PPO) else DISCRETE
  if make is dqn.DQN:
    changes = {'network': FLAT} | changes
  return make(observation_space=OBSERVATIONS, action_space=space, **changes)


def stateful(first, step, later):
  return optax.GradientTransformation(
    lambda params: first,
    lambda gradients, state, params=None: (step(gradients), later),
  )


def first_column(gradients):
  return jax.tree.map(lambda x: x[..., :1], gradients)


def none(gradients):
  return None


def by_name(optimizer, name):
  return optax.partition({'a': optimizer}, {name: 'a'})


class Idle(dqn.DQN):
  """Its `init` has no use for its optimizer."""

  def init(self, key, observation):
    return ()


def check(owner, last=1_000):
  trials.check(owner, lambda name: last)


@pytest.mark.parametrize(
  ('owner', 'words'),
  [
    # Values that no number of this setting may have, and where.
    (
      lambda: agent(dqn.DQN, epsilon=optax.linear_schedule(50.0, 0.1, 100)),
      'dqn.DQN.epsilon = 50.0 is out of range; it must lie in [0, 1]. That is '
      'what its schedule gives at count 0.',
    ),
    (
      lambda: agent(dqn.DQN, epsilon=optax.linear_schedule(-3, 0.1, 100)),
      'dqn.DQN.epsilon = -3.0 is out of range',
    ),
    (
      lambda: agent(dqn.DQN, epsilon=lambda count: 1.0 - count / 900),
      'dqn.DQN.epsilon = -0.111111 is out of range; it must lie in [0, 1]. '
      'That is what its schedule gives at count 1000.',
    ),
    (
      lambda: agent(pqn.PQN, epsilon=lambda count: count > 3),
      'pqn.PQN.epsilon = False is of type bool',
    ),
    (
      lambda: agent(ppo.PPO, clip=optax.linear_schedule(0.2, -0.1, 1_000)),
      'ppo.PPO.clip = -0.1',
    ),
    (
      lambda: prioritized.PrioritizedReplay(
        beta=optax.linear_schedule(0.4, 4.0, 1_000)
      ),
      'prioritized.PrioritizedReplay.beta = 2.2',
    ),
    (
      lambda: agent(dqn.DQN, epsilon=lambda count: 0.1 * count / count),
      'dqn.DQN.epsilon = nan is not finite',
    ),
    # No schedules.
    (lambda: agent(dqn.DQN, epsilon=optax.adam), 'dqn.DQN.epsilon = '),
    (lambda: agent(dqn.DQN, epsilon=lambda: 0.1), 'at a count, as a schedule'),
    (lambda: agent(dqn.DQN, epsilon=lambda n: [n, n]), 'gives no number'),
    (lambda: agent(dqn.DQN, epsilon=raises), 'is: NotImplementedError'),
    (lambda: agent(dqn.DQN, epsilon=lambda n: np.ones(2)), 'gives no number'),
    # Optimizers, in each setting that holds one.
    (lambda: agent(dqn.DQN, optimizer=optax.adam(-1.0)), 'climbs'),
    (lambda: agent(dqn.DQN, optimizer=optax.scale_by_adam()), 'climbs'),
    (
      lambda: agent(
        dqn.DQN, optimizer=optax.sgd(optax.linear_schedule(0.2, -0.1, 1_000))
      ),
      'climbs: it moves parameters along the gradient, so that the loss grows; '
      'its learning rate is below 0, or is missing (at count 1000 of its steps',
    ),
    (
      lambda: agent(
        ppo.PPO, optimizer=optimization.clipped(optax.sgd(-0.1), max_norm=1.0)
      ),
      'ppo.PPO.optimizer climbs',
    ),
    (
      lambda: agent(pqn.PQN, optimizer=optax.MultiSteps(optax.adam(-1e-3), 4)),
      'pqn.PQN.optimizer climbs',
    ),
    (lambda: agent(dqn.DQN, optimizer=optax.adam(None)), 'climbs'),
    (lambda: agent(dqn.DQN, optimizer=optax.adam(1.0, b1=3.0)), 'not finite'),
    (lambda: agent(dqn.DQN, optimizer=optax.sgd(1.0, 1.5)), 'not finite'),
    (lambda: agent(dqn.DQN, optimizer=optax.adam(float('nan'))), 'not finite'),
    (
      lambda: agent(dqn.DQN, optimizer=optax.adam(50.0)),
      'by 49.9',
    ),
    (lambda: agent(dqn.DQN, optimizer=optax.lbfgs()), 'given a gradient'),
    *(
      (
        lambda kind=kind: agent(
          dqn.DQN, optimizer=optax.adam(1e-3, mu_dtype=kind)
        ),
        f'keeps what it knows of each parameter as {kind}',
      )
      for kind in ('int8', 'bool', 'complex64', 'uint32')
    ),
    (
      lambda: agent(dqn.DQN, optimizer=optax.sgd(0.1, 0.9, False, 'int32')),
      'as int32',
    ),
    *(
      (
        lambda rate=rate: agent(
          dqn.DQN, optimizer=optax.adam(lambda count: rate)
        ),
        'dqn.DQN.optimizer fails when it is given a gradient',
      )
      for rate in ('x', np.ones(3), np.ones(5), np.ones((3, 5)), [0.1], {})
    ),
    (
      lambda: agent(dqn.DQN, optimizer=stateful((), lambda g: g, (1,))),
      'its state is of another kind after a step',
    ),
    (
      lambda: agent(dqn.DQN, optimizer=stateful((), first_column, ())),
      'steps (1,) for parameters (2,)',
    ),
    (lambda: agent(dqn.DQN, optimizer=stateful((), none, ())), 'a gradient'),
    (
      lambda: agent(
        dqn.DQN,
        optimizer=by_name(optax.adam(1e-3, mu_dtype='int8'), 'Dense_0'),
      ),
      'as int8',
    ),
    # By names that no parameters have.
    (
      lambda: agent(dqn.DQN, optimizer=by_name(optax.sgd(0.1), 'Dense_7')),
      'given a gradient',
    ),
    (
      lambda: agent(dqn.DQN, optimizer=by_name(optax.adam('x'), 'Dense_0')),
      'given a gradient',
    ),
    *(
      (lambda name=name: agent(sac.SAC, **{name: optax.adam(-1e-3)}), name)
      for name in (
        'actor_optimizer',
        'critic_optimizer',
        'temperature_optimizer',
      )
    ),
  ],
)
def test_what_can_not_work_is_refused_with_its_setting(owner, words):
  owner = owner()
  with pytest.raises(settings.SettingError) as raised:
    check(owner)
  assert words in str(raised.value)


@pytest.mark.parametrize(
  'owner',
  [
    lambda: agent(dqn.DQN),
    lambda: agent(sac.SAC),
    lambda: agent(ppo.PPO, clip=optax.linear_schedule(0.1, 0.0, 100)),
    lambda: agent(pqn.PQN),
    lambda: prioritized.PrioritizedReplay(
      beta=optax.linear_schedule(0.4, 1.0, 100)
    ),
    lambda: agent(sac.SAC, temperature_optimizer=None),
    *(
      lambda optimizer=optimizer: agent(dqn.DQN, optimizer=optimizer)
      for optimizer in (
        optax.sgd(0.1, 0.99, nesterov=True),
        optax.adamw(optax.warmup_cosine_decay_schedule(0, 1e-3, 10, 1_000)),
        optax.MultiSteps(optax.adam(1e-3), 4),
        optax.chain(optax.clip(1.0), optax.rmsprop(1e-3, centered=True)),
        optax.set_to_zero(),
        # Whose first step at another count than 0 is huge.
        optax.contrib.acprop(1e-3),
        optax.adafactor(1e-3),
        optax.adam(1e-3, mu_dtype='bfloat16'),
      )
    ),
    # By the names of true parameters, which a trial does not have.
    lambda: agent(dqn.DQN, optimizer=by_name(optax.sgd(0.1), 'Dense_0')),
    lambda: agent(sac.SAC, actor_optimizer=NOISY),
    lambda: agent(Idle, optimizer=by_name(optax.sgd(0.1), 'Dense_7')),
  ],
)
def test_what_works_passes(owner):
  check(owner())


def test_a_schedule_is_tried_over_the_run_and_not_beyond():
  falling = agent(dqn.DQN, epsilon=lambda count: 1.0 - count / 500)
  check(falling, last=500)
  with pytest.raises(errors.UserError, match='count 502'):
    check(falling, last=502)


def test_an_agent_says_what_its_schedules_count():
  of_values = agent(dqn.DQN, update_period=4)
  assert of_values.last_count('epsilon', 1_000) == 1_000
  assert of_values.last_count('optimizer', 1_000) == 250
  on_policy = agent(ppo.PPO, update_period=100, num_epochs=2, num_minibatches=5)
  assert on_policy.last_count('clip', 1_000) == 10
  assert on_policy.last_count('optimizer', 1_000) == 100
