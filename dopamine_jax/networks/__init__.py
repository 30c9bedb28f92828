"""Networks that agents share, as Flax modules; read `standard` first.

What gin files name as `networks.MLP` lies there. `modules` is the base that
checks fields; `heads` has noisy layers and dueling, `impala` a residual torso,
`simba` one of dense layers, `pixels` DrQ-v2's encoder, `latent` what MR.Q is
made of. `recurrent` has networks with memory, `encoded` what observations of
several parts go through. `stateful` has layers that differ in training,
`statistics` what they may keep, `variables` how a pass tells them; `precision`
has passes of fewer bits. `layers` and `convolution` are forms for CPUs.
"""

from dopamine_jax.networks.encoded import Encoded
from dopamine_jax.networks.encoded import Unmasked
from dopamine_jax.networks.fourier import FourierBasis
from dopamine_jax.networks.fourier import fourier_features
from dopamine_jax.networks.pixels import PixelTorso
from dopamine_jax.networks.pixels import Projection
from dopamine_jax.networks.precision import mixed_precision
from dopamine_jax.networks.recurrent import RecurrentActorCritic
from dopamine_jax.networks.recurrent import RecurrentQ
from dopamine_jax.networks.simba import SimBa
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
from dopamine_jax.networks.stateful import BatchNorm
from dopamine_jax.networks.stateful import BatchRenorm
from dopamine_jax.networks.stateful import BatchRenormMLP
from dopamine_jax.networks.stateful import Dropout
from dopamine_jax.networks.stateful import RunningNorm
from dopamine_jax.networks.stateful import SpectralNorm
from dopamine_jax.networks.stateful import batch_normalized_relu
from dopamine_jax.networks.stateful import batch_renormalized_relu
from dopamine_jax.networks.stateful import dropout_relu
from dopamine_jax.networks.variables import Variables
from dopamine_jax.networks.variables import apply
from dopamine_jax.networks.variables import features
from dopamine_jax.networks.variables import is_training
from dopamine_jax.networks.variables import learnt
from dopamine_jax.networks.variables import part

__all__ = [
  'MLP',
  'Activation',
  'ActorCritic',
  'BatchNorm',
  'BatchRenorm',
  'BatchRenormMLP',
  'Dropout',
  'Encoded',
  'FourierBasis',
  'Initializer',
  'MLPTorso',
  'MinAtarCNN',
  'MinAtarTorso',
  'NatureCNN',
  'NatureTorso',
  'PixelTorso',
  'Projection',
  'RecurrentActorCritic',
  'RecurrentQ',
  'RunningNorm',
  'SimBa',
  'SpectralNorm',
  'Unmasked',
  'Variables',
  'apply',
  'as_images',
  'batch_normalized_relu',
  'batch_renormalized_relu',
  'dropout_relu',
  'features',
  'fitting',
  'fourier_features',
  'hidden_layers',
  'is_training',
  'learnt',
  'mixed_precision',
  'normalized_relu',
  'output_layer',
  'part',
]
# The name that gin files and messages have.
for _name in __all__:
  if getattr(vars()[_name], '__module__', '').startswith(f'{__name__}.'):
    vars()[_name].__module__ = __name__
