"""Whoever asks to stop gets a sentence and the status that a shell knows."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading

import pytest

from dopamine_jax import config
from dopamine_jax import errors
from dopamine_jax.commands import cli
from dopamine_jax.commands import exits
from dopamine_jax.system import plain_files
from dopamine_jax.system import safe_files
from dopamine_jax.system import signals

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def handlers():
  """Puts back what this process had for each signal."""
  before = {number: signal.getsignal(number) for number in NUMBERS}
  for number in NUMBERS:
    signal.signal(number, signal.SIG_DFL)
  yield
  for number, handler in before.items():
    signal.signal(number, handler)


class Ended(BaseException):
  """Instead of the process."""


@pytest.mark.parametrize(
  ('number', 'name', 'status'),
  [
    (signal.SIGINT, 'SIGINT', 130),
    (signal.SIGTERM, 'SIGTERM', 143),
    (signal.SIGHUP, 'SIGHUP', 129),
  ],
)
def test_a_signal_ends_any_command_with_a_sentence(
  monkeypatch, capfd, number, name, status
):
  def end(actual):
    raise Ended(actual)

  monkeypatch.setattr(os, '_exit', end)
  worker = multiprocessing.get_context('spawn').Process(target=signal.pause)
  worker.start()
  with pytest.raises(Ended) as ended:
    exits.status_of(lambda: os.kill(os.getpid(), number), print)
  assert ended.value.args == (status,)
  assert capfd.readouterr().err == f'Stopped by {name}.\n'
  worker.join()
  assert worker.exitcode == -signal.SIGKILL
  assert signal.getsignal(number) is signal.SIG_DFL


def test_an_end_leaves_no_file_half_written(monkeypatch, tmp_path):
  def end(actual):
    raise Ended(actual)

  monkeypatch.setattr(os, '_exit', end)
  seen = []

  def write():
    with safe_files.making(tmp_path / 'video.mp4') as beside:
      seen.append(beside)
      assert beside.exists()
      with open(tmp_path / 'facts.json', 'xb'):
        pass
      os.kill(os.getpid(), signal.SIGINT)

  with pytest.raises(Ended):
    # By whatever the end leaves, not by what Python tidies on its way out.
    monkeypatch.setattr(plain_files, 'going_beside', registered_alone)
    exits.status_of(write, print)
  assert seen and not seen[0].exists()
  assert [path.name for path in tmp_path.iterdir()] == ['facts.json']


@contextlib.contextmanager
def registered_alone(path):
  plain_files.unfinished.add(path)
  try:
    yield
  finally:
    plain_files.unfinished.discard(path)


@pytest.mark.parametrize('handling', [signals.ending, signals.stop_signals])
def test_an_interrupt_that_nobody_sent_is_told(handling):
  with pytest.raises(errors.UserError, match='nobody pressed Ctrl-C') as told:
    with handling():
      raise KeyboardInterrupt
  assert f'raised by {__file__}, line' in str(told.value)


def test_where_a_library_took_ctrl_c_back_it_is_the_users():
  with pytest.raises(KeyboardInterrupt):
    with signals.stop_signals():
      signal.signal(signal.SIGINT, signal.default_int_handler)
      os.kill(os.getpid(), signal.SIGINT)
      signal.pause()


def test_where_signals_are_another_ones_an_interrupt_passes():
  raised = []

  def run():
    try:
      with signals.stop_signals():
        raise KeyboardInterrupt
    except BaseException as error:
      raised.append(type(error))

  thread = threading.Thread(target=run)
  thread.start()
  thread.join()
  assert raised == [KeyboardInterrupt]


@pytest.mark.parametrize('number', NUMBERS)
def test_a_training_hears_of_a_signal_by_a_flag(number):
  with signals.ending(), signals.stop_signals() as stop:
    assert not stop.is_set
    os.kill(os.getpid(), number)
    os.kill(os.getpid(), number)  # as a program around it may pass it on
    assert stop.is_set
    assert (stop.name, stop.status) == (number.name, 128 + number)


@pytest.mark.parametrize('number', NUMBERS)
def test_whoever_insists_ends_a_process_that_waits(monkeypatch, number, capfd):
  ended, kill = [], os.kill
  monkeypatch.setattr(signals, '_SAME_REQUEST', -1.0)
  with signals.stop_signals():
    kill(os.getpid(), number)
    monkeypatch.setattr(os, 'kill', lambda process, n: ended.append(n))
    kill(os.getpid(), number)
    assert ended == [number]
    assert signal.getsignal(number) is signal.SIG_DFL
  assert f'Ended at once by a second {number.name}' in capfd.readouterr().err


@pytest.mark.parametrize('catch', [signals.stop_signals, signals.ending])
def test_what_nohup_has_ignored_stays_ignored(catch):
  signal.signal(signal.SIGHUP, signal.SIG_IGN)
  with catch():
    os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_a_terminal_that_was_closed_takes_no_more(monkeypatch):
  ours, theirs = os.openpty()
  kept = os.dup(2)
  try:
    os.dup2(theirs, 2)
    os.close(theirs)
    os.close(ours)  # Writing to it fails from now on.
    with signals.stop_signals():
      os.kill(os.getpid(), signal.SIGHUP)
    os.write(2, b'nobody reads this')
  finally:
    os.dup2(kept, 2)
    os.close(kept)


def failing(error):
  def command():
    raise error

  return command


class Usage(Exception):
  exit_code = 2

  def show(self):
    print('Usage: ...')


@pytest.mark.parametrize(
  ('command', 'status', 'words'),
  [
    (lambda: None, 0, []),
    (lambda: 3, 3, []),
    (failing(errors.UserError('is wrong')), 1, ['Error: is wrong']),
    (failing(Usage()), 2, []),
    (failing(MemoryError()), 1, ['not enough memory', 'dopamine-jax doctor']),
  ],
)
def test_each_end_has_its_status(command, status, words):
  said = []
  assert exits.status_of(command, said.append) == status
  assert all(word in ''.join(said) for word in words)
  assert bool(said) == bool(words)


def of_the_framework(code):
  """Returns a command that is not the user's own code."""
  names = {'__name__': 'dopamine_jax.anything'}
  exec(f'def command():\n  {code}', names)
  return names['command']


def test_what_is_no_mistake_is_shown_whole_through_the_command_line(
  monkeypatch,
):
  monkeypatch.setattr(sys, 'argv', ['dopamine-jax', 'configs'])
  monkeypatch.setattr(config, 'shipped', of_the_framework('1 / 0'))
  with pytest.raises(ZeroDivisionError):  # though typer calls it
    cli.main()


def test_what_is_no_mistake_of_the_user_is_shown_whole():
  with pytest.raises(ZeroDivisionError):
    exits.status_of(of_the_framework('1 / 0'), print)


@pytest.mark.parametrize(
  ('error', 'words'),
  [
    (
      ZeroDivisionError('by 0\nand more'),
      'Error: ZeroDivisionError: by 0, raised',
    ),
    (SystemExit(0), 'Error: SystemExit: 0, raised by '),
    (SystemExit(), 'Error: SystemExit: SystemExit, raised by '),
  ],
)
def test_what_a_users_code_raises_is_told_with_its_place(
  monkeypatch, error, words
):
  said = []
  monkeypatch.delenv('DOPAMINE_JAX_TRACEBACK', raising=False)
  assert exits.status_of(failing(error), said.append) == 1
  assert words in said[0] and f'{__file__}, line' in said[0]
  monkeypatch.setenv('DOPAMINE_JAX_TRACEBACK', '1')
  with pytest.raises(type(error)):
    exits.status_of(failing(error), said.append)
  with pytest.raises(errors.UserError):
    exits.status_of(failing(errors.UserError('no')), said.append)


@contextlib.contextmanager
def unread(descriptor):
  """Has nobody read what is printed there."""
  kept = os.dup(descriptor)
  ours, theirs = os.pipe()
  os.close(ours)
  os.dup2(theirs, descriptor)
  os.close(theirs)
  try:
    yield
  finally:
    os.dup2(kept, descriptor)
    os.close(kept)


def by_write():
  os.write(1, b'x')


def by_rich():
  try:
    os.write(1, b'x')
  except BrokenPipeError:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    sys.exit(1)


def on_stderr():
  os.write(2, b'x')


@pytest.mark.parametrize(
  ('command', 'descriptor'), [(by_write, 1), (by_rich, 1), (on_stderr, 2)]
)
def test_where_nobody_reads_it_is_quiet_and_ends_as_by_sigpipe(
  command, descriptor
):
  said = []
  with unread(descriptor):
    assert exits.status_of(command, said.append) == 128 + signal.SIGPIPE
    os.write(descriptor, b'what is left in a buffer')
  assert not said


def test_another_pipe_that_breaks_is_no_reader_of_ours():
  with pytest.raises(BrokenPipeError):
    exits.status_of(of_the_framework('raise BrokenPipeError'), print)
