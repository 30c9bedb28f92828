"""Many devices and processes give what one gives; they are faked on the CPU."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from dopamine_jax import config as config_lib
from dopamine_jax import errors
from dopamine_jax import runner
from dopamine_jax.checkpoints import checkpoints
from dopamine_jax.engines import devices
from dopamine_jax.engines import engine
from dopamine_jax.system import processes
from dopamine_jax.training import fingerprint
from tests import many_devices

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# Parameters relative to the largest one: rounding alone, after 20 updates.
ROUNDING = 1e-5

CONFIG = """
from __gin__ import dynamic_registration
from dopamine_jax.engines import devices
from dopamine_jax.metrics import health
from dopamine_jax import runner
from dopamine_jax.metrics import csv_file
from tests import many_devices

runner.Runner:
  agent = @many_devices.make_agent
  environment = @many_devices.Pictures()
  devices = @devices.Devices()
  num_iterations = 2
  training_steps = 80
  num_envs = 2
  collectors = [@csv_file.CSV]
  health = [@health.EffectiveRank()]
many_devices.make_agent.network = 'MLP'
"""


def start(arguments, num_devices, flags=None, **environment):
  if flags is None:
    flags = os.environ.get('XLA_FLAGS', '')  # of conftest.py
  flags += f' --xla_force_host_platform_device_count={num_devices}'
  # Compiled sooner, and run more slowly.
  flags += ' --xla_backend_optimization_level=0'
  flags += ' --xla_llvm_disable_expensive_passes=true'
  return subprocess.Popen(
    [sys.executable, '-m', *map(str, arguments)],
    cwd=ROOT,
    env=os.environ | {'XLA_FLAGS': flags} | environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def finish(*started):
  """Waits for processes; returns what each printed."""
  printed = [process.communicate(timeout=300)[0] for process in started]
  for process, text in zip(started, printed, strict=True):
    assert process.returncode == 0, text
  return printed


def see(kind, folder, flags=None):
  finish(start(['tests.many_devices', kind, folder], 8, flags))
  return json.loads((folder / 'seen.json').read_text())


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('devices')


@pytest.fixture(scope='module')
def seen(folder):
  return see('quick', folder)


@pytest.fixture(scope='module')
def seen_slowly(tmp_path_factory):
  return see('slow', tmp_path_factory.mktemp('slow'))


# A batch over devices.


def test_a_split_batch_teaches_a_cnn_what_one_device_would(seen):
  assert seen['batch, CNN']['distance'] < ROUNDING
  assert seen['batch, CNN']['same experience']


# The same layout of the same functions; how priorities are drawn from a split
# replay is compiled below. These are as far apart as losses, so that experience
# is not the same.
@pytest.mark.slow
@pytest.mark.parametrize('name', ['batch, compiled', 'batch, by priority'])
def test_so_does_a_batch_that_is_compiled_or_drawn_by_priority(
  name, seen_slowly
):
  assert seen_slowly[name]['distance'] < ROUNDING
  assert seen_slowly[name]['each device has'] == [1 / 8, 1]


def test_gradients_that_were_not_added_would_be_seen(seen):
  assert seen['nothing learnt'] > 1_000 * ROUNDING


# As much as the above, the other way.
@pytest.mark.slow
def test_gradients_added_once_too_often_would_be_seen(seen_slowly):
  assert seen_slowly['gradients 8 times too large'] > 1_000 * ROUNDING


def test_of_a_split_batch_each_device_holds_a_share_of_the_frames(seen):
  assert seen['batch, CNN']['each device has'] == [1 / 8, 1]


def test_each_device_computes_its_part_of_a_batch(seen):
  assert seen['costs']['relative flops'] < 1 / 2


def require_no_gathering(costs):
  assert costs['temporary memory'] < costs['all frames'] / 10


def test_split_frames_are_never_gathered(seen):
  require_no_gathering(seen['costs'])


@pytest.mark.slow  # what a prioritized replay has too, above
def test_split_frames_that_are_drawn_uniformly_are_not_either(seen_slowly):
  require_no_gathering(seen_slowly['costs of what is uniform'])


# Seeds over devices; the replay's memory.


def require_seeds_of_their_own(found):
  assert found['distance'] < ROUNDING
  assert found['same experience']
  assert found['each device has'] == [1 / 8, 1 / 8]


def test_seeds_on_devices_of_their_own_learn_what_they_learn_on_one(seen):
  require_seeds_of_their_own(seen['seeds'])


# Above is a batch on this engine, and the other engine's seeds.
@pytest.mark.slow
def test_compiled_seeds_on_devices_of_their_own_do_too(seen_slowly):
  require_seeds_of_their_own(seen_slowly['seeds, compiled'])


def test_a_replay_in_pinned_host_memory_teaches_the_same(seen):
  assert seen['pinned host']['distance'] < ROUNDING
  assert seen['pinned host']['same experience']


@pytest.mark.slow  # as XLA compiles for users, which takes it longer
def test_a_replay_in_pinned_host_memory_changes_no_number(tmp_path):
  seen = see('exact', tmp_path, flags='')
  assert seen['pinned host']['distance'] == 0
  assert seen['pinned host']['same experience']


def require_same_health(expected, *others):
  assert any(expected) and others
  for values in others:
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-6)


def test_health_is_the_same_however_seeds_lie(seen):
  require_same_health(*seen['health']['eight'])


# Seeds' above, and two processes below measure a batch's.
@pytest.mark.slow
def test_health_is_the_same_however_a_batch_lies(seen_slowly):
  require_same_health(*seen_slowly['health']['one'])


def test_a_run_over_devices_resumes_exactly(seen):
  assert seen['batch resumes']


@pytest.mark.slow
@pytest.mark.parametrize(
  'name',
  [
    'batch, MLP',
    'batch, 8 seeds',
    'seeds, CNN',
    'seeds, 4 devices',
    'pinned host, 8 seeds',
    'seeds, by priority',
    'pinned host, 8 seeds by priority',
  ],
)
def test_other_layouts_learn_the_same_too(seen_slowly, name):
  assert seen_slowly[name]['distance'] < ROUNDING
  assert seen_slowly[name]['same experience']


@pytest.mark.slow
@pytest.mark.parametrize('name', ['seeds', 'pinned host'])
def test_other_layouts_resume_exactly_too(seen_slowly, name):
  assert seen_slowly[f'{name} resumes']


# Two processes.


def free_port():
  with socket.socket() as listener:
    listener.bind(('localhost', 0))
    return listener.getsockname()[1]


def train(base_dir, config, split, num_processes, num_iterations=2):
  """Trains by the command line over eight devices; returns what was printed."""
  num_seeds = 8 if split == 'seeds' else 1
  arguments = ['tests.many_devices', 'command', 'train']
  arguments += ['--base_dir', base_dir]
  arguments += ['--gin_files', config, '--num_seeds', num_seeds]
  for binding in (
    f"devices.Devices.split = '{split}'",
    f'runner.Runner.num_iterations = {num_iterations}',
  ):
    arguments += ['--gin_bindings', binding]
  group = {
    'JAX_COORDINATOR_ADDRESS': f'localhost:{free_port()}',
    'JAX_NUM_PROCESSES': str(num_processes),
  }
  return finish(
    *(
      start(arguments, 8 // num_processes, JAX_PROCESS_ID=str(i), **group)
      for i in range(num_processes)
    )
  )


def largest_difference(base_dir, other):
  """Returns how far the parameters of two runs are apart."""
  one, two = (checkpoints.Checkpoints(d).arrays(2) for d in (base_dir, other))
  return max(
    np.abs(one[name] - two[name]).max()
    for name in one
    if name.startswith('agent.params')
  )


@pytest.fixture
def config(tmp_path):
  (tmp_path / 'config.gin').write_text(CONFIG)
  return tmp_path / 'config.gin'


# All above is of one process with the same devices and programs; what two add
# is `jax.distributed`, and the start of two takes as long as all of that.
@pytest.mark.slow
def test_two_processes_train_what_one_does(seen, folder, config, tmp_path):
  first, second = train(tmp_path / 'two', config, 'batch', 2)

  one, two = folder / 'batch' / 'whole', tmp_path / 'two'
  assert largest_difference(two, one) < ROUNDING
  one, two = fingerprint.fingerprint(one), fingerprint.fingerprint(two)
  assert two['replay'] == one['replay']
  rows = (tmp_path / 'two' / 'metrics.csv').read_text()
  assert rows.count('Health/EffectiveRank') == 2
  assert 'The run lies in' in first and 'The run lies in' not in second


@pytest.mark.slow
@pytest.mark.parametrize('split', ['batch', 'seeds'])
def test_two_processes_resume_exactly(config, tmp_path, split):
  train(tmp_path / 'whole', config, split, 2)
  train(tmp_path / 'resumed', config, split, 2, num_iterations=1)
  printed = train(tmp_path / 'resumed', config, split, 2)

  assert 'Going on after iteration 1' in printed[0]
  assert fingerprint.fingerprint(tmp_path / 'whole') == fingerprint.fingerprint(
    tmp_path / 'resumed'
  )


@pytest.mark.slow
def test_seeds_over_two_processes_are_exactly_those_of_one(config, tmp_path):
  train(tmp_path / 'one', config, 'seeds', 1)
  train(tmp_path / 'two', config, 'seeds', 2)
  assert fingerprint.fingerprint(tmp_path / 'one') == fingerprint.fingerprint(
    tmp_path / 'two'
  )


# What can't work is refused before training. This process has one device.


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'split': 'lanes'}, "'lanes' .* choose one of none, seeds, batch"),
    ({'replay_memory': 'tape'}, "'tape' .* choose one of device, .*, disk"),
    ({'replay_folder': '.'}, "'.' needs replay_memory = 'disk'"),
    (
      {'matmul_precision': 'half'},
      "'half' .* choose one of None, bfloat16, tensorfloat32, float32",
    ),
    ({'num_devices': 2}, r"num_devices = 2 needs split = 'seeds' or 'batch'"),
    (
      {'split': 'batch', 'replay_memory': 'pinned_host'},
      "'pinned_host' does not go with split = 'batch'",
    ),
  ],
)
def test_settings_that_do_not_fit_each_other_are_refused(settings, message):
  with pytest.raises(errors.UserError, match=message):
    devices.Devices(**settings)


@pytest.mark.parametrize('precision', [None, 'bfloat16', 'float32'])
def test_products_round_as_the_setting_says(precision):
  settings = devices.Devices(matmul_precision=precision)
  square = np.ones((3, 3), np.float32)
  with settings.computing():
    text = jax.jit(lambda x: x @ x).lower(square).as_text()
  expected = {None: 'DEFAULT', 'bfloat16': 'DEFAULT', 'float32': 'HIGHEST'}
  assert f'precision = [{expected[precision]}, ' in text
  assert jax.config.jax_default_matmul_precision is None


def test_the_whole_training_is_within_it(config, tmp_path, monkeypatch):
  seen = set()
  take = engine.Engine._reduced

  def note(self, metrics):
    seen.add(jax.config.jax_default_matmul_precision)
    return take(self, metrics)

  monkeypatch.setattr(engine.Engine, '_reduced', note)
  bindings = [
    "devices.Devices.matmul_precision = 'float32'",
    'runner.Runner.num_iterations = 1',
  ]
  run = config_lib.load([str(config)], bindings).build(runner.Runner)
  run.train(str(tmp_path / 'run'), quiet=True)
  assert seen == {'float32'}
  assert jax.config.jax_default_matmul_precision is None


def test_what_is_no_cpu_is_named_in_a_runs_record(monkeypatch):
  layout = devices.Layout(devices.ONE_DEVICE, 1)
  assert layout.versions() == {}
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  assert layout.versions() == {'devices': '1 cpu'}  # of its kind


def test_a_gpu_that_adds_in_any_order_is_refused(monkeypatch):
  settings = devices.Devices(deterministic=True)
  monkeypatch.setenv('XLA_FLAGS', '')
  settings.require_deterministic()  # a CPU, which doesn't
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  with pytest.raises(errors.UserError, match='start with XLA_FLAGS="--xla_gpu'):
    devices.Layout(settings, 1)
  monkeypatch.setenv('XLA_FLAGS', f'--xla_a=1 {devices.DETERMINISTIC}')
  settings.require_deterministic()


def test_a_fingerprint_says_on_what_it_can_be_had_again(tmp_path):
  def promise(*machines):
    events = [{'event': 'started', 'machine': x} for x in machines]
    facts = {'seeds': [0], 'versions': {}, 'events': events}
    (tmp_path / 'run.json').write_text(json.dumps(facts))
    return fingerprint.promise(tmp_path)

  cpu, gpu = {'backend': 'cpu', 'xla_flags': ''}, {'backend': 'gpu'}
  assert promise(cpu).startswith('Trained on cpu. Equal settings, seeds and ')
  older = {'devices': '1 x cpu'}
  assert promise(older) == promise(cpu)
  assert 'alone (devices.Devices.deterministic' in promise(gpu)
  assert 'alone (devices.Devices.deterministic' in promise(cpu, gpu)
  flagged = gpu | {'xla_flags': devices.DETERMINISTIC}
  assert 'on the same kind and number of devices' in promise(flagged)
  assert 'alone' in promise(flagged, gpu)
  assert promise() == 'Not known: on what it was trained.'


def test_more_devices_than_there_are_are_refused():
  message = 'num_devices = 8 is more than the 1 .*device_count=8'
  with pytest.raises(errors.UserError, match=message):
    many_devices.make_engine(devices.Devices(split='batch', num_devices=8))


@pytest.fixture
def eight_devices(monkeypatch):
  """Makes one device count as eight, which is enough for a refusal."""
  monkeypatch.setattr(jax, 'device_count', lambda: 8)


@pytest.mark.parametrize('num_seeds', [1, 12])
def test_seeds_that_do_not_fill_the_devices_are_refused(
  eight_devices, num_seeds
):
  message = f'it is {num_seeds}, and there are 8 devices'
  with pytest.raises(errors.UserError, match=message):
    devices.Layout(many_devices.SEEDS, num_seeds)


def test_a_batch_that_is_no_multiple_of_the_devices_is_refused(eight_devices):
  layout = devices.Layout(many_devices.BATCH, 1)
  replay = many_devices.uniform.UniformReplay(batch_size=20)
  with pytest.raises(errors.UserError, match=r'batch_size = 20 .* 8 devices'):
    layout.check(replay, template=None)


def test_slots_that_are_no_multiple_of_the_devices_are_refused(eight_devices):
  layout = devices.Layout(many_devices.BATCH, 1)
  state = many_devices.make_engine(capacity=100).state
  with pytest.raises(errors.UserError, match=r'50 slots .* 8 devices'):
    layout.place(state)


def test_a_memory_that_the_device_lacks_is_refused(monkeypatch):
  class Device:
    def addressable_memories(self):
      return [type('Memory', (), {'kind': 'device'})]

    def __str__(self):
      return 'Device:0'

  monkeypatch.setattr(jax, 'local_devices', lambda: [Device()])
  message = "'pinned_host' .* Device:0 does not have; it has device"
  with pytest.raises(errors.UserError, match=message):
    devices.Layout(many_devices.HOST, 1)


def test_processes_that_would_all_train_the_same_are_refused(monkeypatch):
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  with pytest.raises(errors.UserError, match='have 2 processes train the same'):
    devices.ONE_DEVICE.count()


def test_half_of_a_group_of_processes_is_refused(monkeypatch):
  monkeypatch.setenv('JAX_COORDINATOR_ADDRESS', 'localhost:1')
  monkeypatch.setenv('JAX_PROCESS_ID', 'first')
  message = r'JAX_NUM_PROCESSES \(now None\), JAX_PROCESS_ID \(now first\)'
  with pytest.raises(errors.UserError, match=message):
    processes.join()


def test_without_devices_in_gin_nothing_is_placed():
  state = many_devices.make_engine().abstract_state()
  assert {leaf.sharding for leaf in jax.tree.leaves(state)} == {None}
