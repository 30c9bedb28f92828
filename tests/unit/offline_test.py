"""Datasets become what stepping would have left; the offline engine learns."""

import ast
import functools
import gzip
import re
import shutil
import sys
import types

import gymnasium
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dopamine_jax as dj
from dopamine_jax import agent as agent_lib
from dopamine_jax import errors
from dopamine_jax import networks
from dopamine_jax import runner as runner_lib
from dopamine_jax.agents import behaviour_cloning
from dopamine_jax.agents import cql
from dopamine_jax.agents import dqn
from dopamine_jax.agents import ppo
from dopamine_jax.checkpoints import checkpoints
from dopamine_jax.datasets import base
from dopamine_jax.datasets import files
from dopamine_jax.datasets import rows as rows_lib
from dopamine_jax.engines import devices
from dopamine_jax.engines import disk
from dopamine_jax.engines import offline
from dopamine_jax.engines import streams
from dopamine_jax.environments import base as environments_base
from dopamine_jax.environments import catch
from dopamine_jax.environments import classic
from dopamine_jax.metrics import health
from dopamine_jax.replay import prioritized
from dopamine_jax.replay import ring as ring_lib
from dopamine_jax.replay import sum_tree
from dopamine_jax.replay import uniform
from dopamine_jax.training import advice
from dopamine_jax.training import fingerprint
from dopamine_jax.training import starts

REPLAY = {'capacity': 64, 'batch_size': 4, 'min_history': 4, 'gamma': 0.5}
TERMINATED, TRUNCATED, RUNNING = range(3)


def steps_of(ends):
  """Returns columns [T] in which every frame has a number of its own."""
  frame, seen, after = 1, [], []
  for end in ends:
    seen.append([frame])
    after.append([frame + 1])
    frame += 1 if end == RUNNING else 2
  ends = np.array(ends)
  return base.Part(
    observation=np.array(seen, np.int32),
    action=np.arange(len(ends), dtype=np.int32) % 3,
    reward=np.arange(len(ends), dtype=np.float32),
    terminated=ends == TERMINATED,
    truncated=ends == TRUNCATED,
    next_observation=np.array(after, np.int32),
  )


def stepped(replay, part):
  """Returns the ring that steps leave which are added one by one."""
  rows = [
    jax.tree.map(lambda x, t=t: x[t : t + 1], part)
    for t in range(len(part.reward))
  ]
  steps = [
    ring_lib.Step(
      observation=row.observation,
      action=row.action,
      reward=row.reward,
      terminated=row.terminated,
      truncated=row.truncated,
      next_observation=row.next_observation,
    )
    for row in rows
  ]
  ring = replay.init(steps[0])
  for step in steps:
    ring = add(ring, step)
  return ring


add = jax.jit(ring_lib.add)


def transitions(replay, ring):
  """Returns all valid transitions as sorted tuples."""
  slot = jnp.arange(60)
  lane = jnp.zeros_like(slot)
  valid = np.array(replay.is_valid(ring, lane, slot))
  found = replay.transition_at(ring, lane, slot)
  columns = [
    np.array(x).reshape(60, -1)[valid]
    for x in (
      *(found.observation, found.action, found.reward, found.discount),
      np.where(found.discount[:, None] > 0, found.next_observation, 0),
    )
  ]
  return sorted(map(tuple, np.concatenate(columns, axis=1).tolist()))


ends = st.lists(
  st.sampled_from([TERMINATED, TRUNCATED, RUNNING, RUNNING]),
  min_size=2,
  max_size=20,
)


@given(ends=ends)
@settings(max_examples=12)
def test_a_dataset_leaves_what_stepping_would(ends):
  replay = uniform.UniformReplay(**REPLAY, n_step=2)
  part = steps_of(ends)
  by_steps = transitions(replay, stepped(replay, part))
  slots = base.laid_out(iter([part]))
  ring = base.fill(replay.init(step_like(part)), slots)
  assert transitions(replay, ring) == cut(by_steps, part, replay)


def cut(transitions_, part, replay):
  """Where the steps end without an end, they are cut: fewer rewards count."""
  ended = part._replace(truncated=part.truncated.copy())
  ended.truncated[-1] |= not part.terminated[-1]
  return transitions(replay, stepped(replay, ended))


def step_like(part):
  return ring_lib.Step(
    *(part.observation[:1], part.action[:1], part.reward[:1]),
    *(part.terminated[:1], part.truncated[:1], part.observation[:1]),
  )


@given(ends=ends)
@settings(max_examples=12)
def test_without_what_followed_a_cut_step_is_left_out(ends):
  replay = uniform.UniformReplay(**REPLAY)
  part = steps_of(ends)
  parts = iter([part._replace(next_observation=None)])
  known = part.terminated | ~part.truncated
  known[-1] = part.terminated[-1]
  if not known.any():
    with pytest.raises(errors.UserError, match='no step of which it is known'):
      list(base.laid_out(parts))
    return
  slots = base.laid_out(parts)
  ring = base.fill(replay.init(step_like(part)), slots)
  whole = transitions(replay, stepped(replay, part))
  lost = {tuple(x) for x in part.observation[~known].tolist()}
  # What a step is worth depends on no end behind it, with single steps.
  expected = [row for row in whole if row[:1] not in lost]
  assert transitions(replay, ring) == expected


def test_a_terminated_step_is_not_followed_by_the_next_episode():
  part = steps_of([RUNNING, TERMINATED, RUNNING, TERMINATED])
  known = base._known(part._replace(next_observation=None))
  last = known.terminated
  np.testing.assert_array_equal(
    known.next_observation[last], known.observation[last]
  )


def test_rewards_of_a_replay_are_clipped_as_this_run_asks(gathered, tmp_path):
  data = files.OwnReplay(run=str(gathered))
  made = functools.partial(offline.OfflineEngine, dataset=data)
  runner = dj.Runner(
    agent=agent(cql.CQL),
    environment=catch.Catch(rows=4, reward_clip=0.25),
    engine=made,
    num_iterations=1,
    training_steps=40,
  )
  environments = runner.environment.make(1)
  engine = runner.make_engine(environments, (0,))
  engine.reset(streams.env_seeds((0,), streams.Stream.TRAIN, 0, 1))
  engine.init()
  rewards = np.unique(engine.state.experience.replay.slots.reward)
  assert set(rewards.tolist()) <= {-0.25, 0.0, 0.25}
  assert 0.25 in np.abs(rewards)


def test_priorities_are_of_what_is_valid():
  replay = prioritized.PrioritizedReplay(**REPLAY)
  part = steps_of([RUNNING, TERMINATED, RUNNING, TRUNCATED, RUNNING])
  ring = replay.init(step_like(part))
  ring = replay.filled(base.fill(ring, base.laid_out(iter([part]))))
  held = np.array(sum_tree.get(ring.tree, jnp.arange(64)))
  assert np.flatnonzero(held).tolist() == [0, 1, 3, 4, 6]  # not the last ones


SPACE = gymnasium.spaces.Box(-9, 99, (1,), np.int32)


def npz(tmp_path, **changes):
  part = steps_of([RUNNING, TERMINATED, RUNNING])
  columns = {
    'observations': part.observation,
    'actions': part.action,
    'rewards': part.reward,
    'terminals': part.terminated,
    'timeouts': part.truncated,
  } | changes
  path = tmp_path / 'data.npz'
  np.savez(path, **{k: v for k, v in columns.items() if v is not None})
  return files.Npz(path=str(path))


def checked(dataset, space=SPACE, action_space=None):
  action_space = action_space or gymnasium.spaces.Discrete(3)
  return list(dataset.checked(space, action_space, lambda actions: actions))


def test_an_npz_file_of_others_is_read(tmp_path):
  (part,) = checked(npz(tmp_path, timeouts=None))
  assert part.terminated.tolist() == [False, True, False]
  assert not part.truncated.any()
  assert part.next_observation is None
  np.testing.assert_array_equal(part.observation, [[1], [2], [4]])


class Parts(base.Dataset):
  """What it is given, part by part."""

  given: tuple

  def parts(self):
    yield from self.given


def test_a_part_may_have_one_step_or_none():
  one, two = steps_of([TERMINATED]), steps_of([RUNNING, TERMINATED])
  none = base.Part(*(column[:0] for column in one))
  parts = checked(Parts(given=(one, none, two)))
  assert [len(part.reward) for part in parts] == [1, 0, 2]
  assert not any(part.truncated.any() for part in parts)
  slots = joined(base.laid_out(iter(parts)))
  assert (slots['status'] == ring_lib.TERMINATED).sum() == 2


@given(ends=ends, shuffled=st.booleans(), seed=st.integers(0, 99))
@settings(max_examples=20)
def test_what_followed_a_step_is_what_the_data_say(
  tmp_path_factory, ends, shuffled, seed
):
  ends = [*ends, TERMINATED]  # without any end data are refused
  part = steps_of(ends)
  # Nothing says where episodes are cut, but what followed.
  told = part._replace(truncated=np.zeros_like(part.truncated))
  if shuffled:
    order = np.random.default_rng(seed).permutation(len(ends))
    told = told._replace(**{k: v[order] for k, v in told._asdict().items()})
  replay = uniform.UniformReplay(**REPLAY, n_step=1)
  path = tmp_path_factory.mktemp('told') / 'data.npz'
  np.savez(path, **told._asdict())
  parts = checked(files.Npz(path=str(path)))
  ring = base.fill(replay.init(step_like(part)), base.laid_out(parts))
  assert transitions(replay, ring) == sorted(
    (
      *(float(part.observation[t, 0]), float(part.action[t])),
      *(float(part.reward[t]), float(0.5 * ~part.terminated[t])),
      float(part.next_observation[t, 0] * ~part.terminated[t]),
    )
    for t in range(len(ends))
  )


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    ({'rewards': None}, 'finds no reward or rewards in .* holds actions'),
    ({'actions': np.array([0, 1, 3])}, 'actions from 0 to 3, counted from 0'),
    ({'actions': np.array([0.5, 1, 2])}, 'actions from 0.5 to 2'),
    ({'rewards': np.array([0, np.nan, 0])}, 'rewards that are not finite'),
    ({'rewards': np.array([0, 1e40, 0])}, 'rewards that are not finite'),
    ({'observations': np.zeros((3, 2), np.int32)}, r'int32 \(2,\), and the'),
    ({'observations': np.zeros((3, 1))}, r'float64 \(1,\), and the'),
    ({'terminals': np.zeros(2)}, r'a terminated of shape \(2,\) for 3 steps'),
    ({'rewards': np.zeros(2)}, r'a reward of shape \(2,\) for 3 steps'),
    ({'rewards': np.zeros((3, 1))}, r'a reward of shape \(3, 1\) for 3 steps'),
    ({'rewards': np.float32(0)}, r'a reward of shape \(\) for 3 steps'),
    ({'rewards': np.array(['a', 'b', 'c'])}, 'a reward of <U1, which are no'),
    (
      {'next_observations': np.zeros((2, 1), np.int32)},
      r'a next_observation of shape \(2, 1\) for 3 steps',
    ),
    (
      {'timeouts': np.array([0, np.nan, 1])},
      'of truncated that are not finite',
    ),
  ],
)
def test_what_does_not_fit_is_named(changes, said, tmp_path):
  with pytest.raises(errors.UserError, match=said):
    checked(npz(tmp_path, **changes))


def test_a_file_that_is_none_is_named(tmp_path):
  (tmp_path / 'x.npz').write_text('no')
  with pytest.raises(errors.UserError, match=r'can not read .*x\.npz'):
    checked(files.Npz(path=str(tmp_path / 'x.npz')))


def test_columns_of_other_types_are_read():
  part = steps_of([RUNNING, TERMINATED])
  given = part._replace(
    reward=np.array([1, 2.5], object),
    terminated=np.array([False, True], object),
    truncated=np.zeros(2, jnp.bfloat16),
  )
  (found,) = checked(Parts(given=(given,)))
  assert found.reward.tolist() == [1, 2.5]
  assert found.terminated.tolist() == [False, True]
  assert not found.truncated.any()


def test_a_file_of_one_array_is_named(tmp_path):
  np.save(tmp_path / 'x.npy', np.zeros(3))
  with pytest.raises(errors.UserError, match=r'finds one array in .*x\.npy'):
    checked(files.Npz(path=str(tmp_path / 'x.npy')))


def test_shards_of_dopamine_are_read(tmp_path):
  frames = np.arange(2 * 3 * 4).reshape(2, 3, 2, 2).astype(np.uint8)
  for shard in range(2):
    columns = {
      'observation': frames[shard],
      'action': np.array([0, 2, 1], np.int32),
      'reward': np.array([1, 0, -1], np.float32),
      'terminal': np.array([0, 1, 0], np.uint8),
    }
    for name, column in columns.items():
      with gzip.open(tmp_path / f'$store$_{name}_ckpt.{shard}.gz', 'wb') as f:
        np.save(f, column)
  space = gymnasium.spaces.Box(0, 255, (2, 2), np.uint8)
  shards = files.DopamineShards(folder=str(tmp_path), stack=1)
  parts = checked(shards, space)
  parts = [
    base.Part(*(None if x[0] is None else np.concatenate(x) for x in columns))
    for columns in (zip(*pair, strict=True) for pair in (parts[:2], parts[2:]))
  ]
  np.testing.assert_array_equal([p.observation for p in parts], frames)
  assert parts[1].terminated.tolist() == [False, True, False]
  slots = joined(base.laid_out(iter(parts)))
  # Of each shard the last step is left out: what followed it is unknown.
  assert slots['status'].tolist() == 2 * [
    ring_lib.RUNNING,
    ring_lib.TERMINATED,
    ring_lib.LAST,
  ]
  with pytest.raises(errors.UserError, match=r'shards \[0, 1\] .* not \[7\]'):
    checked(files.DopamineShards(folder=str(tmp_path), shards=(1, 7)), space)


def joined(pieces):
  """Returns the columns of all pieces."""
  pieces = list(pieces)
  return {name: np.concatenate([x[name] for x in pieces]) for name in pieces[0]}


def write_shard(folder, number, frames, terminal, added=None):
  """Writes a shard whose frames tell their number; 0 is a step of zeros."""
  frames = np.asarray(frames, np.uint8)
  columns = {
    '$store$_observation': frames[:, None],
    '$store$_action': frames % 3,
    '$store$_reward': frames.astype(np.float32),
    '$store$_terminal': np.isin(frames, terminal).astype(np.uint8),
  }
  if added is not None:
    columns['add_count'] = np.array(added)
  for name, column in columns.items():
    with gzip.open(folder / f'{name}_ckpt.{number}.gz', 'wb') as file:
      np.save(file, column)


@pytest.mark.parametrize('rows', [2, 3, 4096])
def test_shards_lose_dopamines_zeros_and_go_from_old_to_new(
  rows, tmp_path, monkeypatch
):
  monkeypatch.setattr(rows_lib, 'AT_ONCE', rows)
  write_shard(tmp_path, 0, [0, 1, 2, 0, 3, 4, 0, 5, 6], terminal=[2, 4])
  # The first of these runs on from another shard.
  write_shard(tmp_path, 1, [11, 12, 0, 13, 14], terminal=[12, 14])
  # Ten were written where eight have a place: the oldest is the third.
  write_shard(tmp_path, 3, [0, 25, 0, 21, 22, 0, 23, 24], [22, 24], added=10)
  # Five of eight places are in use.
  write_shard(tmp_path, 4, [0, 31, 0, 32, 33, 0, 9, 9], [31, 33], added=5)
  space = gymnasium.spaces.Box(0, 255, (1,), np.uint8)
  shards = files.DopamineShards(folder=str(tmp_path), stack=2)
  parts = checked(shards, space)
  seen = np.concatenate([part.observation[:, 0] for part in parts])
  expected = [1, 2, 3, 4, 5, 6, 13, 14, 21, 22, 23, 24, 25, 31, 32, 33]
  assert seen.tolist() == expected
  for part in parts:
    np.testing.assert_array_equal(part.reward, part.observation[:, 0])
    np.testing.assert_array_equal(part.action, part.observation[:, 0] % 3)
  # No episode is torn, and what followed the newest step is unknown.
  slots = joined(base.laid_out(iter(parts)))
  lost = slots['frame'][slots['status'] != ring_lib.LAST, 0].tolist()
  assert lost == [x for x in expected if x not in (6, 25)]
  with pytest.raises(errors.UserError, match='not begin with 2 frames of zero'):
    checked(shards.replace(stack=3), space)


@pytest.mark.parametrize('stack', [1, 2, 3])
def test_shards_of_a_larger_stack_are_told_with_what_to_set(stack, tmp_path):
  frames = [0, 0, 0, 1, 2, 0, 0, 0, 0, 3, 4]
  write_shard(tmp_path, 0, frames, terminal=[2, 4])
  # The first episode of this one began elsewhere, its last one goes on.
  more = [7, 8, 0, 0, 0, 1, 2, 0, 0, 0, 3, 4, 0]
  write_shard(tmp_path, 1, more, terminal=[8, 2, 4])
  space = gymnasium.spaces.Box(0, 255, (1,), np.uint8)
  for number in (0, 1):
    shards = files.DopamineShards(
      folder=str(tmp_path), stack=stack, shards=(number,)
    )
    with pytest.raises(errors.UserError, match=f'3 steps .* shard {number}'):
      checked(shards, space)
  shards = shards.replace(shards=(0,))
  with pytest.raises(errors.UserError, match='3 steps of zeros') as caught:
    checked(shards, space)
  remedy = re.search(r'Shards\.stack = (\d)\.$', str(caught.value))
  (part,) = checked(shards.replace(stack=int(remedy[1])), space)
  # The second episode's first frame is black.
  assert part.observation[:, 0].tolist() == [1, 2, 0, 3, 4]


@pytest.mark.parametrize('added', [0, [1, 2], []])
def test_a_shard_that_counts_no_steps_is_named(added, tmp_path):
  write_shard(tmp_path, 0, [0, 1, 2], terminal=[2], added=added)
  space = gymnasium.spaces.Box(0, 255, (1,), np.uint8)
  shards = files.DopamineShards(folder=str(tmp_path), stack=2)
  with pytest.raises(errors.UserError, match=r'shard 0 of .* steps'):
    checked(shards, space)
  write_shard(tmp_path, 0, [0, 1, 2], terminal=[2], added=[3])
  (part,) = checked(shards, space)
  assert part.reward.tolist() == [1, 2]


def test_a_shard_without_a_step_is_named_and_can_be_left_out(tmp_path):
  write_shard(tmp_path, 0, [0, 1, 2], terminal=[2])
  write_shard(tmp_path, 1, [], terminal=[])
  shards = files.DopamineShards(folder=str(tmp_path), stack=2)
  space = gymnasium.spaces.Box(0, 255, (1,), np.uint8)
  with pytest.raises(errors.UserError, match='no step in shard 1') as caught:
    checked(shards, space)
  assert 'files.DopamineShards.shards = (0,)' in str(caught.value)
  (part,) = checked(shards.replace(shards=(0,)), space)
  assert part.reward.tolist() == [1, 2]


def test_a_shard_that_is_named_twice_is_refused(tmp_path):
  with pytest.raises(errors.UserError, match='twice'):
    files.DopamineShards(folder=str(tmp_path), shards=(0, 1, 0))


@pytest.mark.parametrize(
  'name', ['observation', 'action', 'reward', 'terminal']
)
@pytest.mark.parametrize(
  ('harm', 'said'),
  [
    ('rows', 'finds shard 1 cut short'),
    ('bytes', 'Compressed file ended before'),
    ('gone', 'No such file'),
  ],
)
def test_a_shard_that_is_cut_short_is_named_and_can_be_left_out(
  name, harm, said, tmp_path
):
  for number in range(2):
    write_shard(tmp_path, number, [0, 1, 2, 0, 3, 4], terminal=[2, 4])
  path = tmp_path / f'$store$_{name}_ckpt.1.gz'
  if harm == 'rows':
    with gzip.open(path) as file:
      rows = np.load(file)
    with gzip.open(path, 'wb') as file:
      np.save(file, rows[:-2])
  elif harm == 'bytes':
    path.write_bytes(path.read_bytes()[:-12])
  else:
    path.unlink()
  shards = files.DopamineShards(folder=str(tmp_path), stack=2)
  space = gymnasium.spaces.Box(0, 255, (1,), np.uint8)
  with pytest.raises(errors.UserError, match=said) as caught:
    checked(shards, space)
  remedy = re.search(
    r'leave it out: files.DopamineShards.shards = (.*)[.]$', str(caught.value)
  )
  left = checked(shards.replace(shards=ast.literal_eval(remedy[1])), space)
  assert sum(len(part.reward) for part in left) == 4


def test_an_extra_that_is_missing_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, 'minari', None)
  with pytest.raises(errors.UserError, match=r'minari is not installed: .*pip'):
    checked(files.Minari(id='x'))


def agent(kind=dqn.DQN, **changes):
  replay = uniform.UniformReplay(capacity=200, batch_size=8, min_history=16)
  given = {'network': networks.MLP(hidden=(8,)), 'replay': replay}
  return kind(**given, update_period=4, target_update_period=8, **changes)


@pytest.fixture(scope='module')
def gathered(tmp_path_factory):
  folder = tmp_path_factory.mktemp('gathered')
  dj.train(
    agent(),
    catch.Catch(rows=4),
    folder,
    agent_steps=96,
    num_seeds=2,
    quiet=True,
  )
  return folder


def recorded(folder, capacity, *, iterations=(4,), **changes):
  """Trains by random actions, whatever the replay holds."""
  replay = uniform.UniformReplay(
    capacity=capacity, batch_size=8, min_history=16
  )
  for count in iterations:
    dj.train(
      # It never learns, so that learning is not compiled.
      agent(epsilon=1.0).replace(
        replay=replay, update_period=10**6, target_update_period=10**6
      ),
      catch.Catch(rows=4),
      folder,
      num_iterations=count,
      training_steps=40,
      num_envs=2,
      num_seeds=2,
      quiet=True,
      **changes,
    )
  return files.OwnReplay(run=str(folder), seed=1, whole=True)


@pytest.mark.usefixtures('same_programs')
def test_a_run_is_recorded_whole_though_its_replay_overwrites(tmp_path):
  """It holds what a replay does that is large enough for all of it."""
  large = recorded(tmp_path / 'large', 1_000)
  told = joined(base.laid_out(large.replace(whole=False).parts()))
  small = recorded(
    tmp_path / 'small', 90, iterations=(2, 4), record_replay=True, max_to_keep=1
  )
  for data in (large, small):
    parts = list(data.parts())
    assert sum(len(part.reward) for part in parts) == 4 * 40
    # One lane after the other, or both for each iteration.
    found = joined(base.laid_out(parts))
    order = [np.lexsort(_rows(each)) for each in (found, told)]
    for name, rows in told.items():
      np.testing.assert_array_equal(
        found[name][order[0]], rows[order[1]], err_msg=name
      )
  live = small.replace(whole=False).parts()
  assert sum(len(part.reward) for part in live) < 90
  with pytest.raises(errors.UserError, match='leaves behind'):
    recorded(tmp_path / 'small', 90, record_replay=True, with_replay=False)
  file = next((tmp_path / 'small/checkpoints/000001').glob('*/*/reward.npy'))
  for each in file.parents[2].glob('*/*/reward.npy'):
    each.write_bytes(each.read_bytes()[:-1])
  with pytest.raises(errors.UserError, match=r'000001.* is not what was saved'):
    list(small.parts())


def _rows(slots):
  """Returns columns by which any two slots differ, or are equal."""
  size = len(slots['reward'])
  return np.concatenate([x.reshape(size, -1) for x in slots.values()], axis=1).T


@pytest.mark.usefixtures('same_programs')
def test_what_was_overwritten_unrecorded_is_not_whole(tmp_path):
  data = recorded(tmp_path, 90, iterations=(4,))
  with pytest.raises(errors.UserError, match='record_replay = True'):
    list(data.parts())


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'capacity': 80}, 'up to 41 slots, and the replay has 40 for each'),
    ({'capacity': 90, 'checkpoint_replay': False}, 'set it to True'),
  ],
)
def test_a_record_that_would_have_gaps_is_refused(changes, words, tmp_path):
  with pytest.raises(errors.UserError, match=words):
    recorded(tmp_path, record_replay=True, **changes)


def test_a_fork_of_what_was_overwritten_is_not_recorded(tmp_path):
  recorded(tmp_path / 'one', 90, record_replay=True)
  fork = {'record_replay': True, 'iterations': (5,)}
  with pytest.raises(errors.UserError, match='has overwritten its first steps'):
    recorded(tmp_path / 'fork', 90, start_from=str(tmp_path / 'one'), **fork)
  # The remedies.
  start = starts.StartFrom(run=str(tmp_path / 'one'), replay=False)
  recorded(tmp_path / 'anew', 90, start_from=start, **fork)
  data = files.OwnReplay(run=str(tmp_path / 'anew'), whole=True)
  assert sum(len(part.reward) for part in data.parts()) > 0
  fork['record_replay'] = False
  recorded(tmp_path / 'fork', 90, start_from=str(tmp_path / 'one'), **fork)


def learnt(folder, data, iterations=2, replay=None, **changes):
  learner = agent(cql.CQL)
  return dj.train(
    learner.replace(replay=replay) if replay else learner,
    catch.Catch(rows=4),
    folder,
    num_iterations=iterations,
    training_steps=40,
    engine=functools.partial(offline.OfflineEngine, dataset=data),
    evaluation_episodes=2,
    quiet=True,
    **changes,
  )


# By what fills the ring in memory; `mapped_rows_test` trains on a disk.
@pytest.mark.slow
def test_a_replay_on_a_disk_is_filled_alike(gathered, tmp_path, monkeypatch):
  monkeypatch.setattr(disk, '_IN_MEMORY', ())  # temporary files may lie there
  data = files.OwnReplay(run=str(gathered), seed=1)
  prints = []
  for memory in ('device', 'disk'):
    where = devices.Devices(replay_memory=memory)
    learnt(tmp_path / memory, data, 1, devices=where)
    prints.append(fingerprint.fingerprint(tmp_path / memory))
  assert prints[0] == prints[1]


@pytest.mark.usefixtures('same_programs')
def test_the_replay_of_a_run_is_learnt_from_and_exactly_resumed(
  gathered, tmp_path
):
  data = files.OwnReplay(run=str(gathered), seed=1)
  count = sum(len(part.reward) for part in data.parts())
  assert count >= 95  # of Catch's episodes of 3 steps
  whole = learnt(tmp_path / 'whole', data, num_seeds=2)
  learnt(tmp_path / 'parts', data, iterations=1, num_seeds=2)
  assert whole.statistics['Train/Updates'].tolist() == [20, 20]
  assert 'Eval/AverageReturns' in whole.statistics
  learnt(tmp_path / 'parts', data, num_seeds=2)
  assert fingerprint.fingerprint(tmp_path / 'parts') == (
    fingerprint.fingerprint(tmp_path / 'whole')
  )


@pytest.mark.usefixtures('same_programs')
def test_without_its_replay_a_run_reads_the_dataset_again(gathered, tmp_path):
  data = files.OwnReplay(run=str(gathered))
  for folder, counts in (('whole', [2]), ('parts', [1, 2])):
    for iterations in counts:
      said = []
      settings = {'checkpoint_replay': False, 'say': said.append}
      learnt(tmp_path / folder, data, iterations, **settings)
  assert any('the dataset is read again.' in line for line in said)
  assert not any('no longer equals' in line for line in said)
  one, other = (
    checkpoints.Checkpoints(tmp_path / folder).arrays(2)
    for folder in ('whole', 'parts')
  )
  for name, array in one.items():
    np.testing.assert_array_equal(array, other[name], err_msg=name)


@pytest.mark.usefixtures('same_programs')
def test_priorities_that_begin_anew_are_told(gathered, tmp_path):
  settings = {
    'checkpoint_replay': False,
    'replay': prioritized.PrioritizedReplay(
      capacity=200, batch_size=8, min_history=8
    ),
  }
  data = files.OwnReplay(run=str(gathered))
  learnt(tmp_path, data, 1, **settings)
  said = []
  learnt(tmp_path, data, 2, say=said.append, **settings)
  (line,) = [x for x in said if 'without its replay' in x]
  assert 'and priorities begin anew. It no longer equals' in line


@pytest.mark.parametrize('game', ['Asterix', 'Breakout'])
def test_data_of_another_game_are_told(game):
  config = (
    'runner.Runner.environment = @environment/gym.Gym()\n'
    'runner.Runner.evaluation_environment = @own/gym.Gym()\n'
    "environment/gym.Gym.id = 'MinAtar/{}-v1'\n"
    "own/gym.Gym.id = 'MinAtar/Freeway-v1'\n"
  )
  dataset = types.SimpleNamespace(
    recorded_with=lambda: config.format('Breakout')
  )
  learner = types.SimpleNamespace(
    fills_replay=True,
    dataset=dataset,
    learning_begins=0,
    loop=types.SimpleNamespace(agent=agent(cql.CQL)),
  )
  run = runner_lib.Runner(
    agent=agent(cql.CQL),
    environment=catch.Catch(),
    num_iterations=1,
    training_steps=40,
  )
  said = []
  advice.before_the_start(run, learner, config.format(game), said.append)
  expected = 'recorded on MinAtar/Breakout-v1, and this run is of MinAtar/Aste'
  assert [expected in line for line in said] == [True] * (game == 'Asterix')


@pytest.mark.usefixtures('same_programs')
def test_a_dataset_that_has_changed_is_told(gathered, tmp_path):
  data = files.OwnReplay(run=str(tmp_path / 'data'))
  shutil.copytree(gathered, tmp_path / 'data')
  settings = {'checkpoint_replay': False}
  learnt(tmp_path / 'run', data, 1, **settings)
  shutil.rmtree(tmp_path / 'data')
  recorded(tmp_path / 'data', 90)
  said = []
  learnt(tmp_path / 'run', data, 2, say=said.append, **settings)
  (line,) = [x for x in said if 'without its replay' in x]
  assert 'is not what it was when the run began. It no longer equals' in line


@pytest.mark.usefixtures('same_programs')
def test_whole_returns_need_steps_to_the_end_of_each_episode(
  gathered, tmp_path
):
  def train(folder, n_step):
    learner = behaviour_cloning.BehaviourCloning(
      network=networks.MLP(hidden=(4,)),
      replay=uniform.UniformReplay(capacity=200, batch_size=4, min_history=4),
      conditioned=True,
      n_step=n_step,
      gamma=1.0,
      update_period=4,
    )
    dataset = files.OwnReplay(run=str(gathered))
    dj.train(
      *(learner, catch.Catch(rows=4), tmp_path / folder),
      agent_steps=8,
      engine=functools.partial(offline.OfflineEngine, dataset=dataset),
      quiet=True,
    )

  with pytest.raises(errors.UserError, match='longest episode') as caught:
    train('short', 2)
  least = int(re.search(r'set it to (\d+)', str(caught.value))[1])
  assert least == 3  # of Catch with four rows
  train('whole', least)


def test_learning_begins_at_once_whatever_history_online_would_need(
  gathered, tmp_path, capsys
):
  data = files.OwnReplay(run=str(gathered))
  replay = uniform.UniformReplay(capacity=200, batch_size=8, min_history=200)
  result = learnt(
    tmp_path,
    data,
    iterations=1,
    replay=replay,
    health=[health.DormantNeurons()],
  )
  assert 'Health/DormantNeurons' in result.statistics
  assert 'Warning' not in capsys.readouterr().out


def test_a_dataset_is_not_passed_over_for_another_runs_replay(
  gathered, tmp_path
):
  data = files.OwnReplay(run=str(gathered))
  with pytest.raises(errors.UserError, match=r'StartFrom\.replay = False'):
    learnt(tmp_path, data, num_seeds=2, start_from=str(gathered))


def test_parts_of_a_run_are_whole_episodes_however_few_rows_are_read(
  gathered, monkeypatch
):
  data = files.OwnReplay(run=str(gathered), seed=0)
  whole = joined(base.laid_out(data.parts()))
  monkeypatch.setattr(rows_lib, 'AT_ONCE', 8)
  parts = list(data.parts())
  assert max(len(part.reward) for part in parts) == 6  # with two ends
  replay = uniform.UniformReplay(**REPLAY | {'capacity': 200})
  ring = base.fill(replay.init(step_like(parts[0])), base.laid_out(parts))
  size = ring.head[0]
  for name, rows in whole.items():
    written = getattr(ring.slots, name)[0]
    np.testing.assert_array_equal(written[:size], rows, err_msg=name)
    assert not written[size:].any()


def test_an_episode_whose_beginning_was_overwritten_is_left_out():
  status = np.array([0, 1, 3, 0, 2, 3])
  number = np.arange(6.0)
  for age, expected in (([5, 6, 7, 0, 1, 2], [3, 4]), ([5, 6, 7] * 2, [])):
    parts = files._of_slots(number, number, number, status, np.array(age))
    seen = [x for part in parts for x in part.observation]
    assert seen == expected


def test_data_in_which_no_episode_ends_are_refused(tmp_path):
  with pytest.raises(errors.UserError, match='none of them ends an episode'):
    checked(npz(tmp_path, terminals=np.zeros(3, bool)))


def test_what_can_not_learn_offline_is_refused(gathered, tmp_path):
  data = files.OwnReplay(run=str(gathered))
  small = uniform.UniformReplay(capacity=50, batch_size=8, min_history=16)
  rows = {
    'has a Rollout': (ppo.PPO(update_period=32), catch.Catch(rows=4), {}),
    'has one lane': (agent(), catch.Catch(rows=4), {'num_envs': 2}),
    r'capacity is 50\. Set it to 1\d\d or more': (
      agent().replace(replay=small),
      catch.Catch(rows=4),
      {},
    ),
    r'observations uint8 \(4, 5\), and the environment gives float32': (
      agent(),
      classic.CartPole(),
      {},
    ),
  }
  for said, (learner, environment, changes) in rows.items():
    with pytest.raises(errors.UserError, match=said):
      dj.train(
        learner,
        environment,
        tmp_path / 'x',
        agent_steps=64,
        engine=functools.partial(offline.OfflineEngine, dataset=data),
        quiet=True,
        **changes,
      )


def test_actions_of_a_box_are_learnt_as_agents_give_them():
  environments = classic.Pendulum().make(1)
  engine = offline.OfflineEngine.__new__(offline.OfflineEngine)
  engine.environments = environments
  given = engine._as_given(np.array([[-2.0], [0.0], [1.0]], np.float32))
  np.testing.assert_allclose(given, [[-1.0], [0.0], [0.5]])


def test_an_action_whose_bounds_are_equal_is_one_and_others_are_refused():
  low, high = np.float32([0, -2]), np.float32([0, 2])
  actions = environments_base.Actions(gymnasium.spaces.Box(low, high))
  engine = offline.OfflineEngine.__new__(offline.OfflineEngine)
  engine.environments = types.SimpleNamespace(
    action_space=gymnasium.spaces.Box(-1, 1, (2,)), as_taken=actions
  )
  given = engine._as_given(np.float32([[0, -2], [0, 1]]))
  np.testing.assert_allclose(given, [[0, -1], [0, 0.5]])
  for action in (0.5, 3):
    outside = engine._as_given(np.float32([[action, 0]]))
    with pytest.raises(errors.UserError, match=r'outside .* bounds'):
      base.Dataset()._actions(outside, engine.environments.action_space)
  with pytest.raises(errors.UserError, match=r'outside .* bounds'):
    base.Dataset()._actions(
      np.float32([[np.nan, 0]]), engine.environments.action_space
    )


def test_the_loss_of_cql_is_that_of_dqn_and_the_gap():
  spaces = {
    'observation_space': gymnasium.spaces.Box(-1, 1, (2,), np.float32),
    'action_space': gymnasium.spaces.Discrete(3),
  }
  learner = cql.CQL(conservatism=0.5, network=networks.MLP(hidden=()), **spaces)
  rng = np.random.default_rng(0)
  batch = base_batch(rng)
  params = jax.jit(learner.init)(jax.random.key(0), batch.observation).params
  key = jax.random.key(1)
  found, metrics = jax.jit(learner.losses)(params, params, batch, key)
  plain = dqn.DQN(network=networks.MLP(hidden=()), **spaces)
  of_dqn, _ = jax.jit(plain.losses)(params, params, batch, key)
  (layer,) = params.values()
  q = batch.observation @ np.array(layer['kernel']) + np.array(layer['bias'])
  gap = np.log(np.exp(q).sum(axis=1)) - q[np.arange(4), batch.action]
  np.testing.assert_allclose(found - of_dqn, 0.5 * gap, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(metrics['Gap'], gap.mean(), rtol=1e-5)


def base_batch(rng):
  return agent_lib.Transition(
    observation=rng.normal(size=(4, 2)).astype(np.float32),
    action=np.array([0, 2, 1, 2]),
    reward=rng.normal(size=4).astype(np.float32),
    discount=np.full(4, 0.9, np.float32),
    next_observation=rng.normal(size=(4, 2)).astype(np.float32),
  )
