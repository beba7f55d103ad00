"""Films: posteriors beside quadrature, and right on average over films of the model's own kind."""

from dataclasses import replace

import numpy as np
import pytest
from regressions import COLUMNS, FROZEN, MODEL, NAMES, frozen_about_the_truth
from scipy.integrate import quad
from scipy.stats import binomtest, kstest, laplace, norm

from touchstone.models.interface import films
from touchstone.models.interface.films import Films
from touchstone.models.interface.frozen import Frozen
from touchstone.models.interface.regression import COEFFICIENTS

STRESSES = MODEL.config["stresses"]


def drawn(n, seed=1, stress=None, severity=0.0, frozen=FROZEN):
    streams = np.random.default_rng(seed).spawn(2)
    entry = (stress, STRESSES[stress]) if stress else None
    return films.draw(frozen, NAMES, n, *streams, entry, severity)


def test_one_draw_gives_the_film_effect_that_quadrature_gives():
    alone = frozen_about_the_truth(1)
    alone = replace(
        alone, **{name: np.repeat(getattr(alone, name), 50, 0) for name in COEFFICIENTS}
    )
    some = drawn(1, frozen=alone)
    x, s, mask = (a[0] for a in some.films)
    y, location = some.target[0], alone.location(some.films.morphology[0], s)[0]
    sd, scatter = float(alone.film_sd[0]), float(alone.scatter[0])

    def density(u, power=0):
        likelihood = laplace.pdf(y[mask], location[mask] + u, scatter).prod()
        return u**power * likelihood * norm.pdf(u, 0, sd)

    breaks = np.sort(y[mask] - location[mask])
    evidence, mean = (
        quad(density, -4.5 * sd, 4.5 * sd, args=(power,), points=breaks, limit=400)[0]
        for power in (0, 1)
    )
    found = films.infer(alone, some.films, some.target, np.random.default_rng(0), 20_000)
    assert found.log_evidence[0] == pytest.approx(np.log(evidence), abs=0.01)
    at_mean = alone.location((mask / mask.sum() @ x)[None], np.zeros((1, 3)))[0, 0]
    expected = alone.mean[-1] + alone.sd[-1] * (at_mean + mean / evidence)
    spread = found.values[0, :, 0].std()
    assert found.values[0, :, 0].mean() == pytest.approx(expected, abs=0.03 * spread)


def test_posteriors_are_right_on_average_and_so_are_predictions():
    some = drawn(400)
    found = films.infer(FROZEN, some.films, some.target, np.random.default_rng(0), 400)
    for k in range(some.truth.shape[1]):
        rank = (found.values[..., k] < some.truth[:, None, k]).mean(1)
        assert kstest(rank, "uniform").pvalue > 1e-3
        inside = int(((rank > 0.05) & (rank < 0.95)).sum())
        assert binomtest(inside, len(rank), 0.9).pvalue > 1e-3
    seen = some.films.mask
    assert kstest(found.prediction.innovation[seen], "norm").pvalue > 1e-3


def test_what_comes_after_a_measurement_does_not_change_its_innovation():
    some = drawn(3)
    later = some.target.copy()
    later[:, -1] += 2.0

    def innovations(target):
        found = films.infer(FROZEN, some.films, target, np.random.default_rng(0), 50)
        return found.prediction.innovation

    np.testing.assert_allclose(innovations(later)[:, :-1], innovations(some.target)[:, :-1])
    assert (innovations(later)[:, -1] > innovations(some.target)[:, -1]).all()


@pytest.mark.parametrize("stress", STRESSES)
def test_a_stress_of_no_severity_is_none_and_a_severe_one_is_less_likely(stress):
    usual, control = drawn(60), drawn(60, stress=stress)
    for ours, theirs in zip(
        (*usual.films, usual.target), (*control.films, control.target), strict=True
    ):
        if stress != "outlying":  # whose errors are drawn, if of no size
            np.testing.assert_allclose(ours, theirs)
    severe = drawn(60, stress=stress, severity=1.0)

    def evidence(some):
        return films.infer(
            FROZEN, some.films, some.target, np.random.default_rng(0), 10
        ).log_evidence

    assert (evidence(severe) < evidence(usual)).mean() > 0.5


def test_the_area_of_a_polymorph_is_its_own_and_a_wrong_background_changes_none():
    usual = drawn(20).truth
    shift = FROZEN.sd[-1] * MODEL.config["stresses"]["polymorph"]["area"]
    polymorph = drawn(20, stress="polymorph", severity=1.0).truth
    np.testing.assert_allclose(polymorph[:, 0], usual[:, 0] + shift)
    np.testing.assert_allclose(polymorph[:, 1:], usual[:, 1:])
    np.testing.assert_allclose(drawn(20, stress="background", severity=1.0).truth, usual)


def test_a_film_unlike_those_of_the_training_is_outside_and_one_of_them_is_not():
    inside = Films(*(a[:1] for a in drawn(1).films))
    names = COLUMNS.stimuli
    for film, series, count in zip(FROZEN.films, FROZEN.series, FROZEN.counts, strict=True):
        assert FROZEN.outside(film, series[:count], names) == []
    (said,) = FROZEN.outside(inside.mean[0] + 9.0, FROZEN.series[0], names)
    assert "the morphology is" in said
    (said,) = FROZEN.outside(FROZEN.films[0], FROZEN.series[0] + [0, 20, 0], names)
    assert said.startswith("Tg_num is ")


def test_an_artefact_that_was_altered_or_is_of_another_version_is_refused(tmp_path):
    FROZEN.save(tmp_path, COLUMNS, {}, {})
    again, verified = Frozen.load(tmp_path, COLUMNS)
    assert verified
    np.testing.assert_allclose(again.product, FROZEN.product, rtol=1e-6)
    other = COLUMNS._replace(morphology=COLUMNS.morphology[::-1])
    with pytest.raises(ValueError, match="columns: are others than the model's"):
        Frozen.load(tmp_path, other)
    file = tmp_path / "regression.npz"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=r"regression\.npz: differs from its sha256"):
        Frozen.load(tmp_path, COLUMNS)
