"""Atari 2600 games through ALE's vector environment, which is written in C++.

Marlos C. Machado et al. (2018). Revisiting the Arcade Learning Environment:
Evaluation Protocols and Open Problems for General Agents.
https://arxiv.org/abs/1709.06009

ale-py is GPL-2.0 and therefore an extra, imported when a game is made. What it
does is not always what the protocol means, so the adapter does four things by
itself:

1. The time limit. At ALE's own (`max_num_frames_per_episode`) the last
   observation is not the last frame: ALE stops before it has read it and
   pools what it has with the step before. A truncated episode is bootstrapped
   from that observation, so the adapter counts the steps and restarts the
   game, as Dopamine does.
2. The loss of a life. ALE's `episodic_life` restarts the game with each life;
   its `life_loss_info` lets the game go on, which is Dopamine's meaning, but
   then `terminated` no longer says whether a new game began. The adapter
   compares the lives that ALE reports.
3. The next game. ALE would begin it at the step that follows, whose action is
   lost, or at once, when programs (`atari_stepper`) don't get the last frame.
   The adapter has it begun at once, after it has that frame.
4. Actions out of range. ALE's worker thread throws, and the caller waits for
   its result forever.
"""

from collections.abc import Callable, Sequence
import difflib
from typing import Any

import gymnasium
import numpy as np

from dopamine_jax import errors
from dopamine_jax.environments import atari_stepper
from dopamine_jax.environments import base
from dopamine_jax.environments import counts
from dopamine_jax.environments import steppers

# A frame limit that no episode reaches; ALE adds to it, so not the largest.
_NEVER = 2**30


class Atari(base.Environment):
  """An Atari game under Dopamine's protocol, unless set otherwise.

  One observation is one frame, uint8 [height, width], or [height, width, 3] in
  colour.

  Attributes:
    game: A game's name, as 'MontezumaRevenge' or 'montezuma_revenge'.
    sticky_actions: The probability of repeating the last action, each frame.
    noop_max: Above 0, an episode begins with a random number of no-ops, fewer
      than this (ALE draws from 0 to noop_max - 1).
    fire_reset: Whether a game that has FIRE begins with it.
    terminate_on_life_loss: Whether an episode ends with each life. The game
      goes on, under the same time limit, and both observations of that time
      step are its current frame. Returns in metrics are then those of a life,
      and `Train/GameReturn` and `Eval/GameReturn` those of whole games.
    forget_on_life_loss: Whether what agents see begins anew with each life,
      without the frames and the memory of the one before, although the episode
      goes on. For evaluations of what was trained with `terminate_on_life_loss`
      and never saw such frames.
    full_action_set: All 18 actions, instead of those that the game uses.
    continuous: Whether actions are those of a joystick, as of CALE: how far it
      is pushed, in which direction, and the button (Farebrother & Castro, 2024,
      https://arxiv.org/abs/2410.23810). Agents give each in [-1, 1]: from the
      middle to the rim; from left once around to left; released to pressed.
    continuous_threshold: What a push to one side and the button must exceed to
      count, of 1.
    frame_skip: Frames of an agent step.
    max_pool: Whether an observation is the maximum over the last two frames.
    grayscale: Whether frames are gray.
    size: Height and width of the observation; one number for a square.
    stack: Frames in the agent's observation; delivered one by one.
    max_steps_per_episode: Agent steps; 27,000 are 108,000 frames, or half an
      hour of play.
    reward_clip: Learning sees rewards clipped to [-reward_clip, reward_clip].
    num_threads: Threads that step the games; 0 for as many as there are cores,
      if there are as many games.
  """

  game: str = 'Pong'
  sticky_actions: float = 0.25
  noop_max: int = 0
  fire_reset: bool = False
  terminate_on_life_loss: bool = False
  forget_on_life_loss: bool = False
  full_action_set: bool = False
  continuous: bool = False
  continuous_threshold: float = 0.5
  frame_skip: int = 4
  max_pool: bool = True
  grayscale: bool = True
  size: int | tuple[int, int] = 84
  stack: int = 4
  max_steps_per_episode: int | None = 27_000
  reward_clip: float | None = 1.0
  num_threads: int = 0

  def __post_init__(self):
    """Raises UserError for settings that can't work."""
    super().__post_init__()
    self.require_at_least(0, 'noop_max', 'num_threads')
    self.require_at_least(1, 'frame_skip')
    self.require_fraction('sticky_actions', 'continuous_threshold')
    if self.continuous and self.full_action_set:
      self.refuse('full_action_set', 'has no meaning if continuous = True')
    if not self.continuous and self.continuous_threshold != 0.5:
      self.refuse(
        'continuous_threshold', 'has no meaning without continuous = True'
      )
    if self.forget_on_life_loss and self.terminate_on_life_loss:
      self.refuse(
        'forget_on_life_loss',
        'has no effect with terminate_on_life_loss = True: episodes end there',
      )
    size = _height_and_width(self.size)
    if len(size) != 2 or any(type(n) is not int or n < 1 for n in size):
      self.refuse('size', 'must be one number of pixels or (height, width)')

  @property
  def only_for_evaluations(self) -> str | None:
    """See the base class: replays would stack frames of two lives."""
    return 'forget_on_life_loss' if self.forget_on_life_loss else None

  def make(self, num_envs: int, render: bool = False) -> 'AtariVector':
    """Makes the environments; see `base.Environment.make`."""
    counts.check_num_envs(num_envs)
    return AtariVector(self, num_envs, render)


class Atari100k(Atari):
  """An Atari game as Atari 100k has it, for 100,000 agent steps.

  Kaiser et al. (2019), Model-Based Reinforcement Learning for Atari.
  https://arxiv.org/abs/1903.00374

  No sticky actions, up to 29 no-ops at the start of a game, and for learning a
  lost life is a termination. Scores are of whole games: for evaluations set
  `terminate_on_life_loss = False` and, as the published agents see each life as
  a beginning there, too, `forget_on_life_loss = True`.
  """

  sticky_actions: float = 0.0
  noop_max: int = 30
  terminate_on_life_loss: bool = True


class AtariVector(base.VectorEnvironment):
  """Copies of one Atari game in lockstep, with autoreset within the step."""

  def __init__(self, settings: Atari, num_envs: int, render: bool):
    """Makes the games.

    Args:
      settings: What to make.
      num_envs: How many.
      render: Whether to keep a picture of the first one.

    Raises:
      UserError: If ale-py is missing or doesn't know the game.
    """
    try:
      import ale_py
    except ImportError as error:
      raise errors.UserError(
        f'Atari games need ale-py: {errors.install("atari")}'
      ) from error
    game = _find_game(settings)
    height, width = _height_and_width(settings.size)
    self._vector = _make_vector(
      settings, game, num_envs, height, width, settings.grayscale
    )
    self._screen = None
    if render:
      # The games keep small gray frames only. A second copy of the first game,
      # with the same seed and actions, shows the same moments in full colour.
      console = ale_py.ALEInterface()
      console.loadROM(ale_py.roms.get_rom_path(game))
      height, width = console.getScreenDims()
      actions = console.getMinimalActionSet()
      if settings.full_action_set:
        actions = console.getLegalActionSet()
      if not settings.continuous:
        self.action_names = [action.name for action in actions]
      self._screen = _make_vector(settings, game, 1, height, width, False)
    self._image = None
    self.name = f'Atari {settings.game}'
    self.num_envs = num_envs
    self.frames_per_second = 60 / settings.frame_skip  # the console draws 60
    self.action_space = base.space_of_agents(self._vector.single_action_space)
    self._actions = base.Actions(self._vector.single_action_space)
    self._is_continuous = settings.continuous
    self.observation_space = gymnasium.spaces.Box(
      0, 255, self._vector.single_observation_space.shape[1:], np.uint8
    )
    self._terminate_on_life_loss = settings.terminate_on_life_loss
    self._forget_on_life_loss = settings.forget_on_life_loss
    self._max_steps = settings.max_steps_per_episode or _NEVER
    self._steps = np.zeros(num_envs, np.int64)  # in the running games
    self._lives = np.zeros(num_envs, np.int32)
    # An episode is a life then, and whole games are told beside.
    if settings.terminate_on_life_loss:
      self.told_names = ('GameReturn',)
    self._returns = np.zeros(num_envs, np.float32)  # of the running games

  def stepper(self, vectorize: Callable[[Any], Any]) -> steppers.Stepper:
    """See `VectorEnvironment.stepper`."""
    del vectorize  # ALE knows of no seeds' axis
    return atari_stepper.AtariStepper(
      self._vector,
      self._max_steps,
      self._terminate_on_life_loss,
      self.told_names,
    )

  def reset(self, seeds: Sequence[int]) -> np.ndarray:
    """Restarts and seeds every game; see the base class."""
    seeds = np.asarray(counts.check_seeds(seeds, self.num_envs))
    frames, info = self._vector.reset(seed=seeds)
    self._steps[:] = self._returns[:] = 0
    self._lives = info['lives']
    if self._screen:
      self._image = self._screen.reset(seed=seeds[:1])[0]
    return frames[:, 0]

  def step(self, actions: np.ndarray) -> base.TimeStep:
    """Steps every game; see the base class.

    Args:
      actions: Integers [N], indices into the game's action set; with
        `continuous` floats [N, 3] in [-1, 1].

    Returns:
      The time step.

    Raises:
      UserError: For an action that the game doesn't have.
    """
    actions = np.asarray(actions)
    base.check_actions(self.action_space, actions)
    if self._is_continuous:
      actions = self._actions(actions)
    # ALE gives new arrays at each step, so none of them needs a copy.
    frames, reward, game_over, _, info = self._vector.step(actions)
    if self._screen:
      self._image = self._screen.step(actions[:1])[0]
    self._steps += 1
    truncated = self._steps >= self._max_steps
    terminated = game_over
    lost = info['lives'] < self._lives
    if self._terminate_on_life_loss:
      terminated = game_over | lost
    if self._forget_on_life_loss:
      self.begins_anew = lost

    successors = frames
    ended = game_over | truncated
    if ended.any():
      frames, info = self._vector.reset(options={'reset_mask': ended})
      if self._screen and ended[0]:
        self._image = self._screen.reset()[0]
    if self.told_names:
      self._returns += reward
      self.told = {'GameReturn': np.where(ended, self._returns, np.nan)}
      self._returns[ended] = 0
    self._steps[ended] = 0
    self._lives = info['lives']
    return base.TimeStep(
      observation=frames[:, 0],
      reward=reward.astype(np.float32),
      terminated=terminated,
      truncated=truncated,
      next_observation=successors[:, 0],
    )

  def render(self) -> np.ndarray:
    """Returns game 0 as an image of the console's size; see the base class."""
    if self._image is None:
      raise RuntimeError('Call reset first, on games made with render=True.')
    return self._image[0, 0]

  def close(self) -> None:
    """Closes the games."""
    self._vector.close()
    if self._screen:
      self._screen.close()


def _make_vector(
  settings: Atari,
  game: str,
  num_envs: int,
  height: int,
  width: int,
  grayscale: bool,
) -> Any:
  from ale_py import vector_env

  return vector_env.AtariVectorEnv(
    game,
    num_envs,
    num_threads=settings.num_threads,
    max_num_frames_per_episode=_NEVER,
    repeat_action_probability=settings.sticky_actions,
    full_action_space=settings.full_action_set,
    continuous=settings.continuous,
    continuous_action_threshold=settings.continuous_threshold,
    # Games that ended are reset at once, and none is left for ALE to reset.
    autoreset_mode=gymnasium.vector.AutoresetMode.NEXT_STEP,
    img_height=height,
    img_width=width,
    grayscale=grayscale,
    stack_num=1,
    frameskip=settings.frame_skip,
    maxpool=settings.max_pool,
    noop_max=settings.noop_max,
    episodic_life=False,
    life_loss_info=False,
    reward_clipping=False,
    use_fire_reset=settings.fire_reset,
  )


def _height_and_width(size: int | Sequence[int]) -> tuple[int, ...]:
  return tuple(size) if isinstance(size, Sequence) else (size, size)


def _find_game(settings: Atari) -> str:
  """Returns ALE's name of a game, however its words were joined.

  ALE's registry is the list of what can be played: ALE also brings games for
  two players only, and ends the process when asked for one.
  """
  games = {
    spec.kwargs['game'].replace('_', ''): spec.kwargs['game']
    for spec in gymnasium.registry.values()
    if spec.id.startswith('ALE/')
  }
  plain = settings.game.replace('_', '').lower()
  if plain in games:
    return games[plain]
  near = difflib.get_close_matches(plain, games, n=3)
  names = [games[match].title().replace('_', '') for match in near]
  hint = (
    f'Did you mean {" or ".join(names)}?'
    if near
    else ("Games are named as in 'Pong' or 'MontezumaRevenge'.")
  )
  raise errors.UserError(
    f'{type(settings).__name__}.game = {settings.game!r}: no such game. {hint}'
  )
