"""Independent entries of zero mean and unit variance: Gaussian, and laws to hold against it."""

from typing import ClassVar

import jax
import jax.numpy as jnp

from mirage.inputs.base import Drawn, normal
from mirage.trigonometry import cos


class Gaussian(Drawn):
    """x ~ N(0, I_d), the inputs of all the theory."""

    standard_gaussian: ClassVar[bool] = True

    def rows(self, key, shape):
        return normal(key, shape)


class Rademacher(Drawn):
    """Entries ±1 with equal chance. With `directions=axes` the target would see signs alone."""

    def rows(self, key, shape):
        return jax.random.rademacher(key, shape, jnp.float32)


class Uniform(Drawn):
    """Entries uniform on [−√3, √3]."""

    def rows(self, key, shape):
        return jax.random.uniform(key, shape, jnp.float32, -(3**0.5), 3**0.5)


class Student(Drawn):
    """Entries of Student's law with `degrees_of_freedom` ν > 2, brought to unit variance.

    Drawn as √((ν − 2)(u^{−2/ν} − 1)) cos(2πv) with u, v uniform (Bailey 1994).
    """

    degrees_of_freedom: float = 5.0

    def __check_init__(self):
        accepted = "expected a number > 2 (the variance is infinite otherwise)"
        self.check("degrees_of_freedom", self.degrees_of_freedom > 2, accepted)

    def rows(self, key, shape):
        nu = jnp.asarray(self.degrees_of_freedom, jnp.float32)
        # Uniform numbers are multiples of 2^-23: a 0 stands for less than that, not for 1e-38.
        u, v = jax.random.uniform(key, (2, *shape), jnp.float32, 2.0**-24, 1.0)
        radius = jnp.sqrt((nu - 2) * jnp.expm1(-2 / nu * jnp.log(u)))
        return radius * cos(2 * jnp.pi * v)
