"""Chromium without a window, driven over a pipe by its DevTools protocol.

No package is needed: messages are JSON that end with a zero byte.
https://chromedevtools.github.io/devtools-protocol
"""

import base64
import contextlib
import json
import os
import pathlib
import select
import shutil
import subprocess
import time

COMMAND = next(
  filter(
    None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))
  ),
  None,
)
_TIMEOUT = 60  # seconds, for the whole of one answer


@contextlib.contextmanager
def start(profile: pathlib.Path):
  """Yields a `Page`; the browser's files go into the folder `profile`."""
  its_in, our_out = os.pipe()
  our_in, its_out = os.pipe()
  # The protocol wants the two ends at 3 and 4.
  shell = f'exec "$0" "$@" 3<&{its_in} 4>&{its_out}'
  flags = (
    *('--headless=new', '--no-sandbox', '--disable-gpu', '--mute-audio'),
    *('--no-first-run', '--disable-dev-shm-usage', '--disable-sync'),
    *('--disable-background-networking', '--disable-component-update'),
    f'--user-data-dir={profile}',
    '--remote-debugging-pipe',
  )
  process = subprocess.Popen(
    ['bash', '-c', shell, COMMAND, *flags],
    pass_fds=(its_in, its_out),
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  os.close(its_in)
  os.close(its_out)
  try:
    page = Page(our_in, our_out)
    yield page
    page.call('Browser.close')  # else its children still write the profile
    process.wait(_TIMEOUT)
  finally:
    process.kill()
    process.wait()
    os.close(our_in)
    os.close(our_out)


class Page:
  """One tab.

  Attributes:
    events: what the browser told of it, as (method, parameters).
  """

  def __init__(self, read, write):
    self._read, self._write = read, write
    self._buffer, self._count, self._session = b'', 0, None
    self.events = []
    target = self.call('Target.createTarget', url='about:blank')['targetId']
    attached = self.call('Target.attachToTarget', targetId=target, flatten=True)
    self._session = attached['sessionId']
    for domain in ('Page', 'Runtime', 'Log', 'Network'):
      self.call(f'{domain}.enable')

  def call(self, method, **parameters):
    """Returns what a command of the protocol answers."""
    self._count += 1
    message = {'id': self._count, 'method': method, 'params': parameters}
    if self._session:
      message['sessionId'] = self._session
    os.write(self._write, json.dumps(message).encode() + b'\0')
    while True:
      answer = self._message()
      if answer.get('id') == self._count:
        assert 'error' not in answer, answer
        return answer['result']

  def _message(self):
    deadline = time.monotonic() + _TIMEOUT
    while b'\0' not in self._buffer:
      left = deadline - time.monotonic()
      ready, _, _ = select.select([self._read], [], [], max(0, left))
      data = os.read(self._read, 1 << 20) if ready else b''
      assert data, 'the browser is silent or gone'
      self._buffer += data
    text, _, self._buffer = self._buffer.partition(b'\0')
    message = json.loads(text)
    if 'method' in message:
      self.events.append((message['method'], message['params']))
    return message

  def open(self, file, width=1280, dark=False):
    """Shows a file, and returns once it is loaded."""
    self.events.clear()
    self.look(width, dark)
    self.call('Page.navigate', url=pathlib.Path(file).resolve().as_uri())
    while not any(name == 'Page.loadEventFired' for name, _ in self.events):
      self._message()

  def look(self, width, dark):
    """Sets the window's width and the user's preference."""
    self.call(
      'Emulation.setDeviceMetricsOverride',
      width=width,
      height=900,
      deviceScaleFactor=1,
      mobile=width < 600,
    )
    scheme = 'dark' if dark else 'light'
    self.call(
      'Emulation.setEmulatedMedia',
      features=[{'name': 'prefers-color-scheme', 'value': scheme}],
    )

  def evaluate(self, expression):
    """Returns the value of an expression in the page."""
    answer = self.call(
      'Runtime.evaluate',
      expression=expression,
      returnByValue=True,
      awaitPromise=True,
      userGesture=True,
    )
    assert 'exceptionDetails' not in answer, answer
    return answer['result'].get('value')

  def complaints(self):
    """Returns what stands in the page's console, and what was not loaded."""
    self.evaluate('new Promise(done => setTimeout(done, 200))')
    names = (
      *(
        'Log.entryAdded',
        'Runtime.consoleAPICalled',
        'Runtime.exceptionThrown',
      ),
      'Network.loadingFailed',
    )
    return [event for event in self.events if event[0] in names]

  def fetched(self):
    """Returns the addresses that the page has asked for."""
    return [
      parameters['request']['url']
      for name, parameters in self.events
      if name == 'Network.requestWillBeSent'
    ]

  def screenshot(self, file):
    """Writes the whole page, however long, as PNG."""
    answer = self.call('Page.captureScreenshot', captureBeyondViewport=True)
    pathlib.Path(file).write_bytes(base64.b64decode(answer['data']))
