"""Callbacks that give parts of an agent a new beginning.

Names are those of arrays in the agent's state, joined by dots, such as
`params.Dense_1.kernel` or `optimizer_state.0.mu.Dense_1.kernel`. A pattern fits
a name or its end after any dot, and `*` stands for anything: `Dense_1.*` is
every layer of that name, in parameters, target network and the optimizer's
moments, and `params.Dense_1.*` the one of the network itself. A pattern that
begins with a dot fits whole names alone: of a tandem, `.params.*` is the active
network's, `passive.params.*` the other's. Of SAC, whose target network is the
critics', `critics.*` goes with `target_params.*`.
What a network keeps beside its parameters, such as running statistics, has
names with `collections`: `params.collections.batch_stats.BatchNorm_0.mean`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from dopamine_jax import annotations
from dopamine_jax.callbacks import base
from dopamine_jax.checkpoints import state_arrays

# What is taken where a callback names nothing.
ALL = ('*params.*', 'optimizer_state.*')


class Periodic(base.Callback):
  """A change of the agent each few iterations.

  Attributes:
    period: iterations from one change to the next.
    last_iteration: after which none follows, so that the agent can recover;
      None: none is the last.
  """

  period: int
  last_iteration: int | None = None

  def __post_init__(self):
    super().__post_init__()
    self.require_at_least(1, 'period', 'last_iteration')
    if self.last_iteration is not None and self.last_iteration < self.period:
      self.refuse(
        'last_iteration',
        f'is before the first change, after iteration {self.period}: there '
        'would be none. Make the period shorter, or leave it out',
      )

  def why_idle(self, runner, engine):
    """Tells of a run that ends before the first change."""
    del engine
    if self.period < runner.num_iterations:
      return ''
    return (
      f'its first change is due when iteration {self.period + 1} begins, and '
      f'runner.Runner.num_iterations = {runner.num_iterations}'
    )

  def after_iteration(self, seen, own):
    """Asks for a change if one is due; see `Callback.after_iteration`."""
    last = self.last_iteration
    is_over = last is not None and seen.iteration > last
    return base.Decision(
      own, change=seen.iteration % self.period == 0 and not is_over
    )


class Reset(Periodic):
  """Gives named layers the values of a new agent: Nikishin et al. (2022).

  The Primacy Bias in Deep Reinforcement Learning.
  https://arxiv.org/abs/2205.07802

  The optimizer's moments of what is reset are reset too, if the names fit them.
  Its counts are not, unless a pattern names the optimizer
  (`optimizer_state.*`) or fits nothing else: schedules go on, and Adam's first
  hundred steps of new moments are three to six and a half times as long.

  An agent of DQN's family counts its `updates`. Where that is named, the
  replay's schedules (`gamma`, `annealed_n_step`) begin anew, too, and so does
  the time to the next copy of a target network.

  Attributes:
    names: patterns of names, see `resets`; none: all networks, target networks
      among them, and the optimizer's state.
    separate_targets: whether a target network is drawn by itself; otherwise it
      gets what the network gets.
  """

  names: Sequence[str] = ()
  separate_targets: bool = False

  def change(self, view, own, key):
    """Resets one seed; see `Callback.change`."""
    del own
    return _mixed(self, view, key, lambda old, new: new, of_statistics=True)


class ShrinkAndPerturb(Periodic):
  """Moves parameters towards those of a new agent: Ash & Adams (2020).

  On Warm-Starting Neural Network Training. https://arxiv.org/abs/1910.08475
  Resets of this kind in reinforcement learning: D'Oro et al. (2023),
  Sample-Efficient Reinforcement Learning by Breaking the Replay Ratio Barrier.

  A parameter becomes `shrink * old + perturb * new`. Of an optimizer's state
  (names with `optimizer`), what is named begins anew, its counts as with
  `Reset`. Statistics (names with `collections`) stay as they are.

  Attributes:
    shrink: the factor of the old parameters.
    perturb: the factor of newly drawn ones.
    names: patterns of names, see `resets`; none: all networks, target networks
      among them, and the optimizer's state.
    separate_targets: whether a target network is moved to parameters of its
      own; otherwise to those that the network is moved to.
  """

  shrink: float = 0.5
  perturb: float = 0.5
  names: Sequence[str] = ()
  separate_targets: bool = False

  def __post_init__(self):
    super().__post_init__()
    self.require_fraction('shrink', 'perturb')

  def change(self, view, own, key):
    """Shrinks and perturbs one seed; see `Callback.change`."""
    del own
    return _mixed(
      self,
      view,
      key,
      lambda old, new: self.shrink * old + self.perturb * new,
      of_statistics=False,
    )


def _mixed(
  owner: Any,
  view: Any,
  key: jax.Array,
  mix: Callable[[jax.Array, jax.Array], jax.Array],
  of_statistics: bool,
) -> Any:
  """Returns an agent's state, what is named mixed with that of a new agent."""
  old = view.state.agent
  named = [
    name
    for name in state_arrays.named(old)
    if of_statistics or not _is_statistic(name)
  ]
  seen = view.state.experience.observation
  new = view.loop.agent.init(key, seen)

  def is_of_target(name):
    return 'target_params' in name.split('.')

  new_target = new
  if owner.separate_targets:
    if not any(map(is_of_target, named)):
      owner.refuse(
        'separate_targets', 'is of agents with a target network; leave it out'
      )
    if not any(
      is_of_target(name) and state_arrays.fits(name, owner.names or ALL)
      for name in named
    ):
      owner.refuse(
        'separate_targets',
        f'has no effect: names = {owner.names} fit nothing of a target '
        "network. Name that too, as 'target_params.*', or leave it out",
      )
    new_target = view.loop.agent.init(jax.random.fold_in(key, 1), seen)
  setting = f'{annotations.full_name(type(owner))}.names'
  state_arrays.require_fits(setting, owner.names, named)

  patterns = owner.names or ALL
  others = [name for name in named if 'optimizer' not in name]
  of_counts = [
    pattern
    for pattern in patterns
    if 'optimizer' in pattern
    or pattern in ('*', '.*')
    or not any(state_arrays.fits(name, [pattern]) for name in others)
  ]

  def each(path, old, new, new_target):
    name = state_arrays.path_name(path)
    new = new_target if is_of_target(name) else new
    is_number = jnp.issubdtype(old.dtype, jnp.floating)
    is_count = 'optimizer' in name and not is_number
    fitting = of_counts if is_count else patterns
    skipped = _is_statistic(name) and not of_statistics
    if skipped or not state_arrays.fits(name, fitting):
      return old
    if 'optimizer' in name or not is_number:
      return new
    return mix(old, new).astype(old.dtype)

  return jax.tree_util.tree_map_with_path(each, old, new, new_target)


def _is_statistic(name):
  """Whether a network keeps it beside its parameters; see `variables`."""
  return 'collections' in name.split('.')
