"""A page of HTML, taken apart."""

import html.parser


class Parser(html.parser.HTMLParser):
  """Collects text and elements, and that each is closed."""

  def __init__(self, text):
    super().__init__()
    self.text, self.elements, self.open = [], [], []
    self.feed(text)

  def handle_starttag(self, tag, attributes):
    self.elements.append((tag, dict(attributes)))
    if tag not in ('meta', 'link'):
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if 'style' not in self.open and 'script' not in self.open:
      self.text.append(data)
