# What all rules share: the checked settings, where results lie, and how a notebook is run.
import fcntl
import os
import re
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

from touchstone import contract
from touchstone.io import artifacts, results
from touchstone.io import settings as settings_
from touchstone.stages import checkpoints, records, summary

try:
    MODELS = contract.folders()
    config = settings_.complete(config, MODELS)
    # Of each model, the folder of its results under results/.
    RUNS = {
        model_id: results.folder(model_id).relative_to("results").as_posix()
        for model_id in config["models"]
    }
    OVERRIDES = {model_id: results.overrides(model_id) for model_id in config["models"]}
    settings_.assert_measurement(config["measurement"])
except ValueError as error:
    raise WorkflowError(str(error)) from None

MEASURED = config["measurement"]["model"] or config["models"][0]
# Rules that run in an environment of their own find the package here, too.
os.environ.update(PYTHONPATH=str(Path(workflow.basedir) / "src"))


# What the released artefact of a model answers has a folder of its own.
RELEASED = {f"{run}/{checkpoints.PRETRAINED}": m for m, run in RUNS.items()}


wildcard_constraints:
    run="|".join(re.escape(run) for run in [*RELEASED, *RUNS.values()]),
    chunk=r"\d+",
    name=r"[\w.+-]+",


def model_of(wildcards):
    """Name of the model whose results are made."""
    return wildcards.run.split("/")[0]


def package(*rooms, model=True):
    """Files of the package behind a rule: in rooms that models share, and of its own model."""

    def files(wildcards):
        shared = Path("src/touchstone")
        roots = [
            shared / room for room in ("vocabulary.py", "contract.py", "io", *rooms)
        ]
        roots += [MODELS[model_of(wildcards)]] if model else []
        found = [
            file
            for root in roots
            for file in ([root] if root.is_file() else root.rglob("*"))
        ]
        ours = {file for file in found if file.suffix in (".py", ".yaml")}
        return sorted(os.path.relpath(file) for file in ours)

    return files


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
        "-r model_id {params.model_id:q} -y {params.settings:q} "
        f"-r folder results/{{wildcards.run:q}} {arguments} "
        "> {log.text:q} 2>&1 && cp {log.notebook:q} {output.notebook:q}"
    )


def settings(stage):
    """Settings of a stage, as one line of YAML."""

    def text(wildcards):
        chosen = settings_.of_stage(config, model_of(wildcards), stage)
        # papermill reads YAML, where JSON's 1e-05 would be a text.
        line = yaml.safe_dump(
            {"settings": chosen}, default_flow_style=True, width=float("inf")
        )
        return line.strip()

    return text


def override(wildcards, what):
    """Path that the environment gives for a model, or None."""
    model_id = model_of(wildcards)
    return OVERRIDES[model_id].get(f"{model_id.upper()}_{what}")


def given_data(model_id):
    """Data that the environment or the configuration gives in place of simulations, or None."""
    given = OVERRIDES[model_id].get(f"{model_id.upper()}_DATASET_CHUNK")
    return given or config[model_id]["train"].get("data")


def chunk_numbers(model_id):
    """Numbers of the chunks that are simulated; none where a model or this run simulates none."""
    if OVERRIDES[model_id] or given_data(model_id):
        return []
    return list(range(config[model_id].get("simulate", {"n_chunks": 0})["n_chunks"]))


def chunks(wildcards):
    """Data to train on: what is given, or what the simulation makes."""
    given = given_data(model_of(wildcards))
    numbers = chunk_numbers(model_of(wildcards))
    made = [
        f"results/{wildcards.run}/datasets/chunk_{number}.npz" for number in numbers
    ]
    return [str(given)] if given else made


def recipe(wildcards):
    """What says what given data are, for models whose training takes a file of that."""
    model_id = model_of(wildcards)
    given = given_data(model_id)
    found = given and settings_.recipe_of(config[model_id]["train"], Path(given))
    return [str(found)] if found else []


def audits(wildcards):
    """Audits of the chunks; a chunk from elsewhere has none."""
    numbers = chunk_numbers(model_of(wildcards))
    return [
        f"results/{wildcards.run}/reports/simulate_{number}.json" for number in numbers
    ]


def answering_run(model_id):
    """Results of the artefact that answers users: the released one where none was trained here."""
    run = RUNS[model_id]
    try:
        found = checkpoints.find(model_id, results.Results(Path("results") / run))
    except artifacts.ArtifactError:  # this run makes one
        return run
    return f"{run}/{checkpoints.PRETRAINED}" if found.source == "pretrained" else run


def checkpoint_folder(wildcards):
    """Folder of the checkpoint: the override, the release, or the one that the training makes."""
    if wildcards.run in RELEASED:
        return str(MODELS[RELEASED[wildcards.run]] / checkpoints.PRETRAINED)
    given = override(wildcards, "CHECKPOINT")
    if given is None:
        return f"results/{wildcards.run}/checkpoints/trained"
    return str(given if given.is_dir() else given.parent)


def checkpoint(wildcards):
    """What stands for the checkpoint: our own manifest, which hashes the rest, or all its files."""
    folder = Path(checkpoint_folder(wildcards))
    if override(wildcards, "CHECKPOINT") is None:
        return [str(folder / artifacts.MANIFEST)]
    return [str(file) for file in artifacts.files(folder)]


def guardrail(wildcards):
    """Report of the rule: beside a checkpoint that has one, else the one that this run fits."""
    beside = Path(checkpoint_folder(wildcards)) / checkpoints.GUARDRAIL
    if wildcards.run in RELEASED or beside.is_file():
        return str(beside)
    return f"results/{wildcards.run}/reports/posterior_failure_mode_report.json"


def measurement_name(model_id):
    """Name under which the measurement of a model is reported."""
    data = config["measurement"]["data"]
    if not data or model_id != MEASURED:
        return "example"
    return records.name_of(Path(data))


def measurement_paths(wildcards):
    """Path of the record, or of a folder of records, and of the metadata."""
    if wildcards.name == "example":
        example = f"results/{wildcards.run}/datasets/example"
        return f"{example}.csv", f"{example}.yaml"
    return settings_.measurement_paths(config["measurement"])


def measurement(wildcards):
    """The record and its metadata: what the configuration names, or the simulated example.

    Of a folder all files count but hidden ones: records, and what is known of single ones.
    """
    data, meta = measurement_paths(wildcards)
    found = artifacts.files(data)
    return {"data": [str(file) for file in found], "meta": meta}


def page_reports(model_id):
    """Reports that the page of a run tells of."""
    names = [f"simulate_{number}" for number in chunk_numbers(model_id)]
    names += ["train_report"] if trains(model_id) else []
    names += ["stress_report", "posterior_failure_mode_report"]
    names += [f"infer_{measurement_name(model_id)}"]
    return [f"results/{RUNS[model_id]}/reports/{name}.json" for name in names]


def trains(model_id):
    """Whether this run trains a model, and has no checkpoint from elsewhere."""
    return not any(name.endswith("_CHECKPOINT") for name in OVERRIDES[model_id])


def stage_notebooks(model_id):
    """Executed notebooks of a model that this run makes or needs, without their suffix."""
    names = [f"1_simulate_{number}" for number in chunk_numbers(model_id)]
    names += ["2_train"] if trains(model_id) else []
    names += ["3_stress", "4_guardrail", f"5_infer_{measurement_name(model_id)}"]
    return [f"results/{RUNS[model_id]}/notebooks/{name}" for name in names]


def page_figures(model_id):
    """Figures that the page of a run shows of a model."""
    names = ["guardrail", "posterior_against_severity", "posterior_worst_stress_trace"]
    names += [f"infer_{measurement_name(model_id)}"]
    names += ["calibration"] if trains(model_id) else []
    return [f"results/{RUNS[model_id]}/figures/{name}.png" for name in names]


def hold_results():
    """Refuse a run beside another one, which would remove what the first is writing.

    The system frees the lock when this process ends, however it ends.
    """
    global RESULTS_LOCK
    try:
        os.makedirs("results", exist_ok=True)
        RESULTS_LOCK = open("results/.lock", "w")
        fcntl.flock(RESULTS_LOCK, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise WorkflowError(
            "Another run is at work in this folder; wait until it has ended."
        ) from None
    except OSError as error:
        raise WorkflowError(f"results: cannot be written ({error.strerror})") from None


def closing_words():
    """The verdicts, as text, once everything that was asked for is there."""
    runs = {**RUNS, MEASURED: answering_run(MEASURED)}
    reports = {
        Path(f"results/{run}/reports"): measurement_name(m) for m, run in runs.items()
    }
    return summary.text(reports, Path("results/report.html"))
