"""K-corrections and masses by kcorrect 5, for `bench_galaxy.py`, in an environment of their own:

    uv run --no-project --with kcorrect==5.1.9 python benchmarks/galaxy_kcorrect.py in.npz out.npz

`in.npz` holds maggies, ivar (n, 5) and redshift (n,); `out.npz` gets k (n, 5), to rest-frame bands,
and the logarithm of the mass (n,).
"""

import sys

import numpy as np
from astropy.cosmology import FlatLambdaCDM
from kcorrect.kcorrect import KcorrectSDSS

source, target = sys.argv[1:]
given = np.load(source)
engine = KcorrectSDSS(abcorrect=False, cosmo=FlatLambdaCDM(H0=70, Om0=0.3))
redshift, maggies, ivar = (given[name] for name in ("redshift", "maggies", "ivar"))
coefficients = engine.fit_coeffs(redshift=redshift, maggies=maggies, ivar=ivar)
k = engine.kcorrect(redshift=redshift, coeffs=coefficients)
found = engine.derived(redshift=redshift, coeffs=coefficients)
np.savez(target, k=k, log_mass=np.log10(found["mremain"]))
