"""`python -m benchmarks [JOB ...]` runs the named jobs, or all of speed."""

import sys

from benchmarks import speed


def main():
  """Reads job names; JOB:S runs a job with S seeds."""
  for name in sys.argv[1:] or [*speed.JOBS, 'Asmall:8']:
    job, _, num_seeds = name.partition(':')
    if job not in speed.JOBS:
      sys.exit(f'no job {job}; there are {", ".join(speed.JOBS)}')
    speed.report(job, int(num_seeds or 1))


if __name__ == '__main__':
  main()
