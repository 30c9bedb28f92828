"""The journal survives a kill at any byte."""

import json

import hypothesis
from hypothesis import strategies as st
import pytest

from dopamine_jax import errors
from dopamine_jax.sweeps import journal as journal_lib

BATCHES = [
  [{'event': 'trial', 'trial': 0}, {'event': 'entered', 'trial': 0}],
  [{'event': 'pack', 'pack': '0.0'}],
  [{'event': 'result', 'scores': [1.5, None]}, {'event': 'stopped'}],
]


def without_times(records):
  return [{k: v for k, v in x.items() if k != 'time'} for x in records]


@hypothesis.given(share=st.floats(0, 1))
def test_of_what_was_cut_short_nothing_counts(tmp_path_factory, share):
  folder = tmp_path_factory.mktemp('sweep')
  journal = journal_lib.Journal(folder)
  ends = [0]
  for batch in BATCHES:
    journal.append(batch)
    ends.append((folder / 'journal.jsonl').stat().st_size)
  data = (folder / 'journal.jsonl').read_bytes()
  cut = int(share * len(data))
  (folder / 'journal.jsonl').write_bytes(data[:cut])
  whole = max(i for i, end in enumerate(ends) if end <= cut)
  expected = [each for batch in BATCHES[:whole] for each in batch]
  assert without_times(journal.read()) == expected
  # What is appended stands behind what was whole.
  journal.append([{'event': 'more'}])
  assert without_times(journal.read()) == [*expected, {'event': 'more'}]


def test_there_is_nothing_at_first(tmp_path):
  assert journal_lib.Journal(tmp_path).read() == []


@pytest.mark.parametrize('line', ['{', '[]', '{"event": "x"}', '7', '\xff'])
def test_a_damaged_line_is_named(tmp_path, line):
  journal = journal_lib.Journal(tmp_path)
  journal.append(BATCHES[0])
  with (tmp_path / 'journal.jsonl').open('ab') as file:
    file.write(line.encode('latin-1') + b'\n')
    file.write(json.dumps({'event': 'y', 'more': 0}).encode() + b'\n')
  with pytest.raises(errors.UserError, match='line 3 can not be read'):
    journal.read()


def test_sweeps_that_differ_in_order_and_time_alone_are_the_same(tmp_path):
  records = [each for batch in BATCHES for each in batch]
  one = journal_lib.canonical([{**x, 'time': 1.0} for x in records])
  other = journal_lib.canonical([{**x, 'time': 2.0} for x in records[::-1]])
  assert one == other
  assert one != journal_lib.canonical(records[1:])
