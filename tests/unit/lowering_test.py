"""What engines have compiled, lowered for accelerators that aren't here."""

import re

import pytest

from tests import lowering

MIXED = """
dqn.DQN.network = @networks.mixed_precision
networks.mixed_precision.network = @networks.MLP
"""
# The first is quick; `python -m tests.lowering` has all agents.
JOBS = [
  ('dqn.DQN', 'python', ''),
  pytest.param('dqn.DQN', 'compiled', MIXED, marks=pytest.mark.slow),
  pytest.param('ppo.PPO', 'python', '', marks=pytest.mark.slow),
  pytest.param('ppo.PPO', 'compiled', '', marks=pytest.mark.slow),
  pytest.param('r2d2.R2D2', 'python', '', marks=pytest.mark.slow),
  pytest.param('rainbow.Rainbow', 'python', '', marks=pytest.mark.slow),
  pytest.param('sac.SAC', 'compiled', '', marks=pytest.mark.slow),
]
# Programs that write to what they are given, a replay above all.
WRITING = {'learn', 'remember', '_take_steps'}


def main_of(text):
  """Returns the arguments of a program's entry, a line each."""
  (signature,) = re.findall(r'func\.func public @main\((.*)\) ->', text)
  return re.split(r', (?=%arg\d+: )', signature)


@pytest.mark.parametrize(('agent', 'engine', 'gin'), JOBS)
def test_programs_have_a_form_on_accelerators(agent, engine, gin):
  found, _ = lowering.train(agent, engine, gin)
  assert {program.name for program in found} & WRITING
  products = set()
  for program in found:
    for platform in lowering.PLATFORMS:
      text = program.exported(platform).mlir_module()
      # Nothing of twice the bits, and nothing that asks the host.
      assert 'f64' not in text
      assert not re.findall('callback|infeed|outfeed', text)
      products |= set(re.findall(r'dot_general.*x([a-z]+\d+)>\) ->', text))
      if program.name in WRITING:
        aliased = sum('tf.aliasing_output' in each for each in main_of(text))
        assert aliased == program.donated > 0
  assert products == ({'bf16'} if gin else {'f32'})


@pytest.mark.slow  # two trainings for a figure that nothing else depends on
@pytest.mark.parametrize('agent', ['dqn.DQN', 'ppo.PPO'])
def test_only_what_a_step_needs_passes_between_host_and_device(agent):
  # Iterations of 20 time steps of two environments.
  plain = (
    'runner.Runner.evaluation_episodes = 0\n'
    'runner.Runner.checkpoint_period = 9\n'
  )
  longer = 'runner.Runner.num_iterations = 6\n'
  (_, short), (_, long) = (
    lowering.train(agent, 'python', plain + gin) for gin in ('', longer)
  )
  given = (long.given - short.given) / 80
  taken = (long.taken - short.taken) / 80
  # A frame of four numbers, twice, a reward, two flags; an action.
  step, action = 2 * (2 * 16 + 4 + 2), 2 * 4
  # A step that was acted on without an update goes to the replay later.
  assert step + action <= given <= 2 * step + action
  # Two bools an update say whether its metrics are finite.
  assert action <= taken <= action + 8
