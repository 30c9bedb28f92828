"""What agents share that act by the values of actions, learnt from a replay.

The algorithm is the subclass's: `q_values`, and what they learn from. Here is
how one acts by them, and what logs, films and `health` show of them.
"""

import jax
import jax.numpy as jnp
import optax

from dopamine_jax import agent as agent_lib
from dopamine_jax import networks
from dopamine_jax import spaces
from dopamine_jax import values
from dopamine_jax.learning import encoding
from dopamine_jax.learning import exploration
from dopamine_jax.learning import masks
from dopamine_jax.learning import off_policy
from dopamine_jax.networks import modules


class ActionValues(off_policy.OffPolicy):
  """Acts epsilon-greedily by Q-values of a network.

  The agent's state has `params` and `target_params`.

  Attributes:
    network: a Flax module, or what makes it from `num_outputs`; None:
      `networks.fitting`, by the space of observations.
    epsilon: of epsilon-greedy training, a number or an optax schedule over
      agent steps. Until the replay holds its `min_history`, all is random.
    evaluation_epsilon: the chance of a random action when not training.
  """

  network: modules.Maker | None = None
  epsilon: float | optax.Schedule = values.call(
    optax.linear_schedule, 1.0, 0.01, 250_000, transition_begin=20_000
  )
  evaluation_epsilon: float = 0.001

  over_agent_steps = ('epsilon',)

  def __post_init__(self):
    super().__post_init__()
    self.require_discrete_actions()
    self.require_fraction('epsilon', 'evaluation_epsilon')

  @property
  def num_outputs(self) -> int:
    """How many numbers the network's last layer gives: one for each action."""
    return int(self.action_space.n)

  @property
  def module(self):
    """The network, a Flax module."""
    if self.network is None:
      fitting = networks.fitting(self.observation_space)
      module = fitting(num_outputs=self.num_outputs)
      return encoding.encoded(self.observation_space, module)
    return encoding.network(self, 'network', num_outputs=self.num_outputs)

  def outputs(self, params, observation, key) -> jax.Array:
    """Returns what the network gives [B, num_outputs].

    Args:
      params: the network's parameters.
      observation: [B, *observation_shape].
      key: a PRNG key, for networks with noise.
    """
    return networks.apply(self.module, params, observation, key=key)

  def q_values(self, params, observation, key) -> jax.Array:
    """Returns Q-values [B, A]; arguments as for `outputs`."""
    return self.outputs(params, observation, key)

  def only_allowed(self, q, observation) -> jax.Array:
    """Returns Q-values [B, A] or [B, K, A] by which to choose an action."""
    return masks.only_allowed(self.observation_space, q, observation)

  def distribution(self, params, observation, key):
    """Returns the return's distribution, see `Outlook`; None: values alone."""
    del params, observation, key
    return None

  def act(self, state, observation, step, key, *, explore) -> jax.Array:
    """Acts epsilon-greedily; see `Agent.act`."""
    network_key, explore_key = jax.random.split(key)
    q = self.q_values(state.params, observation, network_key)
    q = self.only_allowed(q, observation)
    epsilon = self.epsilon_at(step, explore=explore)
    mask = spaces.mask_of(self.observation_space, observation)
    return exploration.epsilon_greedy(q, epsilon, explore_key, mask)

  def epsilon_at(self, step, *, explore: bool) -> float | jax.Array:
    """Returns the probability of a random action after `step` agent steps."""
    schedule = self.epsilon if explore else self.evaluation_epsilon
    return values.at(schedule, step)

  def greedy(self) -> 'ActionValues':
    """Returns this agent without random actions in evaluation."""
    return self.replace(evaluation_epsilon=0.0)

  def schedules(self, step: int) -> dict[str, float]:
    """Returns epsilon, for the logs; see `Agent.schedules`."""
    return {'Epsilon': float(self.epsilon_at(step, explore=True))}

  def anatomy(self, state) -> dict[str, agent_lib.Anatomy]:
    """Returns the network, for `health`; see `Agent.anatomy`."""
    params, target_params = state.params, state.target_params
    network = agent_lib.Anatomy(
      self.module, params, target_params, values=self.q_values
    )
    return {'': network}

  def outlook(self, state, observation, key) -> agent_lib.Outlook:
    """Returns Q-values and distribution, for films; see `Agent.outlook`."""
    network_key, _ = jax.random.split(key)  # as in `act`
    seen = state.params, observation, network_key
    q = self.q_values(*seen)
    q = masks.shown(self.observation_space, q, observation)
    return agent_lib.Outlook(
      value=jnp.max(q, axis=-1),
      values=q,
      distribution=self.distribution(*seen),
    )


def metrics(q: jax.Array) -> dict[str, jax.Array]:
  """Returns what is logged of the Q-values [B, A] that were learnt from."""
  return {'QMean': jnp.mean(q), 'QMax': jnp.max(q)}
