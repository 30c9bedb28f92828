"""Packages, dependencies and the command `dopamine-jax`."""

import pathlib
import re

import setuptools

ROOT = pathlib.Path(__file__).resolve().parent

# Lower bounds are the versions that this was written with, or a little older.
INSTALL_REQUIRES = [
  'flax>=0.12.8',
  'gin-config>=0.5.0',
  # The extra draws CartPole: pygame-ce. gymnax 1.0.1 takes nothing newer.
  'gymnasium[classic-control]>=1.3.0',
  'imageio>=2.38.0',
  'imageio-ffmpeg>=0.6.0,<0.8',  # 0.8 doubles the ffmpeg inside, to 173 MB
  'jax>=0.10.2',
  'numpy>=2.4',
  'optax>=0.2.8',
  'psutil>=7.0',
  'rich>=15.0',
  'rlax>=0.1.9',
  'scipy>=1.15',
  'tensorboard>=2.21.0',
  'tensorboardX>=2.6.5',
  'tensorstore>=0.1.80',  # reads older versions' checkpoints
  'typer>=0.29.0',
]

# What builds the documentation, and the tests of it.
DOCS_REQUIRE = [
  'latex2mathml>=3.78',
  'mkdocs>=1.6,<2',
  'mkdocs-material>=9.7',
  'mkdocstrings[python]>=1.0',
  'nbformat>=5.10',
]

EXTRAS_REQUIRE = {
  'analysis': ['matplotlib>=3.10', 'pandas>=2.2'],
  'atari': ['ale-py>=0.12.1'],  # GPL-2.0
  'minatar': ['MinAtar>=1.0.15'],  # GPL-3.0
  'mujoco': ['gymnasium[mujoco]>=1.3.0'],
  'box2d': ['box2d>=2.3.10'],
  # DeepMind's control suite; its newest release uses names that MuJoCo 4 lacks.
  'dm_control': ['dm-control>=1.0.50', 'shimmy>=2.0.1', 'mujoco<4'],
  # Goals for hindsight. Release 1.4.2 asserts that MuJoCo's kinds of joints are
  # equal to numbers of NumPy's, which from 3.12 on fails but in mazes.
  'robotics': ['gymnasium-robotics>=1.4.2', 'mujoco>=3.3,<3.12'],
  'brax': ['brax>=0.14.0'],
  # Exactly this one: beside newer packages than it allows, pip would take 0.0.9
  # without a word, whose steps are others. It imports six and doesn't say so.
  'gymnax': ['gymnax==1.0.1', 'six>=1.16'],
  # Trained with MuJoCo and MJX 3.17, warp 1.19 and jax 0.10.2. With MuJoCo 4.0
  # beside that MJX, steps are traced alike, and nothing more was tried.
  'playground': ['playground>=0.2.0', 'mujoco<4', 'mujoco-mjx<4'],
  # It brings pygame, for playing by hand, whose folder is pygame-ce's too: the
  # later one lies over the other. Whoever uninstalls one reinstalls the other.
  'craftax': ['craftax>=1.6.1'],
  # An agent as safetensors, and as a program that JAX alone can run.
  'export': ['flatbuffers>=24.3', 'safetensors>=0.6'],
  # Datasets of the Farama Foundation, for the offline engine.
  'minari': ['minari[hdf5]>=0.5.3'],
  # `sweep --search tpe`.
  'sweep': ['optuna>=5.0'],
  # Sweeps over a cluster; 235 MB.
  'ray': ['ray>=2.60'],
  'docs': DOCS_REQUIRE,
  # TensorBoard's page of profiles; 300 MB, of which none is TensorFlow.
  'profile': ['xprof>=2.24'],
  'dev': [
    *DOCS_REQUIRE,
    'build>=1.3',
    'hypothesis>=6.150',
    'ipykernel>=7.0',  # the tests run the notebooks
    'nbclient>=0.11',
    'pre-commit>=4.0',
    'pytest>=9.0',
    'pytest-xdist>=3.8',
    'ruff>=0.17',
    'setuptools>=70.1',  # the tests build the package without isolation
  ],
}
# By request only. gymnax holds gymnasium below 1.4 and jax below 0.12, and with
# xprof come the clients of a cloud. The control suite, Gymnasium-Robotics and
# Playground hold MuJoCo back, and Playground brings warp, which is large. What
# Craftax draws with lies over pygame-ce. Minari is for those who have its
# datasets, and Ray for those who have a cluster.
BY_REQUEST = (
  *('craftax', 'dm_control', 'gymnax', 'minari', 'playground'),
  *('profile', 'ray', 'robotics'),
)
EXTRAS_REQUIRE['all'] = sorted(
  set().union(
    *(
      EXTRAS_REQUIRE[extra]
      for extra in EXTRAS_REQUIRE
      if extra not in BY_REQUEST
    )
  )
)


def version() -> str:
  source = (ROOT / 'dopamine_jax' / '__init__.py').read_text('utf-8')
  return re.search(r"^__version__ = '(.+)'$", source, re.MULTILINE)[1]


setuptools.setup(
  name='dopamine-jax',
  version=version(),
  description='Reinforcement-learning research in JAX.',
  long_description=(ROOT / 'README.md').read_text('utf-8'),
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  python_requires='>=3.11',
  # agents/ and configs/ lie at the top of the checkout, where a reader finds
  # them; links in dopamine_jax/ make them parts of the package.
  packages=[
    *setuptools.find_packages(include=['dopamine_jax', 'dopamine_jax.*']),
    'dopamine_jax.configs',
  ],
  # Said, so that an editable install is a path, which editors and mypy follow.
  package_dir={'': '.'},
  package_data={
    'dopamine_jax': ['py.typed'],
    'dopamine_jax.configs': ['*.gin'],
    'dopamine_jax.analysis': ['data/*', 'templates/*'],
  },
  install_requires=INSTALL_REQUIRES,
  extras_require=EXTRAS_REQUIRE,
  entry_points={
    'console_scripts': ['dopamine-jax = dopamine_jax.__main__:main']
  },
)
