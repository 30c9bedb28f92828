"""What contestants must have alike, by algorithm.

Imported by the Python of every peer: needs nothing but Python itself.
"""

import dataclasses

Shapes = tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hyperparameters:
  """What all algorithms have.

  Attributes:
    kernels: the shapes of the networks' kernels in order; [in, out] or
      [height, width, in, out].
    batch_size: rows of a gradient step.
    gamma: discount of an agent step.
    learning_rate: of Adam.
    adam_epsilon: of Adam.
    num_envs: environments of one seed.
    frame_skip: frames of an agent step.
    stack: frames of an observation.
    sticky_actions: probability of repeating the last action.
  """

  kernels: Shapes
  batch_size: int
  gamma: float
  learning_rate: float
  adam_epsilon: float
  num_envs: int = 1
  frame_skip: int = 1
  stack: int = 1
  sticky_actions: float = 0.0

  @property
  def hidden(self) -> tuple[int, ...]:
    """The sizes of an MLP's hidden layers."""
    raise NotImplementedError

  @property
  def padding(self) -> str:
    """How Nature's network pads, which the first dense layer tells."""
    return 'VALID' if self.kernels[3][0] == 7 * 7 * 64 else 'SAME'

  def updates(self, steps: int) -> float:
    """Returns how many updates belong to the first agent steps."""
    raise NotImplementedError

  @property
  def updates_at_once(self) -> int:
    """How many of them follow one step, and may be yet to come."""
    return 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class OffPolicy(Hyperparameters):
  """What all have that learn from a replay.

  Attributes:
    update_period: agent steps from one update to the next.
    buffer_size: transitions that the replay holds.
    min_history: agent steps before the first update.
  """

  update_period: int
  buffer_size: int
  min_history: int

  def updates(self, steps: int) -> float:
    """See base class."""
    return max(0, steps - self.min_history) / self.update_period


@dataclasses.dataclass(frozen=True, kw_only=True)
class DQN(OffPolicy):
  """DQN's.

  Attributes:
    target_update_period: agent steps from one copy to the next.
    epsilon: of epsilon-greedy acting, constant.
  """

  target_update_period: int
  epsilon: float

  @property
  def hidden(self) -> tuple[int, ...]:
    """See base class."""
    return tuple(shape[-1] for shape in self.kernels[:-1])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rainbow(DQN):
  """Rainbow's: what it has besides.

  Attributes:
    agent: 'rainbow', the compact one, or 'full_rainbow'.
    n_step: rewards summed before bootstrapping.
    num_atoms: of a return's distribution.
    v_max: the highest atom; the lowest is its negative.
    alpha: exponent of priorities.
    prioritized: whether priorities were renewed by what was learnt.
    noisy: whether the layers above the convolutions are.
    dueling: whether values and advantages have layers of their own.
    double: whether the online network chooses the next action.
  """

  agent: str = 'rainbow'
  n_step: int = 3
  num_atoms: int = 51
  v_max: float = 10.0
  alpha: float = 1.0
  prioritized: bool = True
  noisy: bool = False
  dueling: bool = False
  double: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class SAC(OffPolicy):
  """SAC's; its kernels are the policy's and then those of two critics.

  Where means and deviations come of two layers, these count as one.

  Attributes:
    environment: Gymnasium's id.
    critic_learning_rate: as `learning_rate`, which is the policy's.
    temperature_learning_rate: the same.
    tau: how far target critics move at each update.
    target_entropy: of the policy, in nats.
    learns_temperature: whether it was changed by what was learnt.
  """

  environment: str
  critic_learning_rate: float
  temperature_learning_rate: float
  tau: float
  target_entropy: float
  learns_temperature: bool = True

  @property
  def hidden(self) -> tuple[int, ...]:
    """See base class; of the policy as of each critic."""
    policy = self.kernels[: len(self.kernels) // 3]
    return tuple(shape[-1] for shape in policy[:-1])


@dataclasses.dataclass(frozen=True, kw_only=True)
class TD3(OffPolicy):
  """TD3's; its kernels are the policy's and then those of two critics.

  The policy learns with each second update.

  Attributes:
    environment: Gymnasium's id.
    tau: how far targets move.
    exploration_noise: standard deviation of exploration.
  """

  environment: str
  tau: float
  exploration_noise: float

  @property
  def hidden(self) -> tuple[int, ...]:
    """See base class; of the policy as of each critic."""
    policy = self.kernels[: len(self.kernels) // 3]
    return tuple(shape[-1] for shape in policy[:-1])


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnPolicy(Hyperparameters):
  """What all have that learn from rollouts; an update is a gradient step.

  Attributes:
    rollout: agent steps of a rollout, of all environments.
    num_epochs: passes over a rollout.
    max_norm: what gradients are clipped to.
  """

  rollout: int
  num_epochs: int
  max_norm: float

  @property
  def num_minibatches(self) -> int:
    """Gradient steps of a pass."""
    return self.rollout // self.batch_size

  def updates(self, steps: int) -> float:
    """See base class."""
    return steps // self.rollout * self.updates_at_once

  @property
  def updates_at_once(self) -> int:
    """See base class."""
    return self.num_epochs * self.num_minibatches


@dataclasses.dataclass(frozen=True, kw_only=True)
class PPO(OnPolicy):
  """PPO's.

  Attributes:
    gae_lambda: how far advantages look ahead.
    clip: of the ratio of probabilities.
    value_clip: how far a value may move, None for anywhere.
    value_weight: of the squared error.
    entropy_weight: of the entropy.
  """

  gae_lambda: float
  clip: float
  value_clip: float | None = None
  value_weight: float
  entropy_weight: float

  @property
  def hidden(self) -> tuple[int, ...]:
    """See base class; of the policy as of the value."""
    policy = self.kernels[: len(self.kernels) // 2]
    return tuple(shape[-1] for shape in policy[:-1])


@dataclasses.dataclass(frozen=True, kw_only=True)
class NativePPO(PPO):
  """PPO's, on an environment in JAX.

  Attributes:
    package: 'gymnax', 'brax' or 'playground'.
    environment: its name for the environment.
    backend: by what brax computes; '' elsewhere.
    normalize_observations: whether by their running mean and deviation.
  """

  package: str
  environment: str
  backend: str = ''
  normalize_observations: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class PQN(OnPolicy):
  """PQN's; its layers are normalized.

  Attributes:
    q_lambda: how far returns look ahead.
    epsilon: of epsilon-greedy acting, constant.
    package: 'gymnax', or 'atari'.
    environment: its name for the environment.
  """

  q_lambda: float
  epsilon: float
  package: str
  environment: str

  @property
  def hidden(self) -> tuple[int, ...]:
    """See base class."""
    return tuple(shape[-1] for shape in self.kernels[:-1])
