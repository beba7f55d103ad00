"""Kinds of arrays: of JAX where they are traced, of NumPy where data lie."""

import numpy as np
from jax import Array
from jaxtyping import Float

AnyArray = Array | np.ndarray
Number = Float[Array, ""] | np.floating | float
