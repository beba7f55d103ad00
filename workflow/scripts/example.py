"""Write the simulated measurement that is inferred when no record is given.

Arguments: model, seed, file of the record, file of its metadata.
"""

import sys
from pathlib import Path

from touchstone.contract import load_model
from touchstone.stages import randomness

model_id, seed, data, meta = sys.argv[1:]
rng = randomness.generator(int(seed), "infer", 3)
load_model(model_id).example(rng, Path(data), Path(meta))
