"""Tables of films: what is read, what is refused, and which columns are of use."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from touchstone.contract import load_model
from touchstone.models.interface import cohort, table
from touchstone.models.interface.frozen import Scaler

CONFIG = load_model("interface").config
COLUMNS = table.Columns.of(CONFIG)
RULES = dict.fromkeys(("constant", "missing", "non_numeric", "duplicated", "defining"), "drop")


def films(n=8, seed=0):
    return cohort.draw(np.random.default_rng(seed), CONFIG, n)


@given(
    seed=st.integers(0, 10**6), separator=st.sampled_from([",", ";", "\t"]), shuffled=st.booleans()
)
def test_what_was_written_is_read_again_in_any_order_of_columns(
    seed, separator, shuffled, tmp_path_factory
):
    file, rng = tmp_path_factory.mktemp("table") / "films.csv", np.random.default_rng(seed)
    found = films(4, seed)
    table.write_csv(file, found, COLUMNS)
    rows = [line.split(",") for line in file.read_text(encoding="utf-8").splitlines()]
    order = rng.permutation(len(rows[0])) if shuffled else range(len(rows[0]))
    text = "\n".join(separator.join(row[k] for k in order) for row in rows)
    file.write_text("\ufeff" + text, encoding="utf-8")
    again = table.read(file, COLUMNS)
    assert again.film.tolist() == found.film.tolist()
    for ours, theirs in zip(again[1:], found[1:], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("S_V_porod", "area"), "has no column S_V_porod"),
        (lambda text: text.replace("film,", "sample,"), "has no column film"),
        (lambda text: text.replace("I_x100", "Tg_num", 1), "has two columns Tg_num"),
        (lambda text: text.replace("I_x100", "d_pi", 1), "has two columns d_pi"),
        (
            lambda text: text.rsplit(",", 2)[0] + ",n.d.,0.01\n",
            "CB_length_nm is no number in row 49",
        ),
        (lambda text: text.rsplit(",", 1)[0] + ",\n", "S_V_porod has no value in row 49"),
        (lambda text: text.rsplit(",", 1)[0] + ",-0.01\n", "S_V_porod is -0.01 in row 49"),
        (lambda text: "", "not a table of comma-separated values"),
    ],
)
def test_a_table_that_is_none_is_refused_with_file_column_and_row(change, said, tmp_path):
    file = tmp_path / "films.csv"
    table.write_csv(file, films(), COLUMNS)
    file.write_text(change(file.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(ValueError, match=said) as error:
        table.read(file, COLUMNS)
    assert str(error.value).startswith(str(file))


def test_a_file_that_is_missing_or_too_small_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.csv: no such file"):
        table.read(tmp_path / "none.csv", COLUMNS)
    with pytest.raises(ValueError, match="12 measurements of 2 films"):
        table.assert_enough(films(2), tmp_path / "few.csv")


def test_columns_of_no_use_or_of_too_much_are_said_and_dropped_or_kept():
    found = films(20)
    faults = found.morphology.copy()
    faults[:, 0] = 3.0
    faults[5, 1] = np.nan
    faults[:, 4] = 2 * faults[:, 3] + 1
    faults[:, 5] = np.nan
    bad = found._replace(morphology=faults)
    kept, said = table.of_use(bad, COLUMNS, RULES)
    assert [COLUMNS.morphology[j] for j in kept] == [
        *COLUMNS.morphology[2:4], *COLUMNS.morphology[6:-1]
    ]  # fmt: skip
    words = ["is the same", "is missing in 1", "says the same as I_z100", "is missing in 120"]
    for name, what in zip(["I_x100", "FWHM_x100", "FWHM_z100", "d_z100"], words, strict=True):
        assert any(each.startswith(name) and what in each for each in said)
    assert "Porod_prefactor nearly defines S_V_porod" in said[-1]
    kept, said = table.of_use(bad, COLUMNS, dict.fromkeys(RULES, "keep"))
    # Neither what never varies nor what was never measured can be kept.
    assert sorted(set(range(15)) - set(kept)) == [0, 5]
    assert len(said) == 5


def test_a_column_that_holds_words_is_read_and_dropped_or_kept_as_the_rule_says(tmp_path):
    file = tmp_path / "films.csv"
    table.write_csv(file, films(), COLUMNS)
    text = file.read_text(encoding="utf-8").replace("film 1,", "film 1,n.d.", 1)
    file.write_text(text, encoding="utf-8")
    found = table.read(file, COLUMNS)
    kept, said = table.of_use(found, COLUMNS, RULES)
    assert said[0] == "I_x100 is no number in 1 of 48 measurements: dropped"
    assert 0 not in kept
    kept, _ = table.of_use(found, COLUMNS, RULES | {"non_numeric": "keep"})
    design = Scaler.fit(found, kept).design(found)
    assert design.morphology[0, 0] == 0.0  # at the mean of what there is
    assert design.morphology[1:, 0].mean() == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("gap", [np.nan, np.inf, 0.0])
def test_neither_a_gap_nor_a_zero_hides_a_column_that_defines_the_target(gap):
    found = films(20)
    faults = found.morphology.copy()
    faults[7, -1] = gap
    bad = found._replace(morphology=faults)
    rules = dict.fromkeys(RULES, "keep")
    kept, said = table.of_use(bad, COLUMNS, rules)
    assert 14 in kept
    assert re.search(r"nearly defines S_V_porod \(correlation (0\.9|1)", said[-1])
    assert 14 not in table.of_use(bad, COLUMNS, rules | {"defining": "drop"})[0]


def test_a_stimulus_that_is_constant_or_a_copy_is_said():
    found = films(20)
    stimuli = found.stimuli.copy()
    stimuli[:, 0] = 1.5
    stimuli[:, 2] = 2 * stimuli[:, 1] - 3
    morphology = found.morphology.copy()
    morphology[:, 4] = stimuli[:, 1]
    bad = found._replace(stimuli=stimuli, morphology=morphology)
    kept, said = table.of_use(bad, COLUMNS, RULES)
    assert said[0].startswith("Efield_num is the same in all measurements: kept, and its effect is")
    assert said[1].startswith("CB_length_nm says the same as Tg_num: kept")
    assert said[2] == "FWHM_z100 says the same as Tg_num: dropped"
    assert 4 not in kept


def test_a_target_that_never_varies_is_refused(tmp_path):
    found = films(20)
    with pytest.raises(ValueError, match=r"films.csv: the area is 0.02 in all measurements"):
        table.assert_enough(found._replace(target=0 * found.target + 0.02), tmp_path / "films.csv")


def test_the_truth_of_the_cohort_is_what_its_effects_are_called():
    """Least squares on a large cohort finds the effects, in its standard deviations."""
    found, truth = films(3000), CONFIG["cohort"]
    columns = np.column_stack([found.morphology[:, :-1], found.stimuli])
    standard = (columns - columns.mean(0)) / columns.std(0)
    names = (*COLUMNS.morphology[:-1], *COLUMNS.stimuli)
    area = (found.target - found.target.mean()) / CONFIG["target"]["sd"]
    slope = dict(zip(names, np.linalg.lstsq(standard, area)[0], strict=True))
    stated = truth["morphology"] | truth["stimulus"]
    scale = slope["FWHM_x100"] / stated["FWHM_x100"]
    for name in names:
        assert slope[name] / scale == pytest.approx(stated.get(name, 0.0), abs=0.03)
