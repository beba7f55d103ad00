"""Certify what a run has trained, and write it into the model's folder.

Arguments: model, and configuration of the run.
"""

import sys
from pathlib import Path

from touchstone import contract
from touchstone.io import plain_yaml, settings
from touchstone.io.results import Results, folder
from touchstone.stages import release

N_FRESH = 2000

model_id, config = sys.argv[1:]
asked = plain_yaml.load_own(Path(config)) | {"models": [model_id]}
chosen = settings.complete(asked, contract.folders())
model = contract.load_model(model_id)
own = {"seed": chosen["seed"], "budgets": chosen[model_id]["budgets"]}
done = release.run(model, own, Results(Path(folder(model_id))), N_FRESH)
rate, promised = (done.certificate["false_alarms"][key] for key in ("rate", "promised"))
print(
    f"{done.folder}: false alarms {rate['value']:.4f} [{rate['low']:.4f}, {rate['high']:.4f}] of "
    f"{rate['n']} fresh cases, promised {promised['low']:.4f} to {promised['high']:.4f}"
)
