"""One contestant's process: `python -m benchmarks.process SCRIPT JOB ...`.

Run by the Python of every peer: needs nothing but Python itself.
"""

import importlib
import importlib.metadata
import json
import pathlib
import resource
import sys

from benchmarks import gpu_jobs
from benchmarks import jobs


def main():
  """Measures and writes a report, as the parent asks for it.

  Arguments are a script below `benchmarks`, a job's name, what `measure` is
  told besides, in JSON, and the file to write.
  """
  script, job, arguments, result = sys.argv[1:]
  module = importlib.import_module(f'benchmarks.{script}')
  values, hyperparameters = module.measure(
    (jobs.JOBS | gpu_jobs.BY_NAME)[job], **json.loads(arguments)
  )
  peak = max(
    resource.getrusage(who).ru_maxrss
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
  )
  report = {
    'values': values,
    'hyperparameters': hyperparameters,
    # kB but on macOS
    'memory': peak if sys.platform == 'darwin' else peak * 1024,
    'versions': {
      name: importlib.metadata.version(name) for name in module.PACKAGES
    },
  }
  pathlib.Path(result).write_text(json.dumps(report), 'utf-8')


if __name__ == '__main__':
  main()
