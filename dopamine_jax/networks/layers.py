"""A dense layer whose gradient is fast on CPUs, over seeds above all.

A kernel's gradient is a product whose left factor, the layer's input, lies
transposed in memory. XLA's CPU has a slower program for those, up to ten times
as slow where kernels have few outputs, and twice where they have a batch axis
(one network a seed under `jax.vmap`). It costs less to transpose the gradients
of few outputs, or else a small input, first: `python -m benchmarks.layers`.
"""

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from dopamine_jax.networks import platforms

# Numbers of an input, of one seed, up to which transposing it pays off.
_SMALL = 2**15
# Outputs up to which transposing their gradients does.
_FEW = 32


class Dense(nn.Module):
  """Drop-in for `nn.Dense`: the same parameters and numbers.

  Maps [..., C] of any number type to [..., features], of the kernel's type.

  Attributes:
    features: size of the output.
    use_bias: whether to add a learned number to each output.
    kernel_init: initializer of `kernel` [C, features].
    bias_init: initializer of `bias` [features].
  """

  features: int
  use_bias: bool = True
  kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
  bias_init: nn.initializers.Initializer = nn.initializers.zeros_init()

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns the products of `x` and the kernel, and the bias added."""
    shape = (x.shape[-1], self.features)
    kernel = self.param('kernel', self.kernel_init, shape, jnp.float32)
    y = multiply(x, kernel)
    if self.use_bias:
      bias = self.param('bias', self.bias_init, shape[1:], jnp.float32)
      y += jnp.broadcast_to(bias, y.shape)
    return y


def multiply(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Returns `x @ kernel` [..., K] of x [..., C] and kernel [C, K], in its type.

  A pass of fewer bits has kernels of fewer: see `precision`.
  """
  rows = x.reshape(-1, x.shape[-1]).astype(jnp.result_type(kernel))
  y = _multiply(rows, kernel) if _pays_off(rows, kernel) else rows @ kernel
  return y.reshape(*x.shape[:-1], -1)


def once(x: jax.Array) -> jax.Array:
  """Returns `x`, float32 and finite, which XLA's CPU then computes once.

  Use it for random numbers that many others are changed by. XLA's CPU compiler
  copies cheap operations into all that reads them, and drawing counts as cheap:
  one number is drawn anew for each pixel that it changes. It does not copy a
  matrix product, so this is one, with the identity. A barrier
  (`lax.optimization_barrier`) is gone before it decides.
  """
  if not platforms.is_cpu():
    return x
  rows = jnp.pad(x.reshape(-1), (0, -x.size % 8)).reshape(-1, 8)
  return (rows @ jnp.eye(8)).reshape(-1)[: x.size].reshape(x.shape)


def _pays_off(x, kernel):
  # Decided when tracing: none of it changes in a compiled function.
  if not platforms.is_cpu():
    return False
  return _has_few_outputs(kernel) or x.size <= _SMALL


def _has_few_outputs(kernel):
  num_inputs, num_outputs = kernel.shape
  return num_outputs <= min(_FEW, num_inputs)


@jax.custom_jvp
def _multiply(x, kernel):
  return x @ kernel


def _differentiate(primals, tangents):
  """The same derivative as ever; transposing makes it the kernel's gradient."""
  (x, kernel), (dx, dkernel) = primals, tangents
  zero = jax.custom_derivatives.SymbolicZero
  parts = []
  if not isinstance(dx, zero):
    parts.append(dx @ kernel)
  if not isinstance(dkernel, zero):
    # XLA would undo the transpositions, if it saw them.
    if _has_few_outputs(kernel):
      columns = lax.optimization_barrier(dkernel.T) @ x.T
      parts.append(lax.optimization_barrier(columns).T)
    else:
      columns = lax.optimization_barrier(x.T)
      parts.append(lax.dot_general(columns, dkernel, (((0,), (0,)), ((), ()))))
  return _multiply(x, kernel), sum(parts[1:], start=parts[0])


_multiply.defjvp(_differentiate, symbolic_zeros=True)
