"""Records under the simulator with a film: what a clean electrode does not explain, again."""

from functools import cached_property

import jax
import numpy as np

from touchstone.contract import summary_of
from touchstone.inference.batches import map_chunks
from touchstone.models.ecsfm.inference.inferrer import Inferrer
from touchstone.models.ecsfm.physics.experiment import Records
from touchstone.models.ecsfm.physics.forward import Forward
from touchstone.models.ecsfm.physics.prior import FILM, RECORD, FouledPrior
from touchstone.vocabulary import Cases, Json, Posterior

COVERAGE = "coverage_end"  # the reading that says how much of a film there is
_N_PRIOR = 1000  # draws of the prior, for its intervals


class Fouled:
    """Inference with the parameters of a film, which starts from that without.

    Args:
        config: The model's `config.yaml`.
    """

    def __init__(self, config: Json):
        self.prior = FouledPrior(config, config["max_couples"])
        self.forward = Forward(self.prior)
        self.inferrer = Inferrer(self.forward)

    def cases(self, cases: Cases[Records]) -> Cases[Records]:
        """The same records with the parameters of a film, which are not known."""
        at = [self.prior.size - len(RECORD) - len(FILM)] * len(FILM)
        records = cases.detail

        def wider(values):
            return np.insert(np.asarray(values), at, 0, axis=1)

        ours = ("z", "known", "belief", "trust")
        records = records._replace(**{name: wider(getattr(records, name)) for name in ours})
        return cases._replace(truth=wider(cases.truth), known=wider(cases.known), detail=records)

    def infer(
        self, cases: Cases[Records], start: Posterior, rng: np.random.Generator, budget: Json
    ) -> Posterior:
        """Posterior of the records of one system.

        Args:
            cases: As from `cases`.
            start: The posterior of a clean electrode.
            rng: For all randomness.
            budget: As in `Posteriors.restarted`.
        """
        return self.inferrer.again(cases, start, jax.random.key(rng.integers(2**32)), budget)

    def table(
        self, cases: Cases[Records], posterior: Posterior, rng: np.random.Generator
    ) -> list[Json]:
        """Rows of the film, as in `Model.table`: coverage at both ends of a record, and rates."""
        before = self.readings(cases, self.draws_of_prior(cases, _N_PRIOR, rng))
        ours = self.readings(cases, posterior.draws)
        several = len(cases.kind) > 1
        return [
            {
                "quantity": name,
                "record": k + 1 if several else None,
                "unit": unit,
                **summary_of(ours[name][k], posterior.weight[k], before[name][k]),
            }
            for k in range(len(cases.kind))
            for name, unit in _UNITS.items()
        ]

    def draws_of_prior(
        self, cases: Cases[Records], n: int, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """As in `Model.prior`."""
        z = rng.standard_normal((len(cases.kind), n, self.prior.size)).astype(np.float32)
        return self.inferrer.prior_values(z, cases.detail)

    def readings(
        self, cases: Cases[Records], draws: dict[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """What a reader wants to know of the film, by name, shape (case, draw) each."""
        return {
            "coverage_start": draws["coverage"],
            COVERAGE: np.stack(
                [self.final_coverage(cases, draws, k) for k in range(len(cases.kind))]
            ),
            "growth": draws["growth"],
            "site_density": draws["site_density"],
        }

    def final_coverage(
        self, cases: Cases[Records], draws: dict[str, np.ndarray], case: int
    ) -> np.ndarray:
        """Fouled fraction of the electrode at the end of a record, shape (draw,)."""
        experiment = cases.detail.experiment
        waveform = self.forward.waveforms(experiment)
        own = jax.tree.map(lambda a: np.asarray(a)[case], (experiment, waveform))
        return map_chunks(self._final_coverages, own, self.natural(draws, case))

    def natural(self, draws: dict[str, np.ndarray], case: int) -> np.ndarray:
        """Natural coordinates of draws of one case, shape (draw, P)."""
        columns = [q.coordinate(draws[q.name][case]) for q in self.prior.parameters]
        return np.stack(columns, axis=1).astype(np.float32)

    @cached_property
    def _final_coverages(self):
        def of_draw(natural, experiment, waveform):
            film = self.prior.fouling(natural, experiment)
            return self.forward.response(natural, experiment, waveform, film).coverage[-1]

        each = jax.vmap(of_draw, in_axes=(0, None, None))
        return jax.jit(lambda own, natural: each(natural, *own))


_UNITS = {"coverage_start": "", COVERAGE: "", "growth": "1/record", "site_density": "mol/cm²"}
