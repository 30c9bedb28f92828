"""The compiled engine does what the Python engine does, in another way.

So most of what is expected here is what the Python engine gives for the same
environment, whose own tests say what that must be.
"""

import functools
from typing import NamedTuple

import hypothesis
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dopamine_jax import errors
from dopamine_jax import runner as runner_lib
from dopamine_jax.checkpoints import checkpoints
from dopamine_jax.engines import compiled
from dopamine_jax.engines import engine as engine_lib
from dopamine_jax.engines import loop
from dopamine_jax.engines import plain_engine
from dopamine_jax.engines import python_engine
from dopamine_jax.engines import stacking
from dopamine_jax.engines import streams
from dopamine_jax.environments import base
from dopamine_jax.metrics import base as metrics_base
from dopamine_jax.replay import ring
from tests import kept
from tests import walk
from tests.unit import engine_test

ENGINES = (python_engine.PythonEngine, compiled.CompiledEngine)
Spy, small_dqn = engine_test.Spy, engine_test.small_dqn
updates_after = engine_test.updates_after
SEEDS = (5, 6)
Spies = functools.partial(walk.Walk, num_actions=1_000)


def make_engine(
  environment,
  agent=Spy,
  *,
  engine=compiled.CompiledEngine,
  seeds=(0,),
  num_envs=1,
  check_finite=True,
  **kwargs,
):
  """Returns an engine before its first step; `kwargs` are the agent's."""
  environments = environment.make(len(seeds) * num_envs)
  agent = agent(
    observation_space=stacking.stacked_space(
      environments.observation_space, environment.stack
    ),
    action_space=environments.action_space,
    **kwargs,
  )
  engine = engine(
    loop.Loop(
      agent=agent,
      replay=agent.make_replay(environment.stack),
      reward_clip=environment.reward_clip,
      stack=environment.stack,
      num_envs=num_envs,
    ),
    environments,
    seeds,
    check_finite=check_finite,
  )
  engine.reset(env_seeds(engine, 0))
  engine.init()
  return engine


def env_seeds(engine, iteration):
  return streams.env_seeds(
    engine.seeds,
    streams.Stream.TRAIN,
    iteration,
    engine.loop.num_envs,
  )


def run(engine, num_steps, cut=None, on_step=lambda: None):
  """Runs; cuts at the end with the environment seeds of iteration `cut`."""
  cut_with = None if cut is None else env_seeds(engine, cut)
  return engine.run(num_steps, cut_with=cut_with, on_step=on_step)


def plain(tree):
  """Returns NumPy's arrays, and so what a training does not donate."""

  def convert(leaf):
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.array(jax.random.key_data(leaf) if is_key else leaf)

  return jax.tree.map(convert, tree)


def assert_equal(tree, other):
  jax.tree.map(np.testing.assert_array_equal, plain(tree), plain(other))


def assert_close(tree, other):
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
  jax.tree.map(close, plain(tree), plain(other))


# The same as the Python engine.


class Moment(NamedTuple):
  """What a run is like after a part of it."""

  metrics: dict[str, np.ndarray]
  steps: int
  finished: list[tuple[int, float, int]]
  first_frames: np.ndarray
  state: loop.TrainingState  # NumPy's arrays


WALK = walk.Walk(), small_dqn
# One update or two a step.
STACKS = Spies(stack=3, max_steps_per_episode=4), Spy


@functools.cache
def trained(what, engine, seeds, num_envs):
  """Returns the moments of a run, its first included."""
  one = make_engine(*what, engine=engine, seeds=seeds, num_envs=num_envs)

  def now(metrics):
    return Moment(
      *(metrics, one.steps, list(one.episodes.finished)),
      *(plain(one.first_frames), plain(one.state)),
    )

  found = [now({})]
  # Not aligned with updates, nor with the end of the warm-up, at 10 or 20.
  for steps, cut in [(6, None), (12, 1), (54, None), (18, 2), (72, 3)]:
    found.append(now(run(one, steps, cut)))
  return found


ALL = (plain_engine.PlainEngine, *ENGINES)


@pytest.mark.parametrize(
  ('what', 'seeds', 'num_envs', 'engines'),
  [
    (WALK, (5,), 1, ALL),
    # Each engine's seeds are compared with one alone, and STACKS has several.
    pytest.param(WALK, SEEDS, 1, ALL, marks=pytest.mark.slow),
    (STACKS, SEEDS, 6, ENGINES),
    # Of the plain engine's lanes and seeds `memory_test` sees the same, and of
    # its stacks `loop_test`.
    pytest.param(STACKS, SEEDS, 6, ALL, marks=pytest.mark.slow),
  ],
)
def test_all_engines_train_the_same(what, seeds, num_envs, engines):
  expected, *others = (
    trained(what, engine, seeds, num_envs) for engine in engines
  )
  for other in others:
    assert_equal(expected[0].state, other[0].state)
    for one, two in zip(expected, other, strict=True):
      assert_close(one.metrics, two.metrics)
      assert one.steps == two.steps
      assert one.finished == two.finished
      assert_equal(one.first_frames, two.first_frames)
      assert_equal(one.state.experience, two.state.experience)
      assert_close(one.state, two.state)
  assert expected[-1].state.updates.min() > 30
  assert len(expected[-1].finished) >= 20 * len(seeds)


# What is reported of a training is compared above, number by number, and its
# evaluations know of no engine.
@pytest.mark.slow
def test_a_run_reports_the_same_on_both_engines(tmp_path):
  reported = []
  for engine in ENGINES:
    recorder = kept.keep(engine_test.Recorder())
    runner = runner_lib.Runner(
      agent=Spy,
      environment=Spies(),
      engine=engine,
      num_iterations=3,
      training_steps=50,
      checkpoint_period=2,
      evaluation_episodes=3,
      collectors=[kept.newest],
    )
    folder = tmp_path / engine.__name__
    runner.train(folder, seed=5, num_seeds=2, quiet=True)
    assert checkpoints.Checkpoints(folder).iterations() == [2, 3]
    reported.append(recorder.values)
  python, xla = reported
  assert list(python) == list(xla)
  assert {seed for _, _, seed in xla} == set(SEEDS)
  for key, value in python.items():
    if metrics_base.is_timing(key[0]):
      assert xla[key] > 0
    else:
      np.testing.assert_allclose(xla[key], value, rtol=1e-4, err_msg=str(key))


@pytest.mark.parametrize('i', [0, 1])
def test_several_seeds_train_as_each_would_alone(i):
  for together, alone in zip(
    trained(WALK, compiled.CompiledEngine, SEEDS, 1),
    trained(WALK, compiled.CompiledEngine, SEEDS[i : i + 1], 1),
    strict=True,
  ):
    own = jax.tree.map(lambda leaf: leaf[i], together.state)
    assert_equal(own.experience, alone.state.experience)
    assert_close(own, alone.state)
    metrics = {k: v[i : i + 1] for k, v in together.metrics.items()}
    assert_close(metrics, alone.metrics)
    assert alone.finished == [
      (0, *rest) for lane, *rest in together.finished if lane == i
    ]


# Steps, updates and their order.


@pytest.mark.parametrize(
  ('num_envs', 'period', 'min_history'),
  [
    # Below, too, and between the others.
    pytest.param(1, 4, 10, marks=pytest.mark.slow),
    (3, 2, 10),
    pytest.param(3, 1, 10, marks=pytest.mark.slow),
    (1, 1, 1),
    (1, 50, 10),
  ],
)
def test_updates_depend_on_agent_steps_alone(num_envs, period, min_history):
  engine = make_engine(
    Spies(), num_envs=num_envs, update_period=period, min_history=min_history
  )
  due = functools.partial(
    updates_after, num_envs=num_envs, period=period, min_history=min_history
  )
  for steps in (24, 36, 60):
    run(engine, steps - engine.steps)
    assert engine.steps == engine.state.experience.agent_steps == steps
    assert engine.state.updates == engine.state.agent == due(steps)
  # An action shows the updates before it; it comes after the step's own.
  slots = plain(engine.state.experience.replay.slots)
  for lane in range(num_envs):
    actions = slots.action[lane][slots.status[lane] != ring.LAST]
    warm_up = -(-min_history // num_envs)
    np.testing.assert_array_equal(
      actions[warm_up : 60 // num_envs],
      [due(i) for i in range(warm_up * num_envs, 60, num_envs)],
    )


def test_without_an_update_there_are_no_metrics():
  assert run(make_engine(Spies()), 9) == {}


def test_the_warm_up_never_asks_the_agent():
  engine = make_engine(Spies(), engine_test.Deaf)
  run(engine, 9)
  with pytest.raises(errors.UserError, match='the agent was asked'):
    run(engine, 1)


def test_a_replay_that_was_not_restored_is_filled_before_learning_goes_on():
  engine = make_engine(Spies())
  run(engine, 20)
  learnt = int(engine.state.updates)
  engine.restore(engine.state, 20, began=20)
  run(engine, 9)
  assert engine.state.updates == learnt
  run(engine, 11)
  # After the steps 32, 36 and 40.
  assert engine.state.updates == learnt + 3


# Chunks.


def lengths(monkeypatch, length):
  """Makes every chunk this long, where nothing ends it before."""
  monkeypatch.setattr(compiled.Pace, 'length', length, raising=False)
  monkeypatch.setattr(compiled.Pace, '__init__', lambda self: None)
  monkeypatch.setattr(compiled.Pace, 'stop', lambda self, steps: None)


@pytest.mark.parametrize(
  'seeds',
  # One seed's chunks are those that `trained` was cut into.
  [pytest.param((5,), marks=pytest.mark.slow), SEEDS],
)
def test_a_run_does_not_depend_on_how_it_is_cut_into_chunks(monkeypatch, seeds):
  results = []
  lengths(monkeypatch, 1)
  engine = make_engine(walk.Walk(), small_dqn, seeds=seeds)
  for length in (1, 7, compiled.LONGEST):
    lengths(monkeypatch, length)
    engine.reset(env_seeds(engine, 0))
    engine.init()
    engine.episodes = engine_lib.Episodes(len(seeds))
    metrics = [run(engine, 50), run(engine, 30, cut=1), run(engine, 20)]
    results.append((plain(engine.state), metrics, engine.episodes.finished))
  for state, metrics, finished in results[1:]:
    assert_equal(state, results[0][0])
    assert_equal(metrics, results[0][1])
    assert finished == results[0][2]


def test_before_each_chunk_a_run_can_be_stopped(monkeypatch):
  lengths(monkeypatch, 8)
  engine = make_engine(Spies())
  seen = []

  def on_step():
    seen.append(engine.steps)
    if engine.steps >= 25:
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    run(engine, 1_000, on_step=on_step)
  # The warm-up ends after 9 steps, and a chunk with it.
  assert seen == [0, 8, 9, 17, 25]


def test_a_chunk_is_as_long_as_a_third_of_a_second_allows(monkeypatch):
  now = 0.0
  monkeypatch.setattr(compiled.time, 'perf_counter', lambda: now)
  pace = compiled.Pace()
  seen = []
  for seconds_a_step in [1e-3] * 12 + [1e-2] * 6 + [1e-6] * 12 + [9] * 14:
    seen.append(pace.length)
    pace.start()
    now += seconds_a_step * pace.length
    pace.stop(pace.length)
  assert seen[:12] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 256, 256, 256]
  assert seen[12:18] == [256, 128, 64, 32, 32, 32]
  assert seen[29] == compiled.LONGEST
  assert seen[-1] == 1
  # One that an iteration's end cut short says nothing.
  pace.length = 100
  pace.start()
  pace.stop(99)
  assert pace.length == 100


@pytest.mark.usefixtures('optimized')
def test_no_second_ring_is_held():
  capacity, fields = 200_000, 4 + 4 + 4 + 1 + 4 + 4  # bytes a slot
  agent = functools.partial(Spy, capacity=capacity)
  engine = make_engine(Spies(), agent, seeds=(0, 1))
  chunk = engine._chunk[loop.Behaviour.AGENT]
  carry = compiled.Carry(
    state=engine.state,
    metrics=engine._zero_metrics(engine.state),
    lanes=engine._lanes,
  )
  plan = compiled.Plan(
    num_steps=np.int32(1),
    updates_due=np.zeros(compiled.LONGEST, np.int32),
    cut_at=np.int32(-1),
    prepared=engine._prepared,
  )
  memory = chunk.lower(carry, plan).compile().memory_analysis()
  assert memory.alias_size_in_bytes >= 2 * capacity * fields
  assert memory.temp_size_in_bytes < capacity


# What is not finite.


def stops_at(engine, match):
  with pytest.raises(errors.UserError, match=match):
    run(engine, 40)


def test_training_stops_at_the_update_whose_metric_is_not_finite(monkeypatch):
  lengths(monkeypatch, 25)
  engine = make_engine(
    Spies(huge_above=-1.0, reward_clip=None), update_period=4
  )
  # Updates follow steps 12, 16 and 20.
  stops_at(engine, r'^Third is not finite.*agent step 20 of seed 0')
  assert engine.steps == engine.state.experience.agent_steps == 20
  assert engine.state.updates == 3


def test_the_check_for_what_is_not_finite_can_be_switched_off():
  engine = make_engine(
    Spies(huge_above=-1.0, reward_clip=None),
    update_period=4,
    check_finite=False,
  )
  assert np.isinf(run(engine, 40)['Third'])
  assert engine.state.updates == 8


def test_the_seed_whose_metric_is_not_finite_is_named():
  def make(huge_above):
    return make_engine(
      Spies(huge_above=huge_above, length=1_000, reward_clip=None),
      seeds=(5, 6),
      num_envs=2,
    )

  # The lanes' first numbers tell which of them a bound singles out.
  first = make(1.0).first_frames[:, 0]
  highest, second = np.argsort(first)[:-3:-1]
  engine = make(float(first[[highest, second]].mean()))
  seed = (5, 6)[highest // 2]
  stops_at(engine, rf'^Third is not finite.*agent step 20 of seed {seed}')


# Episodes.


@hypothesis.given(
  st.data(), st.integers(1, 3), st.lists(st.integers(0, 6), max_size=4)
)
def test_episodes_are_counted_many_steps_at_a_time_as_one_by_one(
  data, lanes, lengths
):
  one_by_one, at_once = (engine_lib.Episodes(lanes) for _ in range(2))
  expected, running = [], [(0.0, 0)] * lanes
  for length in lengths:
    reward = data.draw(
      hypothesis_numpy.arrays(
        np.float32,
        (length, lanes),
        elements=st.floats(-1e3, 1e3, width=32),
      )
    )
    ends = data.draw(hypothesis_numpy.arrays(bool, (2, length, lanes)))
    at_once.record_all(reward, ends[0] | ends[1])
    for i in range(length):
      one_by_one.record(base.TimeStep(None, reward[i], *ends[:, i], None))
      for lane, (total, steps) in enumerate(running):
        running[lane] = total + float(reward[i, lane]), steps + 1
        if ends[:, i, lane].any():
          expected.append((lane, *running[lane]))
          running[lane] = 0.0, 0
    assert at_once.finished == one_by_one.finished == expected


def test_more_steps_are_noted_than_there_is_room_for():
  episodes = engine_lib.Episodes(1)
  for i in range(2_000):
    done = np.array([i % 700 == 699])
    # The arrays are another step's afterwards, as some environments do it.
    step = base.TimeStep(None, np.float32([i]), done, ~done & False, None)
    episodes.record(step)
    done[:] = True
  first, second = sum(range(700)), sum(range(700, 1_400))
  assert episodes.finished == [(0, first, 700), (0, second, 700)]
  episodes.cut()
  episodes.record(step._replace(terminated=np.array([True])))
  assert episodes.finished[2:] == [(0, 1_999, 1)]


def test_a_long_episode_is_summed_in_the_order_of_its_steps():
  # Magnitudes so far apart that another order rounds otherwise.
  reward = 10.0 ** np.random.default_rng(0).uniform(-9, 9, (1_000, 1))
  reward = reward.astype(np.float32)
  episodes = engine_lib.Episodes(1)
  episodes.record_all(reward, np.arange(1_000)[:, None] == 999)
  total = 0.0
  for value in reward[:, 0]:
    total += float(value)
  assert episodes.finished == [(0, total, 1_000)]


# What can't work.


def test_environments_that_are_not_in_jax_are_refused():
  with pytest.raises(
    errors.UserError,
    match=r'ScriptedVector.*environment = @classic\.CartPole\(\).*PythonEngine',
  ):
    make_engine(engine_test.Scripted())
