"""Reads a pickle of lists of numbers, and runs nothing that it says.

A pickle is a program. This reader takes the steps that build dictionaries,
lists, strings and numbers, knows stand-ins alone for what a log of Dopamine's
names, and refuses everything else. What a few bytes can ask for is bounded too:
Python's own reader in C makes room for as many objects as one number says, and
nested repetitions would multiply.
"""

import io
import pickle
import pickletools
import re

import numpy as np

from dopamine_jax import errors

MAX_STEPS = 4_000_000  # of the program, each at most an object of 100 bytes
_MAX_ARGUMENTS = 4
_MAX_BYTES = 16  # of one number

_KNOWN_STEPS = (
  *('PROTO', 'FRAME', 'STOP', 'MARK', 'NONE', 'NEWTRUE', 'NEWFALSE'),
  *('INT', 'BININT', 'BININT1', 'BININT2', 'LONG', 'LONG1'),
  *('FLOAT', 'BINFLOAT', 'STRING', 'BINSTRING', 'SHORT_BINSTRING'),
  *('UNICODE', 'BINUNICODE', 'SHORT_BINUNICODE', 'BINBYTES'),
  *('SHORT_BINBYTES', 'EMPTY_DICT', 'DICT', 'SETITEM', 'SETITEMS'),
  *('EMPTY_LIST', 'LIST', 'APPEND', 'APPENDS', 'EMPTY_TUPLE', 'TUPLE'),
  *('TUPLE1', 'TUPLE2', 'TUPLE3', 'GET', 'BINGET', 'LONG_BINGET'),
  *('PUT', 'BINPUT', 'LONG_BINPUT', 'MEMOIZE', 'GLOBAL', 'STACK_GLOBAL'),
  *('REDUCE', 'BUILD'),
)
_CODES = {code.name: ord(code.code) for code in pickletools.opcodes}


def loads(data: bytes) -> object:
  """Returns what a pickle holds.

  Raises:
    UserError: if it names what is no number, or does more than a log needs.
    Exception: whatever damage makes of a pickle.
  """
  return _Unpickler(io.BytesIO(data), encoding='latin1').load()


# Python's own, since what it does in C can't be bounded.
class _Unpickler(pickle._Unpickler):
  """Builds data and calls nothing but the stand-ins below."""

  def __init__(self, *args, **kwargs):
    super().__init__(*args, **kwargs)
    self.dispatch = _Steps(self.dispatch)

  def find_class(self, module, name):
    """Returns a stand-in for what a log may name, whatever it really is."""
    stand_in = _STAND_INS.get((module, name))
    if stand_in is None:
      raise errors.UserError(
        f'it names {module[:80]}.{name[:80]}, and a log is expected to hold '
        'nothing but numbers. It is not read, since to read it may run code.'
      )
    return stand_in


class _Steps(dict):
  """What each step of a pickle does; counts them."""

  def __init__(self, steps):
    known = {_CODES[name]: steps[_CODES[name]] for name in _KNOWN_STEPS}
    super().__init__(known | _OWN_STEPS)
    self._left = MAX_STEPS

  def __getitem__(self, code):
    self._left -= 1
    if self._left < 0:
      raise errors.UserError(
        f'it takes more than {MAX_STEPS:,} steps to read, and is left.'
      )
    return super().__getitem__(code)

  def __missing__(self, code):
    raise errors.UserError(
      f'it has the step {bytes([code])!r}, which no list of numbers needs.'
    )


def _reduce(unpickler):
  """Calls a stand-in, with as few arguments as a log's have."""
  arguments, function = unpickler.stack.pop(), unpickler.stack.pop()
  if type(arguments) is not tuple or len(arguments) > _MAX_ARGUMENTS:
    raise ValueError(f'expected at most {_MAX_ARGUMENTS} arguments')
  if not any(function is known for known in _STAND_INS.values()):
    raise ValueError('expected a call of something that it names')
  unpickler.append(function(*arguments))


def _build(unpickler):
  state = unpickler.stack.pop()
  unpickler.stack[-1].__setstate__(state)


def _set_item(unpickler):
  value, key = unpickler.stack.pop(), unpickler.stack.pop()
  _fill(unpickler.stack[-1], [key, value])


def _set_items(unpickler):
  items = unpickler.pop_mark()
  _fill(unpickler.stack[-1], items)


def _dict(unpickler):
  items = unpickler.pop_mark()
  unpickler.append({})
  _fill(unpickler.stack[-1], items)


def _fill(target, items):
  """Fills a dictionary; to look up other keys than text may take for ever."""
  keys = items[::2]
  if not isinstance(target, dict) or not set(map(type, keys)) <= {str}:
    raise ValueError('expected a dictionary with names as keys')
  target.update(zip(keys, items[1::2], strict=True))


_OWN_STEPS = {
  _CODES['REDUCE']: _reduce,
  _CODES['BUILD']: _build,
  _CODES['SETITEM']: _set_item,
  _CODES['SETITEMS']: _set_items,
  _CODES['DICT']: _dict,
}


class _Dict(dict):
  """For defaultdict and OrderedDict, without a factory that could be called."""

  def __init__(self, *args):
    super().__init__()


class _Nothing:
  """For functools.partial, which a defaultdict carries."""

  def __init__(self, *args):
    pass

  def __setstate__(self, state):
    pass


class _DType:
  """For numpy.dtype: numbers of a fixed size, and no objects."""

  def __init__(self, name, *args):
    if not re.fullmatch(r'[fiub][1248]', name):
      raise errors.UserError(
        f'it holds NumPy scalars of the type {name[:20]!r}.'
      )
    self.name = name

  def __setstate__(self, state):
    if state[1] == '>':
      self.name = '>' + self.name.removeprefix('>')


def _scalar(dtype, data):
  """For NumPy's scalar constructor."""
  if not isinstance(dtype, _DType) or len(data) > _MAX_BYTES:
    raise ValueError('expected the bytes of one number')
  data = data.encode('latin1') if isinstance(data, str) else data
  (value,) = np.frombuffer(data, dtype.name)
  return value.item()


def _encode(text, encoding):
  """For the codec that old protocols write bytes with."""
  if encoding != 'latin1' or len(text) > _MAX_BYTES:
    raise errors.UserError('it holds bytes that are not those of a number.')
  return text.encode('latin1')


_STAND_INS = {
  ('_codecs', 'encode'): _encode,
  ('collections', 'defaultdict'): _Dict,
  ('collections', 'OrderedDict'): _Dict,
  ('functools', 'partial'): _Nothing,
  ('builtins', 'list'): _Nothing,
  ('__builtin__', 'list'): _Nothing,
  ('numpy', 'dtype'): _DType,
  **{
    (module, 'scalar'): _scalar
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray')
  },
}
