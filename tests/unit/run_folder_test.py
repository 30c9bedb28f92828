"""What lies in a folder decides whether a run begins, goes on or is refused."""

import json
import os
import pathlib
import shutil

import numpy as np
import pytest

from dopamine_jax import errors
from dopamine_jax.checkpoints import checkpoints as checkpoints_lib
from dopamine_jax.training import identity
from dopamine_jax.training import run_folder

DATA = pathlib.Path(__file__).parents[1] / 'data'
CONFIG = 'dqn.DQN.gamma = 0.99\nrunner.Runner.num_iterations = 3\n'
FACTS = {'seeds': [0], 'versions': {'jax': '1'}, 'title': ''}


def look(folder, config=CONFIG, facts=FACTS, resume=True, say=print):
  checkpoints = checkpoints_lib.Checkpoints(folder)
  return run_folder.look(folder, checkpoints, config, facts, resume, say)


def write(folder, facts, config=CONFIG):
  (folder / 'run.json').write_text(json.dumps(facts))
  if config:
    (folder / 'config.gin').write_text(config)


def save(folder, iteration, previous=None, facts=FACTS, config=None):
  if config is not None:
    facts = {**facts, 'record': identity.digest(config)}
  run = {'facts': facts}
  checkpoints_lib.Checkpoints(folder).save(
    iteration, {'a': np.zeros(2, np.int32)}, previous=previous, run=run
  )


@pytest.mark.parametrize(
  ('facts', 'config'),
  [
    (FACTS, CONFIG),
    (FACTS, None),  # killed before it was written
    (FACTS | {'progress': {}}, CONFIG),
    (FACTS | {'events': [{'event': 'started', 'iteration': 0}]}, CONFIG),
    (FACTS | {'events': [{'event': 'stopped', 'iteration': 1}]}, CONFIG),
  ],
)
def test_a_run_that_never_had_a_checkpoint_begins_anew(tmp_path, facts, config):
  write(tmp_path, facts, config)
  (tmp_path / 'metrics.csv').write_text('seed\n0\n')
  assert look(tmp_path).iterations == []


@pytest.mark.parametrize(
  'facts',
  [
    FACTS | {'progress': {'checkpoint': 7}},
    FACTS | {'progress': {'checkpoint': 7, 'reported': 6}},
    FACTS | {'events': [{'event': 'finished', 'iteration': 7}]},
    FACTS
    | {
      'events': [
        {'event': 'started', 'iteration': 0},
        {'event': 'resumed', 'iteration': 7},
      ]
    },
  ],
)
def test_a_run_whose_checkpoints_are_gone_does_not(tmp_path, facts):
  write(tmp_path, facts)
  with pytest.raises(errors.UserError, match='up to iteration 7, and none'):
    look(tmp_path)
  save(tmp_path, 7)
  said = []
  config = CONFIG.replace('3', '9')
  assert look(tmp_path, config, say=said.append).iterations == [7]
  assert not said


@pytest.mark.parametrize(
  'name', ['config.gin', 'metrics.csv', 'tensorboard/events', 'run.json']
)
@pytest.mark.parametrize('resume', [True, False])
def test_what_is_left_of_a_run_is_never_overwritten(tmp_path, name, resume):
  (tmp_path / name).parent.mkdir(exist_ok=True)
  (tmp_path / name).write_text('x')
  words = '[Bb]ring back' if resume else 'already holds a run'
  with pytest.raises(errors.UserError, match=words):
    look(tmp_path, resume=resume)


@pytest.mark.parametrize('name', ['notes.txt', 'comparison/report.md'])
def test_what_is_of_no_run_is_in_nobodys_way(tmp_path, name):
  (tmp_path / name).parent.mkdir(exist_ok=True)
  (tmp_path / name).write_text('x')
  (tmp_path / 'tensorboard').mkdir()
  assert look(tmp_path, resume=False) == ([], {})


def test_a_newest_checkpoint_that_is_gone_is_said(tmp_path):
  write(tmp_path, FACTS | {'progress': {'checkpoint': 3}})
  save(tmp_path, 2)
  said = []
  assert look(tmp_path, say=said.append).iterations == [2]
  assert 'the checkpoint of iteration 3 is gone' in said[0]


BAD = [
  b'',
  b'\xff\xfe{}',
  b'[]',
  b'{}',
  b'[' * 100_000,
  *(
    json.dumps(FACTS | change).encode()
    for change in (
      {'seeds': '0'},
      {'seeds': []},
      {'seeds': [True]},
      {'seeds': [0.0]},
      {'versions': 7},
      {'title': None},
      {'events': {}},
      {'events': ['started']},
      {'progress': 'far'},
      {'progress': {'checkpoint': '7'}},
      {'progress': {'written': [1]}},
    )
  ),
]


@pytest.mark.parametrize('content', BAD)
def test_facts_that_are_damaged_are_told(tmp_path, content):
  (tmp_path / 'run.json').write_bytes(content)
  with pytest.raises(errors.UserError, match=r'run\.json can not be read'):
    run_folder.read_facts(tmp_path)


@pytest.mark.parametrize('content', [None, *BAD[:3]])
def test_facts_that_are_lost_are_in_each_checkpoint(tmp_path, content):
  save(tmp_path, 1)
  save(tmp_path, 2, previous=1)
  (tmp_path / 'checkpoints/000002/manifest.json').write_text('{}')
  if content is not None:
    (tmp_path / 'run.json').write_bytes(content)
  said = []
  assert run_folder.read_facts(tmp_path, said.append) == FACTS
  assert 'The checkpoint of iteration 1 says' in said[0]


@pytest.mark.parametrize('content', [b'\xff\xfe', None])
def test_a_configuration_that_can_not_be_read_is_told(tmp_path, content):
  write(tmp_path, FACTS, None)
  if content is None:
    (tmp_path / 'config.gin').mkdir()
    (tmp_path / 'config.gin/x').write_text('')
  else:
    (tmp_path / 'config.gin').write_bytes(content)
  with pytest.raises(errors.UserError, match=r'config\.gin .*read'):
    look(tmp_path)


def test_a_file_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
  """So that a machine that loses power keeps the old one or the new one."""
  order = []
  for name in ('fsync', 'replace'):
    original = getattr(os, name)

    def note(*args, name=name, original=original):
      order.append(name)
      return original(*args)

    monkeypatch.setattr(os, name, note)
  run_folder.write(tmp_path / 'run.json', 'text')
  assert order == ['fsync', 'replace', 'fsync']  # the last of the folder
  assert (tmp_path / 'run.json').read_text() == 'text'


@pytest.mark.parametrize('where', ['fsync', 'replace'])
def test_a_write_that_fails_leaves_the_old_file_alone(
  tmp_path, monkeypatch, where
):
  (tmp_path / 'run.json').write_text('old')

  def full(*args):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(os, where, full)
  with pytest.raises(errors.UserError, match='No space left on device'):
    run_folder.write(tmp_path / 'run.json', 'new')
  assert [path.name for path in tmp_path.iterdir()] == ['run.json']
  assert (tmp_path / 'run.json').read_text() == 'old'


def test_progress_is_noted_beside_all_else(tmp_path):
  write(tmp_path, FACTS | {'mine': 1})
  run_folder.set_progress(tmp_path, checkpoint=2)
  run_folder.set_progress(tmp_path, reported=2, written={'CSV': {'bytes': 3}})
  facts = run_folder.read_facts(tmp_path)
  assert facts == FACTS | {
    'mine': 1,
    'progress': {
      'checkpoint': 2,
      'reported': 2,
      'written': {'CSV': {'bytes': 3}},
    },
  }


def test_a_run_without_its_configuration_is_refused(tmp_path):
  write(tmp_path, FACTS | {'progress': {'checkpoint': 1}}, config=None)
  save(tmp_path, 1)
  with pytest.raises(errors.UserError, match=r'config\.gin is gone'):
    look(tmp_path)


@pytest.mark.parametrize('name', ['run.json', 'config.gin', 'signature'])
def test_no_link_in_the_way_of_a_write_is_followed(tmp_path, name):
  folder, outside = tmp_path / 'run', tmp_path / 'outside'
  folder.mkdir()
  outside.write_text('mine')
  (folder / f'{name}.tmp').symlink_to(outside)
  (folder / name).symlink_to(outside)
  run_folder.write(folder / name, 'new')
  assert outside.read_text() == 'mine'
  assert not (folder / name).is_symlink()
  assert (folder / name).read_text() == 'new'


@pytest.mark.parametrize('name', ['run.json', 'config.gin'])
@pytest.mark.parametrize('thing', ['pipe', 'device', 'folder'])
def test_what_is_no_file_is_neither_read_nor_waited_for(tmp_path, name, thing):
  write(tmp_path, FACTS | {'progress': {'checkpoint': 1}})
  (tmp_path / name).unlink()
  if thing == 'pipe':
    os.mkfifo(tmp_path / name)
  elif thing == 'device':
    (tmp_path / name).symlink_to('/dev/zero')
  else:
    (tmp_path / name).mkdir()
  with pytest.raises(errors.UserError, match=name):
    look(tmp_path)


def test_a_run_from_before_a_setting_was_there_goes_on_by_its_default(tmp_path):
  write(tmp_path, FACTS | {'progress': {'checkpoint': 1}})
  save(tmp_path, 1)
  added = CONFIG + 'gym.Gym.channels_first = None\nsac.SAC.reward_scale = 1.0\n'
  assert look(tmp_path, added).iterations == [1]
  with pytest.raises(errors.UserError, match='another configuration'):
    look(tmp_path, added.replace('None', 'True'))


@pytest.mark.parametrize(
  ('facts', 'config', 'words'),
  [
    (FACTS | {'seeds': [1]}, CONFIG, r'seeds \[1\], not \[0\]'),
    (FACTS | {'seeds': [0, 1]}, CONFIG, r'seeds \[0, 1\]'),
    (FACTS | {'seeds': [1]}, None, r'seeds \[1\]'),  # an older version's
    (FACTS, CONFIG.replace('0.99', '0.5'), 'settings other than those in'),
    (FACTS, '', 'settings other than those in'),
  ],
)
@pytest.mark.parametrize('own', ['newer', 'older', 'none'])
def test_a_checkpoint_of_another_run_is_never_gone_on_from(
  tmp_path, facts, config, words, own
):
  write(tmp_path, FACTS)
  if own == 'older':
    save(tmp_path, 1, config=CONFIG)
  save(tmp_path, 2, previous=1, facts=facts, config=config)
  if own == 'newer':
    save(tmp_path, 3, previous=2, config=CONFIG)
  with pytest.raises(errors.UserError, match=words) as caught:
    look(tmp_path)
  assert 'the checkpoint of iteration 2 in' in str(caught.value)
  # The remedy that is named.
  shutil.rmtree(tmp_path / 'checkpoints')
  save(tmp_path, 2, config=CONFIG)
  assert look(tmp_path).iterations == [2]


@pytest.mark.parametrize(
  'config',
  [
    None,  # of older versions
    CONFIG.replace('= 3', '= 2'),
    '# a title\n\n' + CONFIG,
    CONFIG + 'runner.Runner.videos = True\n',
    'import mine\nfrom other.place import thing\n' + CONFIG,
    CONFIG.replace('\n', '\r\n').replace('= 3', '= 7'),
  ],
)
def test_one_whose_settings_decide_the_same_results_is(tmp_path, config):
  write(tmp_path, FACTS)
  save(tmp_path, 1, config=config)
  assert look(tmp_path).iterations == [1]


def test_a_checkpoint_that_was_renamed_is_damaged_and_no_later_one(tmp_path):
  write(tmp_path, FACTS)
  save(tmp_path, 2, config=CONFIG)
  save(tmp_path, 3, previous=2, config=CONFIG)
  folder = tmp_path / 'checkpoints'
  (folder / '000003').rename(folder / '000009')
  # Not: it has done 9 iterations, and 3 are fewer.
  assert look(tmp_path).iterations == [2, 9]
  said = []
  checkpoints = checkpoints_lib.Checkpoints(tmp_path, say=said.append)
  assert checkpoints.restore_newest({'a': np.zeros(2, np.int32)})[0] == 2
  assert 'iteration 9 is damaged' in said[0] and 'of iteration 3' in said[0]


@pytest.mark.parametrize(
  'facts', [['x'], 'x', {'seeds': 'x'}, {'seeds': [None]}, {'seeds': [-1]}]
)
def test_a_manifest_whose_facts_are_odd_is_damaged(tmp_path, facts):
  save(tmp_path, 1, facts=facts)
  with pytest.raises(checkpoints_lib.Damaged):
    checkpoints_lib.Checkpoints(tmp_path).manifest(1)


def test_a_run_of_an_earlier_version_is_still_known_by_its_settings():
  # As the version wrote both, in config.gin and in run.json.
  text = (DATA / 'earlier_run.gin').read_text()
  recorded = '6347f04eaaefda442dceb48828d8dada334288775cf4af591acd6be3a2fa88fa'
  assert identity.digest(text) == recorded
  # It may go on in another memory, and with nothing else changed.
  elsewhere = text.replace("replay_memory = 'device'", "replay_memory = 'disk'")
  assert elsewhere != text
  assert identity.digest(elsewhere) == recorded
  other = text.replace('gamma = 0.98', 'gamma = 0.97')
  assert other != text
  assert identity.digest(other) != recorded
