"""What a worker answers, of each model: a question gets the same bits alone and in a batch."""

import numpy as np
import pytest
import yaml

from touchstone.io import reports
from touchstone.service.worker import Oracle

PHOTOMETRY = {"g": 17.9, "i": 16.9, "z": 16.7, "redshift": 0.08, "do": "mass=2x"}
FORMS = {
    "interface": [{"film": "film 3", "Tg_num": 420}, {"film": "film 1"}, {"Tg_num": 400}],
    "regimes": [{"treatment": 0.5}, {"treatment": [-1.0, 2.0]}, {"treatment": 0, "turbulent": 1}],
    "galaxy": [PHOTOMETRY | {"mode": "total", "r": 17.2}, PHOTOMETRY | {"mode": "direct", "r": 17}],
}
COMPILES_LONG = ("galaxy", "ecsfm")


def forms(oracle, folder):
    """Values of forms; of a voltammogram, those of two simulated ones."""
    if oracle.model.model_id in FORMS:
        return FORMS[oracle.model.model_id]
    found = []
    for seed in (1, 2):
        data, meta = folder / f"{seed}.csv", folder / f"{seed}.yaml"
        oracle.model.example(np.random.default_rng(seed), data, meta)
        known = yaml.safe_load(meta.read_text())
        time, potential, current = np.loadtxt(data, delimiter=",", skiprows=2).T
        columns = {"t_s": time, "E_V": potential, "i_A": 1e-6 * current}
        values = {name: column.tolist() for name, column in columns.items()}
        found.append(values | known["electrode"] | {"temperature_C": known["temperature_C"]})
    return found


@pytest.mark.parametrize(
    "model_id",
    [
        pytest.param(each, marks=[pytest.mark.nightly] if each in COMPILES_LONG else [])
        for each in ("interface", "regimes", *COMPILES_LONG)
    ],
)
def test_a_question_gets_the_same_bits_alone_and_in_a_batch(model_id, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    oracle = Oracle(model_id)
    asked = forms(oracle, tmp_path)

    def answered(inputs):
        question = {"kind": "predict", "model_id": model_id, "inputs": inputs, "draws": 0}
        return oracle.answer(question)

    alone = [answered(each) for each in asked]
    together = answered([*asked, *asked[::-1]])["reports"]
    assert reports.reproducible(together) == reports.reproducible(alone + alone[::-1])
    assert len({each["sha256"] for each in alone}) == len(asked)
