"""The script of a sweep for Slurm, under a stand-in for Slurm."""

import os
import signal
import subprocess
import sys
import time

import pytest

from dopamine_jax import errors
from dopamine_jax.commands import cli
from dopamine_jax.commands import clusters
from dopamine_jax.sweeps import leases
from dopamine_jax.sweeps import plan
from dopamine_jax.sweeps import slurm
from tests.sweeps import small

# Starts the jobs of an array here, each anew while it asks for that.
SBATCH = """\
#!/bin/bash
here=$(dirname "$0")
script=$1
last=$(sed -n 's/^#SBATCH --array=1-//p' "$script")
for number in $(seq "$last"); do
  (
    export SLURM_ARRAY_TASK_ID=$number SLURM_JOB_ID=70$number
    while true; do
      bash "$script" >> "$here/$SLURM_JOB_ID.out" 2>&1 &
      echo $! > "$here/$SLURM_JOB_ID.pid"
      wait $!
      echo $? >> "$here/$SLURM_JOB_ID.status"
      rm "$here/requeue.$SLURM_JOB_ID" 2> /dev/null || break
    done
    touch "$here/$SLURM_JOB_ID.end"
  ) > /dev/null 2>&1 &
done
echo "Submitted batch job 70"
"""
SCONTROL = """\
#!/bin/bash
[ "$1" = requeue ] && touch "$(dirname "$0")/requeue.$2"
"""
# In the place of Python: a worker that takes a while to stop.
WORKER = """\
#!/bin/bash
here=$(dirname "$0")
trap 'kill %1; sleep 0.1; echo stopped >> "$here/worker"; exit 143' TERM
[ -e "$here/worker" ] && exit 0
touch "$here/began"
sleep 30 &
wait
"""


def executable(path, text):
  path.write_text(text)
  path.chmod(0o755)


@pytest.fixture
def slurm_here(tmp_path, monkeypatch):
  """A folder with a stand-in for Slurm, which is on PATH."""
  folder = tmp_path / 'slurm'
  folder.mkdir()
  executable(folder / 'sbatch', SBATCH)
  executable(folder / 'scontrol', SCONTROL)
  monkeypatch.setenv('PATH', f'{folder}:{os.environ["PATH"]}')
  return folder


def wait_for(condition, seconds=300):
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end, 'waited for too long'
    time.sleep(0.02)


def is_whole(script):
  return subprocess.run(['bash', '-n', str(script)]).returncode == 0


def test_the_script_has_an_array_of_workers_and_the_options(tmp_path):
  folder = tmp_path / "a b'c"
  folder.mkdir()
  script = slurm.write(folder, 3, ['--gpus=1', '--comment=one two'])
  text = script.read_text()
  assert is_whole(script)
  assert '#SBATCH --array=1-3\n' in text
  assert '#SBATCH --gpus=1\n#SBATCH "--comment=one two"\n' in text
  assert '#SBATCH --signal=B:USR1@120\n' in text
  assert f'#SBATCH --output="{folder}/slurm/%A_%a.txt"\n' in text
  # All of Slurm's lines come before the first command.
  assert '#SBATCH' not in text.partition('\n\n')[2]


@pytest.mark.parametrize(
  ('given', 'found'),
  [
    (['--gpus=1 -pgpu'], None),
    (['--gpus=1', '--time=1:00 --mem=4G'], 3),
    (["--comment='a b'"], 1),
    (['--array=1-9'], None),
    (['--signal=TERM@1'], None),
    (['gpu'], None),
    (['--partition gpu'], None),
    (["--comment='a"], None),
    (["--comment='a\nb'"], None),
  ],
)
def test_options_of_sbatch_are_read_or_refused(given, found):
  if found is None:
    with pytest.raises(errors.UserError, match='--sbatch'):
      slurm.check(given)
  else:
    assert len(slurm.check(given)) == found


def test_a_folder_that_no_script_can_name_is_refused(tmp_path):
  folder = tmp_path / 'a\nb'
  folder.mkdir()
  with pytest.raises(errors.UserError, match='another name'):
    slurm.write(folder, 1)


def test_without_sbatch_the_script_lies_ready(tmp_path, monkeypatch):
  monkeypatch.setenv('PATH', str(tmp_path))
  place = clusters.place('slurm', 2, None, None, ['--gpus=1'])
  with pytest.raises(errors.UserError, match=r"'sbatch .*slurm\.sh'"):
    place.run(tmp_path)
  assert '#SBATCH --gpus=1\n' in (tmp_path / 'slurm.sh').read_text()


def test_what_sbatch_refuses_is_told(slurm_here, tmp_path):
  executable(slurm_here / 'sbatch', '#!/bin/bash\necho no gpu >&2\nexit 1\n')
  with pytest.raises(errors.UserError, match='no gpu'):
    slurm.submit(slurm.write(tmp_path, 1))


@pytest.mark.parametrize(
  ('words', 'told'),
  [
    (['--cluster', 'slurm'], 'is needed with --cluster slurm'),
    (['--cluster', 'slurm', '--workers', '2', '--num_gpus', '1'], 'Leave'),
    (['--sbatch', '--gpus=1'], 'Leave --sbatch out'),
    (['--cluster', 'kubernetes'], 'expected ray'),
  ],
)
def test_options_that_do_not_go_together_are_told(
  words, told, capsys, monkeypatch
):
  words = ['dopamine-jax', 'sweep', 'dqn_cartpole', *words]
  monkeypatch.setattr(sys, 'argv', words)
  assert cli.main() == 2
  assert told in ' '.join(capsys.readouterr().err.replace('│', '').split())


@pytest.mark.parametrize(('number', 'runs'), [('USR1', 2), ('TERM', 1)])
def test_a_job_at_its_limit_is_queued_anew(
  slurm_here, tmp_path, monkeypatch, number, runs
):
  executable(slurm_here / 'python', WORKER)
  monkeypatch.setattr(sys, 'executable', str(slurm_here / 'python'))
  said = slurm.submit(slurm.write(tmp_path, 1))
  assert said == 'Submitted batch job 70'
  wait_for((slurm_here / 'began').exists, 20)
  job = int((slurm_here / '701.pid').read_text())
  os.kill(job, getattr(signal, f'SIG{number}'))
  wait_for((slurm_here / '701.end').exists, 20)
  assert (slurm_here / 'worker').read_text() == 'stopped\n'
  statuses = (slurm_here / '701.status').read_text().split()
  assert len(statuses) == runs
  assert statuses[-1] == ('0' if number == 'USR1' else '143')


# Beside the one above: real workers, whose results are those of this machine.
@pytest.mark.slow
def test_a_sweep_by_jobs_equals_one_by_processes(slurm_here, tmp_path):
  assert small.sweep(tmp_path / 'here') == 0
  folder = tmp_path / 'jobs'
  assert small.sweep(folder, '--cluster', 'slurm', '--workers', '2') == 0
  wait_for(lambda: list(folder.glob('0*/checkpoints/*')))
  job = int((slurm_here / '701.pid').read_text())
  os.kill(job, signal.SIGUSR1)
  wait_for(
    lambda: all((slurm_here / f'70{i}.end').exists() for i in (1, 2)), 900
  )
  assert small.outcome(folder) == small.outcome(tmp_path / 'here')
  statuses = (slurm_here / '701.status').read_text().split()
  assert statuses == ['0', '0']


def test_a_job_on_another_machine_is_gone_when_its_lease_is_old(
  tmp_path, monkeypatch
):
  pack = plan.Pack('0.0', 0, (0,))
  here = leases.Leases(tmp_path)
  with monkeypatch.context() as patch:  # of the same name, as containers may be
    patch.setattr(leases, '_here', lambda: f'{leases.socket.gethostname()} x')
    patch.setattr(leases.os, 'getpid', lambda: 2**30)
    assert here.take([pack], lambda _: 0) == pack
  assert here.is_alive(pack)
  assert here.take([pack], lambda _: 0) is None
  file = tmp_path / 'leases/0.0.json'
  old = time.time() - 1.1 * leases._PATIENCE
  os.utime(file, (old, old))
  assert not here.is_alive(pack)
  assert here.take([pack], lambda _: 0) == pack
  here.give_back(pack)
  assert here._age(pack) == float('inf')  # for who has just read it
