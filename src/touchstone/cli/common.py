"""What all commands share: the application, its exit codes, and how bad input ends."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from touchstone.contract import Model
    from touchstone.io.results import Results

app = typer.Typer(
    help="What a measurement says about the parameters, and whether that may be trusted.",
    epilog="Exit codes: 0 both verdicts accept, 3 one of them does not, 2 bad input.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
BAD_INPUT, ESCALATE = 2, 3
ModelId = Annotated[
    str | None, typer.Option("--model", help="One of `touchstone models`; the first by default.")
]


def chosen_model(model_id: str | None) -> "tuple[Model[Any], Results, dict]":
    """A model by its name, where its results lie, and the configuration."""
    from touchstone import contract, registry
    from touchstone.io import results, settings
    from touchstone.io.artifacts import ArtifactError

    folders = contract.folders()
    if model_id is not None and model_id not in folders:
        raise ArtifactError(f"--model: {model_id!r} is none of {', '.join(folders)}")
    config = settings.found(folders, model_id)
    (chosen,) = config["models"]
    model = registry.load_model_instance(chosen)
    return model, results.Results(results.folder(chosen)), config


@contextmanager
def bad_input() -> Generator[None]:
    """End with one sentence where a file or an option is not what it should be."""
    from touchstone.contract import ModelsError
    from touchstone.io.artifacts import ArtifactError
    from touchstone.io.settings import SettingsError

    try:
        yield
    except (ArtifactError, SettingsError, ModelsError, OSError) as error:
        say(f"touchstone: {error}")
        raise typer.Exit(BAD_INPUT) from None


def say(text: str) -> None:
    typer.echo(text, err=True)


def keep_compilations() -> None:
    """Let JAX keep what it compiles, in the user's cache if that can be written."""
    import platformdirs

    from touchstone.io import artifacts

    folder = platformdirs.user_cache_path("touchstone") / "jax"
    try:
        artifacts.assert_writable(folder)
    except artifacts.ArtifactError:
        return
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
