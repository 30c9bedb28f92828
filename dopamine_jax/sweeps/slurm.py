"""Slurm trains a sweep: an array of jobs, each of which is a worker.

All is left to Slurm and to the leases: which job runs where, and who trains
what. A job that reaches its time limit stops its worker, and is queued anew.
"""

from collections.abc import Sequence
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

from dopamine_jax import errors
from dopamine_jax.system import plain_files

SCRIPT = 'slurm.sh'
_OUTPUT = 'slurm'  # a folder: what the jobs print
_SECONDS = 120  # from the signal to the time limit
_OURS = ('array', 'signal', 'requeue', 'no-requeue', 'wrap')
_OPTION = re.compile(r'--([a-z][a-z0-9-]*)(=.+)?')

_TEMPLATE = """\
#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --array=1-{workers}
#SBATCH --output={output}
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@{seconds}
{options}
# Each job of the array is a worker of the sweep. Before the time limit Slurm
# sends USR1; the worker then stops, the job is queued anew, and goes on from
# the newest checkpoints.

asked=''  # which signal came
worker=''
ask() {{
  asked=$1
  if [ -n "$worker" ]; then
    kill -TERM "$worker" 2> /dev/null
  fi
}}
trap 'ask USR1' USR1
trap 'ask TERM' TERM

cd {here} || exit 1
# As many threads as it has cores, whether or not the node binds it to them.
export NPROC="${{NPROC:-${{SLURM_CPUS_ON_NODE:-1}}}}"
{command} &
worker=$!
if [ -n "$asked" ]; then
  kill -TERM "$worker" 2> /dev/null
fi
# A signal ends `wait`, and not the worker.
while true; do
  wait "$worker"
  status=$?
  kill -0 "$worker" 2> /dev/null || break
done
if [ "$asked" = USR1 ] && [ "$status" -ne 0 ]; then
  scontrol requeue "$SLURM_JOB_ID" && exit 0
  echo 'The job could not be queued anew. To go on, submit it again:' >&2
  echo {again} >&2
fi
exit "$status"
"""


def check(options: Sequence[str]) -> list[str]:
  """Returns options of sbatch, one by one.

  Args:
    options: as they were given, some at once: '--time=8:00:00 --gpus=1'.

  Raises:
    UserError: if they are none, or set what the sweep sets itself.
  """
  found = []
  for given in options:
    try:
      parts = shlex.split(given)
    except ValueError as error:
      raise errors.UserError(
        f'--sbatch {given!r} can not be read: {error}. Close the quotation.'
      ) from error
    for part in parts:
      match = _OPTION.fullmatch(part)
      if not match or not part.isprintable():
        raise errors.UserError(
          f"--sbatch {given!r}: {part!r} is no option of sbatch with '='. Give "
          "such as --sbatch '--partition=gpu --gpus=1 --time=8:00:00'."
        )
      if match[1] in _OURS:
        raise errors.UserError(
          f'--sbatch {given!r}: the sweep sets --{match[1]} itself. Leave it '
          'out; --workers says how many jobs there are.'
        )
      found.append(part)
  return found


def write(
  folder: pathlib.Path, workers: int, options: Sequence[str] = ()
) -> pathlib.Path:
  """Writes the script of a sweep into its folder; returns its path.

  Args:
    folder: the sweep's.
    workers: jobs of the array.
    options: more options of sbatch, as `check` returns them.

  Raises:
    UserError: if the folder's name can't stand in a script.
  """
  folder = pathlib.Path(os.path.abspath(folder))
  if not str(folder).isprintable():
    raise errors.UserError(
      f'{str(folder)!r} has characters that a script for Slurm can not hold. '
      'Give the folder another name.'
    )
  outputs = folder / _OUTPUT
  outputs.mkdir(exist_ok=True)
  worker = [sys.executable, '-P', '-m', 'dopamine_jax', 'sweep', 'worker']
  text = _TEMPLATE.format(
    name=_quoted(f'sweep_{folder.name}'),
    workers=workers,
    output=_quoted(f'{str(outputs).replace("%", "%%")}/%A_%a.txt'),
    seconds=_SECONDS,
    options=''.join(f'#SBATCH {_quoted(each)}\n' for each in options),
    here=shlex.quote(os.getcwd()),
    command=shlex.join([*worker, str(folder)]),
    again=shlex.quote(shlex.join(['sbatch', str(folder / SCRIPT)])),
  )
  plain_files.write(folder / SCRIPT, text.encode())
  return folder / SCRIPT


def submit(script: pathlib.Path) -> str:
  """Hands a script to Slurm; returns what `sbatch` says.

  Raises:
    UserError: if there is none here, or it refuses.
  """
  command = f'sbatch {shlex.quote(str(script))}'
  if not shutil.which('sbatch'):
    raise errors.UserError(
      f'no sbatch is here, so that nothing was submitted. The script lies '
      f"ready: on a machine of the cluster that has this folder, '{command}'."
    )
  done = subprocess.run(
    ['sbatch', str(script)], capture_output=True, text=True, errors='replace'
  )
  if done.returncode:
    why = done.stderr.strip() or f'status {done.returncode}'
    raise errors.UserError(
      f'sbatch refuses {script}: {why}. Give other options by --sbatch; what '
      'was submitted before goes on.'
    )
  return done.stdout.strip()


def _quoted(text):
  """Returns a word as sbatch reads it in a script."""
  if re.fullmatch(r'[\w@%+=:,./-]+', text, re.ASCII):
    return text
  return '"' + text.replace('\\', '\\\\').replace('"', '\\"') + '"'
