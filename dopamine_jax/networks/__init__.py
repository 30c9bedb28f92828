"""Networks that agents share, as Flax modules; read `standard` first.

What gin files name as `networks.MLP` lies there. `modules` is the base that
checks fields; `heads` has noisy layers and dueling, `impala` a residual torso.
`recurrent` has networks with memory, `encoded` what observations of several
parts go through. `layers` and `convolution` are forms that are fast on CPUs.
"""

from dopamine_jax.networks import encoded
from dopamine_jax.networks import fourier
from dopamine_jax.networks import recurrent
from dopamine_jax.networks import standard
from dopamine_jax.networks.encoded import Encoded
from dopamine_jax.networks.encoded import Unmasked
from dopamine_jax.networks.fourier import FourierBasis
from dopamine_jax.networks.fourier import fourier_features
from dopamine_jax.networks.recurrent import RecurrentActorCritic
from dopamine_jax.networks.recurrent import RecurrentQ
from dopamine_jax.networks.standard import MLP
from dopamine_jax.networks.standard import Activation
from dopamine_jax.networks.standard import ActorCritic
from dopamine_jax.networks.standard import Initializer
from dopamine_jax.networks.standard import MinAtarCNN
from dopamine_jax.networks.standard import MinAtarTorso
from dopamine_jax.networks.standard import MLPTorso
from dopamine_jax.networks.standard import NatureCNN
from dopamine_jax.networks.standard import NatureTorso
from dopamine_jax.networks.standard import as_images
from dopamine_jax.networks.standard import fitting
from dopamine_jax.networks.standard import hidden_layers
from dopamine_jax.networks.standard import normalized_relu
from dopamine_jax.networks.standard import output_layer

__all__ = [
  'MLP',
  'Activation',
  'ActorCritic',
  'Encoded',
  'FourierBasis',
  'Initializer',
  'MLPTorso',
  'MinAtarCNN',
  'MinAtarTorso',
  'NatureCNN',
  'NatureTorso',
  'RecurrentActorCritic',
  'RecurrentQ',
  'Unmasked',
  'as_images',
  'fitting',
  'fourier_features',
  'hidden_layers',
  'normalized_relu',
  'output_layer',
]
# The name that gin files and messages have.
for _name in __all__:
  if getattr(vars()[_name], '__module__', '') in (
    encoded.__name__,
    fourier.__name__,
    recurrent.__name__,
    standard.__name__,
  ):
    vars()[_name].__module__ = __name__
