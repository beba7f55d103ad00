"""Predictions: attributions beside a sum over all coalitions, and what a form is answered."""

from dataclasses import replace
from itertools import combinations
from math import factorial

import numpy as np
import pytest
from regressions import COLUMNS, FROZEN, NAMES, frozen_about_the_truth

from touchstone import registry
from touchstone.models.interface import prediction
from touchstone.models.interface.frozen import Frozen
from touchstone.models.interface.prediction import Background
from touchstone.models.interface.regression import COEFFICIENTS

TARGET = ("S_V_porod", "1/Å")
NOTHING = dict.fromkeys([*NAMES, *COLUMNS.stimuli, "film"])


def few(j=3, n_draws=2):
    """The regression with its first descriptors only: coalitions are few then."""
    kept = {"morphology": FROZEN.morphology[:n_draws, :j], "product": FROZEN.product[:n_draws, :j]}
    others = {name: getattr(FROZEN, name)[:n_draws] for name in COEFFICIENTS if name not in kept}
    return replace(FROZEN, **kept, **others)


def test_attributions_are_shapley_values_of_the_expectation_over_the_training():
    frozen, rng = few(), np.random.default_rng(0)
    background = Background(rng.normal(0.3, 1, (40, 3)), rng.normal(-0.2, 1, (40, 3)))
    point = rng.standard_normal(6)
    rows = np.concatenate(background, axis=1)

    def expectation(coalition):
        mixed = rows.copy()
        mixed[:, coalition] = point[list(coalition)]
        return frozen.location(mixed[:, :3], mixed[:, 3:]).mean(1)

    expected = np.zeros((len(frozen.intercept), 6))
    for i in range(6):
        others = [k for k in range(6) if k != i]
        for size in range(6):
            share = factorial(size) * factorial(5 - size) / factorial(6)
            for coalition in combinations(others, size):
                gain = expectation([*coalition, i]) - expectation(list(coalition))
                expected[:, i] += share * gain
    got = prediction.attribution(frozen, background, point[None, :3], point[None, 3:])[0]
    np.testing.assert_allclose(got, expected, atol=1e-9)
    total = frozen.location(point[None, :3], point[None, 3:])[:, 0] - expectation([])
    np.testing.assert_allclose(got.sum(1), total, atol=1e-9)


def test_attributions_are_those_of_the_shap_package():
    """Its exact explainer, of the function of the posterior mean, over the same background."""
    shap = pytest.importorskip("shap")
    j, rng = 5, np.random.default_rng(0)
    frozen = few(j, 50)
    mean = replace(frozen, **{n: getattr(frozen, n).mean(0, keepdims=True) for n in COEFFICIENTS})
    background = Background(rng.normal(0.3, 1, (30, j)), rng.normal(-0.2, 1, (30, 3)))
    points = rng.standard_normal((4, j + 3))

    def area(rows):
        return mean.location(rows[:, :j], rows[:, j:])[0]

    masker = shap.maskers.Independent(np.concatenate(background, axis=1))
    explained = shap.explainers.Exact(area, masker)(points)
    ours = prediction.attribution(frozen, background, points[:, :j], points[:, j:])
    np.testing.assert_allclose(ours.mean(1), explained.values, atol=1e-9)


def answer(frozen=FROZEN, **values):
    names = NAMES, COLUMNS.stimuli
    values = {**NOTHING, "quantile": 0.8, **values}
    return prediction.answer(frozen, names, values, TARGET, np.random.default_rng(0))


def test_a_known_film_is_predicted_more_narrowly_than_a_new_one_like_it():
    def width(row):
        return row["high"] - row["low"]

    label = str(FROZEN.labels[2])
    known = answer(film=label)
    j, natural = len(NAMES), known["assumed"]
    assert natural["d_pi"] == pytest.approx(
        FROZEN.mean[j - 1 - 2] + FROZEN.sd[j - 1 - 2] * FROZEN.films[2, j - 1 - 2]
    )
    unknown = answer(**natural)
    assert unknown["assumed"] == {}
    # The draws of this regression know as little of its film effects as of others.
    for ours, theirs in zip(known["estimates"], unknown["estimates"], strict=True):
        assert width(ours) == pytest.approx(width(theirs), rel=0.2)
    of_film, of_measurement = known["estimates"]
    assert width(of_measurement) > width(of_film)


def test_a_stimulus_out_of_range_and_a_film_that_is_not_there_are_said():
    (said,) = answer(Tg_num=600.0)["outside_training"]
    assert said.startswith("Tg_num is 600, trained from ")
    with pytest.raises(ValueError, match="film: 'film 99' is none of the training's: film 1,"):
        answer(film="film 99")


@pytest.mark.parametrize("value", [0.0, 400.1])
def test_a_stimulus_that_never_varied_is_answered_at_its_value_and_no_other(value, tmp_path):
    def change(films):
        stimuli = films.stimuli.copy()
        stimuli[:, 1] = value
        return films._replace(stimuli=stimuli)

    frozen_about_the_truth(20, change=change).save(tmp_path, COLUMNS, {}, {})
    frozen, _ = Frozen.load(tmp_path, COLUMNS)
    there, elsewhere = answer(frozen, Tg_num=value), answer(frozen, Tg_num=value + 1)
    assert there["outside_training"] == []
    assert elsewhere["outside_training"][0].startswith("Tg_num is ")
    for row in (*there["estimates"], *elsewhere["estimates"], *elsewhere["attribution"]):
        assert np.isfinite([row["low"], row["median"], row["high"]]).all()
    assert frozen.novelty(frozen.films[0], frozen.series[0]) <= 1 + 1e-6


def test_stimuli_that_were_each_tried_but_not_together_are_said():
    """Where two stimuli always moved together, their ranges hold pairs that none of them had."""

    def change(films):
        stimuli = films.stimuli.copy()
        stimuli[:, 1] = 400 + 20 * (stimuli[:, 0] - 1.5) + 0.1 * (stimuli[:, 1] - 400)
        return films._replace(stimuli=stimuli)

    frozen = frozen_about_the_truth(20, change=change)
    for series, count in zip(frozen.series, frozen.counts, strict=True):
        assert frozen.outside(frozen.films[0], series[:count], COLUMNS.stimuli) == []
    assert answer(frozen, Efield_num=2.5, Tg_num=420.0)["outside_training"] == []
    (said,) = answer(frozen, Efield_num=2.5, Tg_num=370.0)["outside_training"]
    assert said.startswith("the combination of Efield_num, Tg_num, CB_length_nm was not tried")


def test_a_change_of_a_known_film_is_paired_with_the_film_as_it_is():
    label, j = str(FROZEN.labels[2]), len(NAMES)
    plain = answer(film=label)
    *_, change = (changed := answer(film=label, Tg_num_change=20.0))["estimates"]
    # The effect of the stimulus on this film, times the change: no film effect, no intercept.
    effect = FROZEN.effects(FROZEN.films[2])[:, 1] * 20 / FROZEN.sd[j + 1] * FROZEN.sd[-1]
    expected = np.quantile(effect, [0.05, 0.5, 0.95])
    assert [change[end] for end in ("low", "median", "high")] == pytest.approx(expected)
    of_film = changed["estimates"][0]
    assert change["high"] - change["low"] < 0.5 * (of_film["high"] - of_film["low"])
    value = plain["assumed"]["Tg_num"]
    assert f"Tg_num {value:.4g} to {value + 20:.4g}" in change["meaning"]
    # The same as naming the value; and a film without a change has no difference.
    again = answer(film=label, Tg_num=value + 20)
    assert [row["median"] for row in again["estimates"]] == pytest.approx(
        [row["median"] for row in changed["estimates"]]
    )
    assert len(plain["estimates"]) == 2


def test_bounds_of_the_form_are_those_of_the_training_whatever_its_unit():
    def problems(frozen=FROZEN, **values):
        return prediction.problems(frozen, (NAMES, COLUMNS.stimuli), COLUMNS, NOTHING | values)

    def in_celsius(films):
        return films._replace(stimuli=films.stimuli - [0, 273.15, 0])

    assert problems(Tg_num=420.0) == []
    (said,) = problems(Tg_num=100.0)
    assert said.startswith("Tg_num: 100 is below ")
    celsius = frozen_about_the_truth(20, change=in_celsius)
    assert problems(celsius, Tg_num=120.0) == []
    assert problems(celsius, Tg_num=420.0)[0].startswith("Tg_num: 420 is above ")
    (said,) = problems(Porod_prefactor=1.0)
    assert said == "Porod_prefactor: is not used, since the training left it out"
    said = problems(Tg_num=400.0, Tg_num_change=20.0)
    assert [each.split(":")[0] for each in said] == ["Tg_num_change"] * 2


def test_every_column_of_a_table_has_a_field():
    fields = {field.name for field in registry.get_inference_form_fields("interface")}
    predictors = {*COLUMNS.morphology, *COLUMNS.stimuli}
    assert fields == predictors | {"film", "quantile"} | {f"{s}_change" for s in COLUMNS.stimuli}


def test_the_probability_of_a_high_area_follows_the_effect_of_the_stimulus():
    mean, sd = (getattr(FROZEN, name)[len(NAMES) + 1] for name in ("mean", "sd"))
    low, high = (answer(Tg_num=mean + z * sd)["probabilities"][0]["value"] for z in (-1.5, 1.5))
    assert high > low + 0.2  # the effect is .4 standard deviations
