"""Write the simulated measurement that is inferred when no record is given."""

from pathlib import Path

from touchstone import randomness
from touchstone.models.registry import load_model

rng = randomness.generator(snakemake.params.seed, "infer", 1)
model = load_model(snakemake.wildcards.model_id)
model.example(rng, Path(snakemake.output.trace), Path(snakemake.output.meta))
