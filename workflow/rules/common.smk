# What all rules share: the checked configuration, the overrides, and how a notebook is run.
import os
import re
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

from touchstone.stages import summary
from touchstone.io.artifacts import ArtifactError, files, overrides
from touchstone.io.settings import ConfigError, check_config

try:
    check_config(config, Path(workflow.basedir) / "workflow/schemas/config.schema.yaml")
    OVERRIDES = {model_id: overrides(model_id) for model_id in config["models"]}
except (ConfigError, ArtifactError) as error:
    raise WorkflowError(str(error)) from None

CHECKPOINT_FILES = (
    "surrogate_model.eqx",
    "posterior_model.eqx",
    "normalizers.npz",
    "model_meta.json",
    "manifest.json",
)
# A change of the package reruns what it made.
PACKAGE = sorted(
    str(path)
    for path in Path("src/touchstone").rglob("*")
    if path.suffix in (".py", ".yaml")
)
# Rules that run in an environment of their own find the package here, too.
os.environ.update(PYTHONPATH=str(Path(workflow.basedir) / "src"))


wildcard_constraints:
    model_id="|".join(config["models"]),
    chunk=r"\d+",
    name=r"[\w.+-]+",


def notebook(arguments):
    """Shell command that runs the notebook of a rule.

    papermill writes to the log notebook, which is kept as the output only once it has succeeded.
    What the notebook prints goes to the log, whose newest progress bar is what the terminal shows.
    What JAX has compiled once is kept for the next job.
    """
    return (
        "JUPYTER_PREFER_ENV_PATH=1 TQDM_MININTERVAL=2 "
        "JAX_COMPILATION_CACHE_DIR=${{JAX_COMPILATION_CACHE_DIR:-.snakemake/jax}} "
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0.5 "
        "papermill --kernel python3 --cwd . "
        "--no-progress-bar --log-output {input.notebook:q} {log.notebook:q} "
        f"-r model_id {{wildcards.model_id:q}} -y {{params.settings:q}} {arguments} "
        "> {log.text:q} 2>&1 && cp {log.notebook:q} {output.notebook:q}"
    )


def settings(*sections, without=(), **more):
    """Settings of some sections of the configuration and the seed, as one line of YAML."""
    chosen = {"seed": config["seed"], **more}
    for section in sections:
        chosen |= {k: v for k, v in config[section].items() if k not in without}
    # papermill reads YAML, where JSON's 1e-05 would be a text.
    return yaml.safe_dump(chosen, default_flow_style=True, width=float("inf")).strip()


def override(model_id, what):
    """Path that the environment gives for a model, or None."""
    return OVERRIDES[model_id].get(f"{model_id.upper()}_{what}")


def chunks(wildcards):
    """Chunks to train on: the override, or those that the simulation makes."""
    given = override(wildcards.model_id, "DATASET_CHUNK")
    numbers = range(config["simulate"]["n_chunks"])
    folder = f"results/{wildcards.model_id}/datasets"
    return (
        [str(given)]
        if given
        else [f"{folder}/chunk_{number}.npz" for number in numbers]
    )


def audits(wildcards):
    """Audits of the chunks; a chunk from elsewhere has none."""
    if override(wildcards.model_id, "DATASET_CHUNK"):
        return []
    return [
        f"results/{wildcards.model_id}/reports/simulate_{number}.json"
        for number in range(config["simulate"]["n_chunks"])
    ]


def checkpoint_folder(wildcards):
    """Folder of the checkpoint: the override, or the one that the training makes."""
    given = override(wildcards.model_id, "CHECKPOINT")
    if given is None:
        return f"results/{wildcards.model_id}/checkpoints/trained"
    return str(given if given.is_dir() else given.parent)


def checkpoint(wildcards):
    """Files of the checkpoint; one from elsewhere may lack the manifest."""
    folder = Path(checkpoint_folder(wildcards))
    if override(wildcards.model_id, "CHECKPOINT") is None:
        return [str(folder / name) for name in CHECKPOINT_FILES]
    return [str(folder / name) for name in CHECKPOINT_FILES if (folder / name).exists()]


def trace_name():
    """Name under which the measurement of the configuration is reported."""
    trace = config["infer"]["trace"]
    if not trace:
        return "example"
    path = Path(trace).absolute()  # of ".", too, a name
    return re.sub(r"[^\w.+-]", "_", path.name if path.is_dir() else path.stem)


def measurement(wildcards):
    """The record and its metadata: what the configuration names, or the simulated example.

    Of a folder all files count but hidden ones: records, and what is known of single ones.
    """
    trace, meta = measurement_paths(wildcards)
    found = {"trace": files(trace), "meta": [Path(meta)]}
    if config["infer"]["trace"]:
        for key, path in (("trace", trace), ("meta", meta)):
            if not any(file.is_file() for file in found[key]):
                raise WorkflowError(
                    f"infer.{key}: {path} does not exist or is empty (see README, own data)"
                )
    return {"trace": [str(file) for file in found["trace"]], "meta": meta}


def measurement_paths(wildcards):
    """Path of the record, or of a folder of records, and of the metadata."""
    trace, meta = config["infer"]["trace"], config["infer"]["meta"]
    if not trace:
        example = f"results/{wildcards.model_id}/traces/example"
        return f"{example}.csv", f"{example}.yaml"
    path = Path(trace)
    beside = f"{path}.yaml" if path.is_dir() else str(path.with_suffix(".yaml"))
    return trace, meta or beside


def stage_notebooks(model_id):
    """Executed notebooks of a model that this run makes or needs, without their suffix."""
    own_training = override(model_id, "CHECKPOINT") is None
    own_data = own_training and override(model_id, "DATASET_CHUNK") is None
    names = ["3_stress", "4_guardrail", f"5_infer_{trace_name()}"]
    if own_training:
        names.insert(0, "2_train")
    if own_data:
        names[:0] = [f"1_simulate_{n}" for n in range(config["simulate"]["n_chunks"])]
    return [f"results/{model_id}/notebooks/{name}" for name in names]


def closing_words():
    """The verdicts, as text, once everything that was asked for is there."""
    reports = [Path(f"results/{model_id}/reports") for model_id in config["models"]]
    return summary.text(reports, trace_name(), Path("results/report.html"))
