"""SPR: Rainbow whose encoder predicts its own future outputs.

Schwarzer et al. (2021), Data-Efficient Reinforcement Learning with
Self-Predictive Representations. https://arxiv.org/abs/2007.05929

Differs from the paper, as Dopamine's does:
1. Value and advantages share the hidden layer, which is the projection too.
2. The exponent of the importance weights does not change.
3. There is no dropout.
4. Squared distances of the K predictions are averaged, where the paper sums
   negative cosines: a weight of 5 is its lambda of 2, with K = 5.

Differs from Dopamine's code:
5. A prediction counts as long as the episode went on before what it predicts.
   There it takes one step more, and the first of a batch is never masked.
6. A target is n rewards and the value n steps on, and an end at the n-th step
   is one. There that is none; in the newest version a target has the first
   reward alone, and the value of one step earlier.
7. Predictions go through the noisy projection; there through its means. The
   predictor begins Xavier-uniform; there as Flax's layers do.
8. Images shift by each offset alike; there never by the last one.
"""

import jax
import jax.numpy as jnp
import optax

from dopamine_jax import errors
from dopamine_jax import networks
from dopamine_jax import spaces
from dopamine_jax import values
from dopamine_jax.agents import full_rainbow
from dopamine_jax.learning import outputs as outputs_lib  # also a name here
from dopamine_jax.networks import heads
from dopamine_jax.networks import modules
from dopamine_jax.networks import predictive


class SPR(full_rainbow.FullRainbow):
  """Rainbow, and the prediction of what comes in `prediction_steps` steps.

  Attributes:
    network: a Flax module like `predictive.SPRNetwork`.
    prediction_steps: how far ahead it predicts (the paper's K).
    prediction_weight: of that loss.
  """

  network: modules.Maker = predictive.SPRNetwork
  epsilon: float | optax.Schedule | None = values.call(
    optax.linear_schedule, 1.0, 0.0, 2_001, transition_begin=2_000
  )
  target_update_period: int | None = None
  prediction_steps: int = 5
  prediction_weight: float = 5.0

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(1, 'prediction_steps')
    self.require_at_least(0, 'prediction_weight')
    if type(self).losses is not full_rainbow.FullRainbow.losses:
      raise errors.UserError(
        f'{type(self).__name__}.losses is never called: SPR learns by '
        '`losses_of`, which gets the outputs. Override that.'
      )
    if spaces.is_tree(self.observation_space):
      self.refuse(
        'observation_space',
        'does not fit: SPR predicts what one encoder gives. Choose an '
        'environment whose observations are a Box, or join their parts',
      )

  @property
  def steps_ahead(self) -> int:
    """Steps that come with each transition; see the base class."""
    return self.prediction_steps

  def update(self, state, sample, key):
    """Takes one gradient step; see `Agent.update`."""
    batch = sample.transition
    actions = jax.nn.one_hot(batch.actions.T, int(self.action_space.n))
    targets = self.targets(state.target_params, batch.observations)

    def loss_fn(params):
      outputs, predicted = networks.apply(
        self.module,
        params,
        batch.observation,
        actions,
        key=key,
        method='predict',
      )
      given = outputs, params, state.target_params, batch, key
      losses, metrics = outputs_lib.require_losses(
        self, self.losses_of(*given), batch.reward
      )
      distances = prediction_losses(predicted, targets, batch.same_episode.T)
      total = losses + self.prediction_weight * distances
      metrics['PredictionLoss'] = jnp.mean(distances)
      return jnp.mean(sample.weight * total), (losses, metrics)

    state, (losses, seen), metrics = self.descend(state, loss_fn, key)
    return state, metrics | seen, self.priorities(losses)

  def targets(self, target_params, observations) -> jax.Array:
    """Returns projections [K, B, units] of observations [B, K, ...]."""
    ahead = jnp.moveaxis(observations, 1, 0)
    flat = ahead.reshape(-1, *ahead.shape[2:])
    projected = networks.apply(
      self.module,
      heads.without_noise(target_params),
      flat,
      method='project_seen',
    )
    return projected.reshape(*ahead.shape[:2], -1)

  def priorities(self, losses) -> jax.Array:
    """Returns priorities [B], of the losses [B] of values alone."""
    return jnp.sqrt(losses)


def prediction_losses(predicted, targets, same_episode) -> jax.Array:
  """Returns the mean squared distances [B] of normalized vectors.

  Args:
    predicted: [K, B, D].
    targets: [K, B, D]; no gradient reaches them.
    same_episode: [K, B], 0 where a prediction has no target.
  """
  one, other = map(_normalized, (predicted, jax.lax.stop_gradient(targets)))
  distances = jnp.sum(jnp.square(one - other), axis=-1)
  return jnp.mean(distances * same_episode, axis=0)


def _normalized(x):
  """Returns vectors of length 1; a gradient of zero where all is zero."""
  square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
  return x / jnp.sqrt(jnp.maximum(square, 1e-10))
