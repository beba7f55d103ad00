"""Misspecification checks by sbi 0.27, for `bench_guardrail.py`, in an environment of its own:

    uv run --no-project --with sbi==0.27.0 python benchmarks/sbi_checks.py in.npz out.npz

`in.npz` holds, for each space in which observations are described, `NAME_train` and `NAME_asked`,
rows of numbers. `out.npz` gets two columns for each space, high where a row is unlike those of the
training: `NAME_mmd`, its maximum mean discrepancy (Schmitt et al. 2023), and `NAME_log_prob`, minus
its log density under sbi's own estimate of the marginal law.
"""

import sys

import numpy as np
import torch
from sbi.diagnostics.misspecification import compute_rbf_mmd_median_heuristic
from sbi.inference.trainers.marginal import MarginalTrainer

N_BESIDE = 500  # rows of the training that each row is compared with; sbi takes 1,000 at most


def checked(train: np.ndarray, asked: np.ndarray) -> dict[str, np.ndarray]:
    """Both scores of each row that is asked."""
    train, asked = (torch.as_tensor(rows, dtype=torch.float32) for rows in (train, asked))
    trainer = MarginalTrainer(density_estimator="maf", show_progress_bars=False)
    density = trainer.append_samples(train).train(max_num_epochs=300)
    beside = train[:N_BESIDE]
    with torch.no_grad():
        log_prob = torch.cat([density.log_prob(rows) for rows in asked.split(500)])
        mmd = [float(compute_rbf_mmd_median_heuristic(row[None], beside)) for row in asked]
    return {"mmd": np.array(mmd), "log_prob": -log_prob.numpy()}


torch.manual_seed(0)
source, target = sys.argv[1:]
given = np.load(source)
spaces = sorted(name.removesuffix("_train") for name in given if name.endswith("_train"))
found = {
    f"{space}_{name}": score
    for space in spaces
    for name, score in checked(given[f"{space}_train"], given[f"{space}_asked"]).items()
}
np.savez(target, **found)
