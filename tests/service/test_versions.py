"""Versions of artefacts: content decides, promotion is earned, and the files are the truth."""

import json
import shutil
from pathlib import Path

import pytest
from serving import MODEL, inside
from typer.testing import CliRunner

from touchstone import contract
from touchstone.cli import app
from touchstone.io import artifacts
from touchstone.io.results import Results
from touchstone.reliability.certificate import certified
from touchstone.service.versions import PromotionError, Versions
from touchstone.stages import checkpoints, release

WHO = ("a person", "a reason")


@pytest.fixture
def kept(project, tmp_path):
    """No versions yet, and the artefact that was trained."""
    with inside(project):
        artefact = checkpoints.find(MODEL, Results(project / "results" / MODEL))
        yield Versions(tmp_path / "registry"), artefact


@pytest.fixture(scope="module")
def certificate():
    """A certificate that was released with the package."""
    file = next(
        folder / checkpoints.PRETRAINED / checkpoints.CERTIFICATE
        for folder in checkpoints.folders().values()
        if (folder / checkpoints.PRETRAINED / checkpoints.CERTIFICATE).is_file()
    )
    return artifacts.read_json(file)


def added(versions, artefact):
    return versions.add(MODEL, versions.store(artefact, MODEL), "canary", *WHO)


def test_the_same_artefact_is_one_version_and_another_is_the_next(kept, project, tmp_path):
    versions, artefact = kept
    first = added(versions, artefact)
    assert added(versions, artefact) == first
    other = shutil.copytree(versions.path(first), tmp_path / "other")
    manifest = artifacts.read_json(other / artifacts.MANIFEST)
    artifacts.write_json(other / artifacts.MANIFEST, manifest | {"settings": {"seed": 2}})
    given = checkpoints.find(MODEL, Results(project / "results" / MODEL), other)
    second = added(versions, given)
    assert (first.version, second.version) == (1, 2)
    assert first.digest != second.digest
    assert artifacts.verify(versions.path(second), [checkpoints.GUARDRAIL])


def test_a_damaged_artefact_leaves_nothing(kept, project, tmp_path):
    versions, artefact = kept
    bad = shutil.copytree(artefact.checkpoint, tmp_path / "bad")
    data = next(file for file in bad.iterdir() if file.name != artifacts.MANIFEST)
    data.write_bytes(data.read_bytes() + b"x")
    with pytest.raises(artifacts.ArtifactError, match="sha256"):
        versions.store(artefact._replace(checkpoint=bad), MODEL)
    assert list(versions.folder.glob(f"{MODEL}/*")) == []


def test_a_link_or_a_path_in_a_manifest_is_refused(kept, tmp_path):
    versions, artefact = kept
    bad = shutil.copytree(artefact.checkpoint, tmp_path / "bad")
    data = next(file for file in bad.iterdir() if file.name != artifacts.MANIFEST)
    data.rename(tmp_path / "elsewhere")
    data.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(artifacts.ArtifactError, match="no plain file"):
        versions.store(artefact._replace(checkpoint=bad), MODEL)


def test_the_rule_of_another_model_is_refused(kept, project, tmp_path):
    versions, artefact = kept
    mixed = shutil.copytree(versions.path(added(versions, artefact)), tmp_path / "mixed")
    other = contract.folders()["interface"] / checkpoints.PRETRAINED / checkpoints.GUARDRAIL
    shutil.copyfile(other, mixed / checkpoints.GUARDRAIL)
    said = artifacts.read_json(mixed / artifacts.MANIFEST)
    artifacts.write_manifest(mixed, [*said["files"]], said["settings"], said["lineage"])
    given = checkpoints.find(MODEL, Results(project / "results" / MODEL), mixed)
    with pytest.raises(artifacts.ArtifactError, match="is the rule of interface"):
        versions.store(given, MODEL)


def test_a_stage_is_earned_and_everything_that_lacks_is_said(kept):
    versions, artefact = kept
    added(versions, artefact)
    with pytest.raises(PromotionError, match="may only become Staging or Archived"):
        versions.move(MODEL, 1, "Production", "canary", *WHO)
    with pytest.raises(PromotionError, match="canary gets another answer"):
        versions.move(MODEL, 1, "Staging", "another", *WHO)
    with pytest.raises(artifacts.ArtifactError, match="needs a reason"):
        versions.move(MODEL, 1, "Staging", "canary", "a person", " ")
    with pytest.raises(artifacts.ArtifactError, match="no version 7; there are 1"):
        versions.move(MODEL, 7, "Staging", "canary", *WHO)
    assert [each.stage for each in versions.history(MODEL)] == ["None"]
    versions.move(MODEL, 1, "Staging", "canary", *WHO)
    with pytest.raises(PromotionError) as error:
        versions.move(MODEL, 1, "Production", "another", *WHO)
    assert len(error.value.problems) == 2
    assert "no certificate" in str(error.value)
    assert versions.aliases(MODEL) == {"latest": 1}


def test_a_version_that_was_changed_is_not_promoted(kept):
    versions, artefact = kept
    folder = versions.path(added(versions, artefact))
    manifest = artifacts.read_json(folder / artifacts.MANIFEST)
    artifacts.write_json(folder / artifacts.MANIFEST, manifest | {"settings": {}})
    with pytest.raises(PromotionError, match="is not the one that was added"):
        versions.move(MODEL, 1, "Staging", "canary", *WHO)


def test_a_certificate_is_judged_by_its_numbers_and_not_by_its_word(certificate):
    assert certified(certificate) == []
    bad = json.loads(json.dumps(certificate))
    bad["control"]["stress"]["tests"][0]["p_adjusted"] = 1e-4
    bad["control"]["stress"]["passed"] = True
    bad["control"]["guardrail"][0]["p_value"] = 1e-5
    bad["calibration"][0]["regions"]["p_value"] = 1e-6
    bad["false_alarms"]["rate"] |= {"value": 0.5, "low": 0.45}
    assert [each.split(":")[0] for each in certified(bad)] == [
        "control", "control", "calibration", "false alarms"
    ]  # fmt: skip


def test_a_control_whose_rows_are_kept_is_tested_anew(certificate, project):
    report = project / f"results/{MODEL}/reports/posterior_failure_mode_report.json"
    own = artifacts.read_json(report)
    claimed = certificate | {name: own[name] for name in ("model_id", "decision", "control")}
    assert not any("rows" in each for each in certified(claimed, own))
    for row in own["runs"]:
        row["pred_nll"] += row["split"] == "control"
    assert "control: the rows of severity 0 differ" in certified(claimed, own)[-1]


def test_production_has_one_version_and_its_history_outlives_the_index(kept, project):
    versions, _ = kept
    results = Results(project / "results" / MODEL)
    model = checkpoints.folders()[MODEL]
    from touchstone.io import settings

    config = settings.of_stage(settings.found(contract.folders(), MODEL), MODEL, "stress")
    for number, n_fresh in ((1, 60), (2, 70)):
        release.run(contract.load_model(MODEL), config, results, n_fresh)
        released = checkpoints.find(MODEL, results, model / checkpoints.PRETRAINED)
        assert added(versions, released).version == number
        for stage in ("Staging", "Production"):
            versions.move(MODEL, number, stage, "canary", *WHO)
    shutil.rmtree(model / checkpoints.PRETRAINED)
    assert [each.stage for each in versions.listed(MODEL)] == ["Archived", "Production"]
    assert versions.aliases(MODEL) == {"production": 2, "latest": 2}
    versions.move(MODEL, 1, "Staging", "canary", "another person", "version 2 is worse")
    assert versions.aliases(MODEL) == {"production": 2, "latest": 1}
    versions.move(MODEL, 1, "Archived", "", *WHO)
    assert versions.aliases(MODEL) == {"production": 2, "latest": 2}
    before = versions.history(MODEL)
    assert [each.sequence for each in before] == list(range(1, len(before) + 1))
    versions.close()
    for file in versions.folder.glob("versions.sqlite*"):
        file.unlink()
    again = Versions(versions.folder)
    assert again.history(MODEL) == before
    again.close()


def test_the_command_line_adds_lists_and_promotes(project):
    def call(*arguments):
        return CliRunner().invoke(app, ["versions", *arguments], catch_exceptions=False)

    with inside(project):
        assert call("add", MODEL).stdout.startswith("version 1: None, ")
        staged = call("promote", MODEL, "--version", "1", "--stage", "Staging", "--why", "it runs")
        assert staged.stdout.startswith("version 1: Staging, "), staged.stderr
        refused = call("promote", MODEL, "--version", "1", "--stage", "Production", "--why", "x")
        assert refused.exit_code == 2
        assert "no certificate" in refused.stderr
        listed = call(
            "list",
            MODEL,
        )
        assert "version 1 (latest): Staging" in listed.stdout
        assert "it runs" in listed.stdout
        assert call("list", "alchemy").exit_code == 2
        assert call("history", MODEL).stdout == "\n".join(listed.stdout.split("\n")[1:])
        shown = call("show", MODEL, "--version", "1").stdout
        assert "for Production: there is no certificate" in shown
        assert "it runs" in shown
        assert call("show", MODEL, "--version", "7").exit_code == 2


@pytest.mark.parametrize("name", ["list", "history", "show", "add", "promote"])
def test_every_command_on_versions_is_told_where_they_are_as_the_service_is(name):
    said = CliRunner().invoke(app, ["versions", name, "--help"]).stdout
    for variable in ("DATABASE_URL", "MODEL_REGISTRY_TABLE", "ARTIFACTS_BUCKET"):
        assert variable in said


def test_what_does_not_answer_is_not_kept_by_the_command_line(project):
    with inside(project):
        Path("config").mkdir()
        Path("Snakefile").touch()
        Path("config/config.yaml").write_text(f"models: [{MODEL}]\nseed: none\n")
        registry = Path("results/registry")
        before = {*registry.rglob(artifacts.MANIFEST)}
        refused = CliRunner().invoke(app, ["versions", "add", MODEL], catch_exceptions=False)
        assert refused.exit_code == 2, refused.output
        assert {*registry.rglob(artifacts.MANIFEST)} == before
