"""Attenuation by dust, and the laws that it may follow."""

import numpy as np
from jaxtyping import Float

_V = 5500.0  # Å


def calzetti(wavelength: Float[np.ndarray, " wavelength"]) -> Float[np.ndarray, " wavelength"]:
    """Attenuation over that at 5500 Å: Calzetti et al. 2000, eq. 4; constant below 1200 Å."""

    def curve(x):
        blue = 2.659 * (-2.156 + 1.509 / x - 0.198 / x**2 + 0.011 / x**3) + 4.05
        red = 2.659 * (-1.857 + 1.040 / x) + 4.05
        return np.where(x < 0.63, blue, red)

    micron = np.clip(np.asarray(wavelength, float) / 1e4, 0.12, 2.2)
    return curve(micron) / curve(np.array(_V / 1e4))


def power_law(wavelength: np.ndarray, slope: float) -> np.ndarray:
    """Attenuation over that at 5500 Å, a power of the wavelength; constant below 1200 Å."""
    return (np.maximum(wavelength, 1200.0) / _V) ** slope
