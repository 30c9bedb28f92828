"""The faults that `python -m tests.mutations` makes can still be made."""

import pytest

from tests import mutations


@pytest.mark.parametrize('fault', mutations.FAULTS, ids=lambda each: each.what)
def test_a_fault_has_its_place(fault):
  text = (mutations.ROOT / fault.file).read_text()
  assert text.count(fault.right) == 1
