"""Tandem DQN: a second network that learns from what the first one sees.

Ostrovski, Castro & Dabney (2021), The Difficulty of Passive Learning in Deep
Reinforcement Learning. https://arxiv.org/abs/2110.14020

Both learn by double Q-learning from the same batches, and only the active one
acts in training. What the passive one lacks is experience of its own.
"""

from typing import Literal

import jax

from dopamine_jax.agents import double_dqn
from dopamine_jax.agents import dqn


class TandemState(dqn.DQNState):
  """What learning changes; the fields of `DQNState` are the active network's.

  Attributes:
    passive: DQNState of the other network.
  """

  passive: dqn.DQNState


class TandemDQN(double_dqn.DoubleDQN):
  """Double DQN of two networks, one of which only looks on.

  Attributes:
    evaluated: which of the two evaluations, films and exports show.
  """

  evaluated: Literal['active', 'passive'] = 'passive'

  def init(self, key, observation) -> TandemState:
    """Returns two networks, each of its own draws; see `Agent.init`."""
    active = super().init(key, observation)
    passive = super().init(jax.random.fold_in(key, 2), observation)
    return TandemState(**vars(active), passive=passive)

  def update(self, state, sample, key):
    """Takes a gradient step of each; priorities are the active one's."""
    active = dqn.DQNState(
      **{name: getattr(state, name) for name in vars(state.passive)}
    )
    active, metrics, priorities = super().update(active, sample, key)
    passive_key = jax.random.fold_in(key, 3)
    passive, others, _ = super().update(state.passive, sample, passive_key)
    metrics |= {f'Passive{name}': value for name, value in others.items()}
    return TandemState(**vars(active), passive=passive), metrics, priorities

  def act(self, state, observation, step, key, *, explore):
    """Acts epsilon-greedily by one of the two; see `Agent.act`."""
    state = state if explore else self._evaluated(state)
    return super().act(state, observation, step, key, explore=explore)

  def outlook(self, state, observation, key):
    """Returns what films show; see `Agent.outlook`."""
    return super().outlook(self._evaluated(state), observation, key)

  def anatomy(self, state):
    """Returns both networks, for `health`; see `Agent.anatomy`."""
    return {
      'Active': super().anatomy(state)[''],
      'Passive': super().anatomy(state.passive)[''],
    }

  def _evaluated(self, state):
    return state.passive if self.evaluated == 'passive' else state
