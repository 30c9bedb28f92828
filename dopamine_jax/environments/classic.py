"""Classic control in JAX: CartPole, Acrobot, MountainCar and Pendulum.

From the same state and action each step equals that of Gymnasium's environment
of the same name, up to rounding: states are float32 here and float64 there. The
distribution of first states and the time limits are Gymnasium's, too.
"""

from collections.abc import Sequence
import functools

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from dopamine_jax.environments import native


class _Classic(native.Native):
  """What the four share: each is drawn by Gymnasium's environment.

  Attributes:
    gymnasium_id: of the environment that this one equals.
  """

  gymnasium_id = ''  # no setting: it has no type

  def image(self, state: jax.Array) -> np.ndarray:
    """Returns a state as Gymnasium draws it; see the base class."""
    env = _drawing_env(self.gymnasium_id)
    env.unwrapped.state = np.asarray(state)
    return env.render()


class CartPole(_Classic):
  """A pole on a cart is kept upright by pushing the cart left or right.

  Barto, Sutton & Anderson (1983), Neuronlike adaptive elements that can solve
  difficult learning control problems. https://doi.org/10.1109/TSMC.1983.6313077

  CartPole-v1. Observation and state are [4]: the cart's position (m) and
  velocity (m/s), the pole's angle (rad) and angular velocity (rad/s). Each step
  of 0.02 s gives a reward of 1, the last one too.
  """

  max_steps_per_episode: int | None = 500

  gymnasium_id = 'CartPole-v1'
  frames_per_second = 50

  @property
  def observation_space(self) -> gymnasium.spaces.Box:
    """See the base class."""
    return _symmetric_box(2 * _MAX_X, np.inf, 2 * _MAX_ANGLE, np.inf)

  @property
  def action_space(self) -> gymnasium.spaces.Discrete:
    """Left, right."""
    return gymnasium.spaces.Discrete(2)

  def reset(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Begins near the middle, almost upright and almost at rest."""
    state = jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)
    return state, state

  def step(
    self, state: jax.Array, action: jax.Array, key: jax.Array
  ) -> native.Outcome:
    """Moves on by 0.02 s, an Euler step; see the base class."""
    del key
    _, velocity, angle, spin = state
    force = jnp.where(action == 1, 10.0, -10.0)  # N
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    mass, pole_mass, half_length = 1.1, 0.1, 0.5  # kg in all, kg, m
    push = (force + pole_mass * half_length * spin**2 * sin) / mass
    spin_rate = (_GRAVITY * sin - cos * push) / (
      half_length * (4 / 3 - pole_mass * cos**2 / mass)
    )
    acceleration = push - pole_mass * half_length * spin_rate * cos / mass
    rates = jnp.stack([velocity, acceleration, spin, spin_rate])
    state = state + 0.02 * rates
    fallen = (jnp.abs(state[0]) > _MAX_X) | (jnp.abs(state[2]) > _MAX_ANGLE)
    return native.Outcome(state, state, 1.0, fallen)


class Acrobot(_Classic):
  """Two hanging links swing up by a torque between them.

  Sutton (1996), Generalization in reinforcement learning: successful examples
  using sparse coarse coding; with the equations of Sutton & Barto (2018),
  Reinforcement Learning, section 11.3 of the first edition.
  https://proceedings.neurips.cc/paper/1995/hash/8f1d43620bc6bb580df6e80b0dc05c48-Abstract.html

  Acrobot-v1. The state [4] is the first link's angle to straight down, the
  second's to the first (rad, in [-pi, pi]), and how fast they change (rad/s).
  The observation [6] has cosine and sine of each angle instead. Each step of
  0.2 s gives -1, but the one that lifts the tip above the bar's height gives 0.
  """

  max_steps_per_episode: int | None = 500

  gymnasium_id = 'Acrobot-v1'
  frames_per_second = 15

  @property
  def observation_space(self) -> gymnasium.spaces.Box:
    """See the base class."""
    return _symmetric_box(1, 1, 1, 1, *_MAX_SPINS)

  @property
  def action_space(self) -> gymnasium.spaces.Discrete:
    """A torque of -1, 0 or 1 N m."""
    return gymnasium.spaces.Discrete(3)

  def reset(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Begins hanging down, almost at rest."""
    state = jax.random.uniform(key, (4,), minval=-0.1, maxval=0.1)
    return state, _acrobot_observation(state)

  def step(
    self, state: jax.Array, action: jax.Array, key: jax.Array
  ) -> native.Outcome:
    """Moves on by 0.2 s, one step of fourth-order Runge and Kutta."""
    del key
    rates = functools.partial(
      _acrobot_rates, torque=(action - 1).astype(jnp.float32)
    )
    k1 = rates(state)
    k2 = rates(state + 0.1 * k1)
    k3 = rates(state + 0.1 * k2)
    k4 = rates(state + 0.2 * k3)
    state = state + 0.2 / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    spins = np.array(_MAX_SPINS, np.float32)
    state = jnp.concatenate(
      [_wrapped(state[:2]), jnp.clip(state[2:], -spins, spins)]
    )
    height = -jnp.cos(state[0]) - jnp.cos(state[0] + state[1])
    up = height > 1.0
    reward = jnp.where(up, 0.0, -1.0)
    return native.Outcome(state, _acrobot_observation(state), reward, up)


class MountainCar(_Classic):
  """A car too weak for the hill swings itself up out of a valley.

  Moore (1990), Efficient memory-based learning for robot control; as in Sutton
  & Barto (2018), Reinforcement Learning, example 10.1.
  http://incompleteideas.net/book/the-book-2nd.html

  MountainCar-v0. Observation and state are [2], position and velocity. Each
  step gives -1, until the position is 0.5.
  """

  max_steps_per_episode: int | None = 200

  gymnasium_id = 'MountainCar-v0'

  @property
  def observation_space(self) -> gymnasium.spaces.Box:
    """See the base class."""
    return gymnasium.spaces.Box(
      np.array([-1.2, -0.07], np.float32), np.array([0.6, 0.07], np.float32)
    )

  @property
  def action_space(self) -> gymnasium.spaces.Discrete:
    """Back, nothing, forward."""
    return gymnasium.spaces.Discrete(3)

  def reset(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Begins at rest near the bottom of the valley, which is at -pi / 6."""
    position = jax.random.uniform(key, minval=-0.6, maxval=-0.4)
    state = jnp.stack([position, jnp.zeros_like(position)])
    return state, state

  def step(
    self, state: jax.Array, action: jax.Array, key: jax.Array
  ) -> native.Outcome:
    """Moves on by one unit of time; see the base class."""
    del key
    position, velocity = state
    velocity += 0.001 * (action - 1) - 0.0025 * jnp.cos(3 * position)
    velocity = jnp.clip(velocity, -0.07, 0.07)
    position = jnp.clip(position + velocity, -1.2, 0.6)
    # The left end is a wall, which takes the car's speed.
    velocity = jnp.where((position == -1.2) & (velocity < 0), 0.0, velocity)
    state = jnp.stack([position, velocity])
    arrived = (position >= 0.5) & (velocity >= 0)
    return native.Outcome(state, state, -1.0, arrived)


class Pendulum(_Classic):
  """A pendulum is swung up and held, by a torque too weak to lift it.

  Doya (2000), Reinforcement learning in continuous time and space, has a task
  like it. https://doi.org/10.1162/089976600300015961

  Pendulum-v1. The state [2] is the angle to straight up (rad, of any size) and
  the angular velocity (rad/s); the observation [3] is the angle's cosine and
  sine, and the angular velocity. The reward is minus a cost of angle, speed and
  torque, before the step of 0.05 s. Only the time limit ends an episode. Films
  lack the arrow by which Gymnasium shows the torque.
  """

  max_steps_per_episode: int | None = 200

  gymnasium_id = 'Pendulum-v1'

  @property
  def observation_space(self) -> gymnasium.spaces.Box:
    """See the base class."""
    return _symmetric_box(1, 1, 8)

  @property
  def action_space(self) -> gymnasium.spaces.Box:
    """A torque [1] in N m; what is outside is clipped."""
    return _symmetric_box(2)

  def reset(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Begins at any angle, with an angular velocity in [-1, 1)."""
    state = jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0)
    state = state * np.array([np.pi, 1.0], np.float32)
    return state, _pendulum_observation(state)

  def step(
    self, state: jax.Array, action: jax.Array, key: jax.Array
  ) -> native.Outcome:
    """Moves on by 0.05 s, a semi-implicit Euler step; see the base class."""
    del key
    angle, spin = state
    torque = jnp.clip(action[0], -2.0, 2.0)
    cost = _wrapped(angle) ** 2 + 0.1 * spin**2 + 0.001 * torque**2
    # A rod of 1 m and 1 kg, with a gravity of 10 m/s^2.
    spin = spin + 0.05 * (15.0 * jnp.sin(angle) + 3.0 * torque)
    spin = jnp.clip(spin, -8.0, 8.0)
    state = jnp.stack([angle + 0.05 * spin, spin])
    return native.Outcome(state, _pendulum_observation(state), -cost, False)


_GRAVITY = 9.8  # m/s^2
_MAX_X = 2.4  # m, of the cart
_MAX_ANGLE = 12 * 2 * np.pi / 360  # of the pole
_MAX_SPINS = (4 * np.pi, 9 * np.pi)  # of Acrobot's links


def _acrobot_rates(state, torque):
  """Returns how fast the state [4] changes.

  The links' masses, lengths and moments of inertia are all 1 and their centres
  of mass half-way, which makes the numbers below.
  """
  angle1, angle2, spin1, spin2 = state
  sin2, cos2 = jnp.sin(angle2), jnp.cos(angle2)
  d1 = 3.5 + cos2
  d2 = 1.25 + 0.5 * cos2
  phi2 = 0.5 * _GRAVITY * jnp.sin(angle1 + angle2)
  phi1 = (
    phi2
    + 1.5 * _GRAVITY * jnp.sin(angle1)
    - (0.5 * spin2 + spin1) * spin2 * sin2
  )
  ratio = d2 / d1
  rate2 = (torque + ratio * phi1 - 0.5 * spin1**2 * sin2 - phi2) / (
    1.25 - ratio * d2
  )
  rate1 = -(d2 * rate2 + phi1) / d1
  return jnp.stack([spin1, spin2, rate1, rate2])


def _acrobot_observation(state):
  cos, sin = jnp.cos(state[:2]), jnp.sin(state[:2])
  return jnp.stack([cos[0], sin[0], cos[1], sin[1], state[2], state[3]])


def _pendulum_observation(state):
  angle, spin = state
  return jnp.stack([jnp.cos(angle), jnp.sin(angle), spin])


def _wrapped(angle):
  """Returns the angle plus or minus whole turns, in [-pi, pi]."""
  return angle - 2 * np.pi * jnp.round(angle / (2 * np.pi))


def _symmetric_box(*high: Sequence[float]) -> gymnasium.spaces.Box:
  high = np.array(high, np.float32)
  return gymnasium.spaces.Box(-high, high)


@functools.cache
def _drawing_env(id: str) -> gymnasium.Env:
  env = gymnasium.make(id, render_mode='rgb_array')
  env.reset()
  return env
