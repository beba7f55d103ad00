"""The pages as people meet them: a real browser without a network, one running service."""

import base64
import hashlib
import json
import shutil
from pathlib import Path
from urllib.parse import unquote

import pytest
from axe_playwright_python.sync_playwright import Axe
from serving import serving

from touchstone.io import artifacts
from touchstone.io.results import Results
from touchstone.service import pages
from touchstone.service.versions import Versions
from touchstone.stages import checkpoints, structure
from touchstone.vocabulary import Structure

TESTS = Path(__file__).parents[1]
MODEL = "interface"
RECORD = (TESTS / "data/film.csv").read_text()
SHOTS = TESTS.parent / ".pytest_cache/screenshots"
RUN = "regimes/experiment_small"
PAGES = ("/", f"/modeling?model={MODEL}", "/monitor", f"/run?name={RUN}")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with a version, a run, a model that is deprecated, and one that was not trained."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("Snakefile", "config", "notebooks", "profiles", "src", "workflow"):
        (folder / name).symlink_to(TESTS.parent / name)
    released = checkpoints.find(MODEL, Results(folder / "nothing"))
    versions = Versions(folder / "results/registry")
    digest = versions.store(released, MODEL)
    versions.add(MODEL, digest, "the answer of another machine", "a test", "to be looked at")
    versions.close()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        made = Results(Path("results") / RUN)
        kinds = {"effect": "inferred", "series": "observed"}
        graph = Structure(dict(zip(kinds, kinds, strict=True)), kinds, [("effect", "series")])
        structure.save(made, graph)
    lineage = {"date": "2026-01-02T03:04:05+00:00", "revision": "abc", "seed": 7}
    trained = {"model_id": "regimes", "n_rows": 9, "calibration": []}
    trained["lineage"] = lineage | {"settings": {"train": {"chains": 2}}}
    artifacts.write_json(folder / made.report("train_report"), trained)
    shutil.copytree(TESTS / "models/example_decay", folder / "models/untrained")
    old = folder / "models/old"
    shutil.copytree(TESTS / "models/example_decay", old)
    config = (old / "config.yaml").read_text()
    (old / "config.yaml").write_text(f"{config}\nstatus: deprecated\n")
    return folder


@pytest.fixture(scope="module")
def server(project):
    with serving(project, model=MODEL) as running:
        yield running


@pytest.fixture(scope="module")
def browser():
    """A browser that reaches nothing but this machine."""
    playwright = pytest.importorskip("playwright.sync_api")
    if (chromium := shutil.which("chromium")) is None:
        pytest.skip("no chromium to open the pages with")
    rules = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu", rules]
        )
        yield opened
        opened.close()


@pytest.fixture
def page(server, browser, request):
    """A page that raises nothing, and fetches from the service alone what is there."""
    base, complaints = str(server.client.base_url), []
    opened = browser.new_page(base_url=base)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    streams = "/events"  # which a page that is left leaves, too
    opened.on(
        "requestfailed",
        lambda request: None if request.url.endswith(streams) else complaints.append(request.url),
    )
    opened.on(
        "request",
        lambda request: (
            None
            if request.url.startswith((base, "data:", "blob:"))
            else complaints.append(request.url)
        ),
    )
    opened.set_default_timeout(60_000)
    yield opened
    opened.screenshot(path=SHOTS / f"{request.node.name}.png", full_page=True)  # to be looked at
    opened.close()
    assert complaints == []


def answer_of(page):
    """The part of the page that answers, once it does."""
    page.locator("#answer .verdict").first.wait_for()
    return page.locator("#answer")


def test_a_person_chooses_a_model_from_a_menu_without_those_that_are_deprecated(page):
    page.goto("/")
    menu = page.get_by_role("navigation", name="Models")
    assert menu.get_by_role("link", name="Counterfactual galaxies (v0.1) [BETA]").is_visible()
    assert menu.locator("[href*='model=untrained']").count() == 1
    assert menu.locator("[href*='model=old']").count() == 0
    menu.locator("[href*='model=untrained']").click()
    page.get_by_text("This model is not served").wait_for()
    assert page.locator("main form").count() == 0
    menu.get_by_role("link", name="Interfacial area").click()
    page.get_by_role("heading", level=1, name="Interfacial area").wait_for()
    # An element of its own: its line is made by the style sheet, which may come later.
    assert menu.locator("[aria-current=page] small").inner_text() == "ready"


def test_a_person_fills_wrong_and_reads_at_each_field_what_is_wrong(page):
    page.goto("/")
    wrong = {"High area above quantile": "2", "Efield_num (kV/cm)": "<b>1</b>"}
    for label, value in wrong.items():
        page.get_by_label(label).fill(value)
    page.get_by_label("High area above quantile").press("Enter")
    page.get_by_text("2 is above 0.99").wait_for()
    assert page.get_by_text("'<b>1</b>' is no float").is_visible()
    marked = page.locator("[aria-invalid=true]")
    assert marked.evaluate_all("all => all.map(each => each.name)") == ["Efield_num", "quantile"]
    assert page.evaluate("document.activeElement.name") == "Efield_num"  # the first of them
    for label in wrong:
        page.get_by_label(label).fill("")
    page.get_by_label("Film").fill("film of nobody")  # what only the model knows
    page.get_by_label("Film").press("Enter")
    page.locator("#wrong-film", has_text="'film of nobody' is none").wait_for()
    assert marked.evaluate_all("all => all.map(each => each.name)") == ["film"]
    page.get_by_label("Film").fill("")
    page.get_by_label("Tg_num (K)").fill("999")  # what only the training knows
    page.get_by_label("Tg_num (K)").press("Enter")
    page.locator("#wrong-Tg_num", has_text="999 is above ").wait_for()
    assert marked.evaluate_all("all => all.map(each => each.name)") == ["Tg_num"]


def test_a_person_fills_right_and_reads_the_answer_that_programs_get(page, server):
    page.goto("/")
    page.get_by_label("Film").fill("film 3")
    page.get_by_label("Tg_num (K)").fill("420")
    page.get_by_label("Tg_num (K)").press("Enter")
    answer = answer_of(page)
    assert answer.locator(".verdict").inner_text().startswith("ACCEPT: all values lie inside")
    inputs = {"film": "film 3", "Tg_num": 420, "quantile": 0.8}  # the last is filled in
    report = server.client.post("/predict", json={"model_id": MODEL, "inputs": inputs}).json()
    shown = answer.locator("table").first.locator("tbody tr").first.inner_text().split("\t")
    first = report["estimates"][0]
    assert [float(each) for each in [shown[2], *shown[3].split(" to ")]] == pytest.approx(
        [first["median"], first["low"], first["high"]], rel=1e-3
    )
    with page.expect_download() as download:
        answer.get_by_text("the report as JSON").click()
    kept = json.loads(download.value.path().read_text())
    assert kept["sha256"] == report["sha256"]


def test_a_person_drops_a_record_and_reads_both_verdicts_and_the_posterior(page):
    """It is answered as the file that it is, its ends of lines included."""
    page.goto("/")
    files = {"film.csv": RECORD.replace("\n", "\r\n"), "film.yaml": "{}\n"}
    page.evaluate(
        """files => {
          const dataTransfer = new DataTransfer();
          for (const [name, text] of Object.entries(files))
            dataTransfer.items.add(new File([text], name));
          document.body.dispatchEvent(new DragEvent("drop", { bubbles: true, dataTransfer }));
        }""",
        files,
    )
    assert page.locator("#meta").evaluate("field => field.files[0].name") == "film.yaml"
    page.keyboard.press("Enter")  # the button has the focus
    answer = answer_of(page)
    verdicts = [each.split(":")[0] for each in answer.locator(".verdict").all_inner_texts()]
    assert verdicts == ["ACCEPT", "ACCEPT"]
    assert "S_V_mean" in answer.get_by_role("region", name="The posterior").inner_text()
    assert "6 measurements of film 1 from film.csv" in answer.inner_text()
    with page.expect_download() as download:
        answer.get_by_text("the report as JSON").click()
    told = artifacts.read_json(download.value.path())["lineage"]["inputs"]["data"]["sha256"]
    assert told == hashlib.sha256(files["film.csv"].encode()).hexdigest()


def test_a_record_that_cannot_be_read_is_said_at_the_record(page):
    page.goto("/")
    page.get_by_role("button", name="Run inference").first.click()
    page.locator("#wrong-data", has_text="choose a record first").wait_for()
    nonsense = {"name": "film.csv", "mimeType": "text/csv", "buffer": b"nonsense"}
    page.get_by_label("Record").set_input_files(nonsense)
    page.get_by_role("button", name="Run inference").first.click()
    page.locator("#wrong-data", has_text="film.csv").wait_for()


def test_a_person_reads_what_a_model_rests_on(page):
    page.goto(f"/modeling?model={MODEL}")
    certificate = artifacts.read_json(
        Path(pages.__file__).parents[1] / f"models/{MODEL}/pretrained/certificate.json"
    )
    rate = certificate["false_alarms"]["rate"]
    row = page.get_by_role("row", name="False alarms").inner_text().split("\t")
    assert row[1:4] == [
        f"{rate['value']:.3f}",
        f"{rate['low']:.3f} to {rate['high']:.3f}",
        str(rate["n"]),
    ]
    assert page.get_by_text("pretrained, certificate of").is_visible()


def test_every_rate_of_a_certificate_has_its_n_and_holds_its_value():
    for file in Path(pages.__file__).parents[1].glob("models/*/pretrained/certificate.json"):
        for row in pages.figures(artifacts.read_json(file)):
            assert int(row.n) > 0, row
            if row.interval:
                low, high = map(float, row.interval.split(" to "))
                assert low - 5e-4 <= float(row.value) <= high + 5e-4, row


def move(page, stage, why, model=MODEL):
    """Ask for the newest version to be moved; returns what the page says."""
    page.goto(f"/modeling?model={model}")
    page.get_by_label("New stage").select_option(stage)
    page.get_by_label("Who").fill("Ada")
    page.get_by_label("Why").fill(why)
    page.get_by_role("button", name="Move").click()
    page.locator("#promoted .verdict").wait_for()
    return page.locator("#promoted").inner_text()


def test_an_answer_to_what_if_shows_the_graph_that_was_cut_the_twins_and_the_laws():
    row = {"name": "mass", "unit": "Msun", "meaning": "", "remark": ""}
    ends, twice = ({"low": k, "median": 2 * k, "high": 3 * k} for k in (1.0, 2.0))
    line = {"low": [0.5, 1.0], "median": [1.0, 2.0], "high": [2.0, 3.0]}
    twin = {
        "kind": "counterfactual", "model_id": "galaxy", "artefact": "as released",
        "do": ["mass=2x"], "mode": "total", "level": 0.9, "verdict": "accept", "reason": "so",
        "computation": {"verdict": "accept", "reason": "because"}, "remarks": ["be <careful>"],
        "posterior": [row | ends],
        "counterfactual": [row | twice | {"change": ends, "bracket": ends, "why": "it is set"}],
        "violations": [{"law": "light is kept", "status": "kept", "largest": 1e-6, "limit": 1e-4,
                        "n": 3, "how": "by a sum"}],
        "curves": {"x": [1.0, 2.0], "x_label": "x", "y_label": "y", "factual": line, "twin": line},
        "structure": {"nodes": {"redshift": "redshift", "mass": "mass"}, "edges": [],
                      "kinds": {"redshift": "kept", "mass": "set"}, "cut": [["redshift", "mass"]]},
    }  # fmt: skip
    html = pages.answered(twin)
    for said in ("mass=2x", "it is set", "light is kept", "be &lt;careful&gt;"):
        assert said in html
    svg, png = (
        base64.b64decode(html.partition(f"data:image/{kind};base64,")[2].partition('"')[0])
        for kind in ("svg+xml", "png")
    )
    assert "redshift" in svg.decode()
    assert png.startswith(b"\x89PNG")


def test_a_person_is_refused_a_promotion_with_everything_that_failed(page):
    said = move(page, "Production", "it looks fine")
    assert said.startswith("REFUSED: interface version 1 from None to Production")
    assert page.locator("#promoted li").all_inner_texts() == ["may only become Staging or Archived"]
    history = page.get_by_role("region", name="History of stages")
    assert history.locator("tbody tr").count() == 1


def test_a_person_moves_a_version_and_reads_who_did_it_and_why(page):
    said = move(page, "Archived", "a better one is coming")
    assert said == "MOVED: Version 1 is at Archived now."
    row = page.get_by_role("region", name="History of stages").locator("tbody tr").first
    assert row.inner_text().split("\t")[1:] == ["1", "Archived", "Ada", "a better one is coming"]


def uploading(page, files):
    """Choose the files of an artefact and send them; returns what the page says of them."""
    chosen = [
        {"name": name, "mimeType": "application/octet-stream", "buffer": content}
        for name, content in files.items()
    ]
    page.get_by_label("Files of the artefact").set_input_files(chosen)
    page.get_by_label("Added by").fill("Ada")
    page.get_by_label("Reason").fill("from another machine")
    page.get_by_role("button", name="Upload").click()
    page.locator("#sent .verdict").wait_for()
    return page.locator("#sent").inner_text()


def test_a_person_reads_why_files_are_no_version(page, server, tmp_path):
    released = checkpoints.find(MODEL, Results(tmp_path)).checkpoint
    files = {file.name: file.read_bytes() for file in released.iterdir()}
    manifest = files.pop(artifacts.MANIFEST)
    before = server.client.get(f"/models/{MODEL}/versions").json()
    page.goto(f"/modeling?model={MODEL}")
    assert "manifest.json is not among them" in uploading(page, files)
    assert "is no manifest" in uploading(page, {artifacts.MANIFEST: b"[]"})
    one, *others = files
    said = uploading(page, {artifacts.MANIFEST: manifest, "x.csv": b"", one: files[one]})
    assert f"{others[0]}: the manifest lists it" in said
    assert "x.csv: the manifest does not list it" in said
    changed = files | {artifacts.MANIFEST: manifest, one: files[one] + b" "}
    said = uploading(page, changed)
    assert said.startswith("REFUSED: the artefact is refused: ")
    assert f"{one}: differs from its sha256" in said
    assert page.locator("#sending").is_hidden()
    assert page.get_by_role("button", name="Upload").is_enabled()
    assert server.client.get(f"/models/{MODEL}/versions").json() == before


def test_the_form_of_a_training_has_the_settings_that_are_nested_in_others(page):
    page.goto("/modeling?model=ecsfm")
    page.get_by_text("Settings of the training").click()
    page.get_by_label("surrogate, n steps").fill("-5")
    with page.expect_request("**/jobs") as sent:
        page.get_by_role("button", name="Train model").click()
    assert sent.value.post_data_json["settings"] == {"train.surrogate.n_steps": -5}
    page.locator("#trainings .verdict", has_text="train.surrogate.n_steps is -5").wait_for()


def test_a_person_trains_a_model_watches_it_and_cancels_it(page, server):
    page.goto("/modeling?model=untrained")
    page.get_by_text("Settings of the training").click()
    held_out = page.get_by_label("held out")
    held_out.fill("0.9")
    page.get_by_role("button", name="Train model").click()
    page.locator("#trainings .verdict", has_text="held_out").wait_for()
    held_out.fill("0.2")
    page.get_by_role("button", name="Train model").click()
    page.locator("#status", has_text="It is running.").wait_for()
    page.locator("#log", has_text="simulate").wait_for()
    page.reload()  # whoever comes back finds it
    page.locator("#log", has_text="simulate").wait_for()
    page.get_by_role("button", name="Cancel training").click()
    page.locator("#status", has_text="It was cancelled.").wait_for()
    trainings = page.get_by_role("region", name="Trainings so far")
    trainings.get_by_role("cell", name="cancelled").wait_for()
    (job,) = server.client.get("/jobs").json()["jobs"]
    assert (job["status"], job["settings"]) == ("cancelled", {"train.held_out": 0.2})


def test_a_person_watches_the_service(page, server):
    page.goto("/monitor")
    answered = page.locator("#tiles li", has_text="questions answered").locator("b")
    answered.wait_for()
    before = int(answered.inner_text())
    asked = {"model_id": MODEL, "inputs": {"film": "film 3"}}
    assert server.client.post("/predict", json=asked).status_code == 200
    page.locator("#tiles li", has_text="questions answered").get_by_text(str(before + 1)).wait_for()
    row = page.get_by_role("row", name=MODEL).inner_text().split("\t")
    assert row[1] == "ready"
    assert all(unit in each for each, unit in zip(row[4:6], "ss", strict=True))
    assert row[6].endswith("%")


def test_a_person_sees_the_graph_of_the_model_of_a_run(page):
    page.goto(f"/run?name={RUN}")
    graph = page.get_by_role("img", name="the structure of regimes")
    assert graph.evaluate("image => image.complete && image.naturalHeight") > 100
    assert page.get_by_role("row", name="chains").inner_text().split("\t") == ["chains", "2"]
    page.get_by_role("link", name="All runs").click()
    link = page.get_by_role("region", name="Runs").get_by_role("link", name=RUN)
    assert unquote(link.get_attribute("href")) == f"/run?name={RUN}"


def test_a_person_who_uses_the_keyboard_alone_comes_to_the_form_past_the_menu(page):
    page.goto("/")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the link that skips the menu
    reached = []
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
    assert {"data", "meta", "field-film", "field-Efield_num"} <= set(reached)


@pytest.mark.parametrize("where", PAGES)
def test_the_pages_are_accessible_in_light_and_dark_and_fit_a_phone(browser, server, where):
    size = {"width": 320, "height": 640}
    page = browser.new_page(base_url=str(server.client.base_url), viewport=size)
    try:
        page.goto(where)
        page.evaluate("document.querySelectorAll('main details').forEach(each => each.open = true)")
        if where == "/":
            page.get_by_label("Film").press("Enter")
            answer_of(page)
        else:
            page.locator("table").first.wait_for()
        levels = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
        rules = {"light": {"type": "tag", "values": levels}}
        rules["dark"] = {"type": "rule", "values": ["color-contrast"]}
        for scheme, only in rules.items():
            page.emulate_media(color_scheme=scheme)
            found = Axe().run(page, options={"runOnly": only}).response
            assert [(each["id"], each["nodes"][0]["html"]) for each in found["violations"]] == []
            assert found["passes"]
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    finally:
        page.close()


def test_pages_are_refused_what_others_would_put_into_them(server):
    assert server.client.get("/?model=<script>").status_code == 404
    assert server.client.get("/static/../app.py").status_code == 404
    policy = server.client.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for body in (b"", b"{}", b"[]", b'{"kind": "infer"}', base64.b64decode("/w==")):
        assert server.client.post("/answer", content=body).status_code == 422
    asked = {"model_id": MODEL, "inputs": {"film": "film 3"}}
    report = server.client.post("/predict", json=asked).json()
    report["reason"] = "<script>alert(1)</script>"
    text = server.client.post("/answer", json=report).text
    assert "&lt;script&gt;" in text
    assert "<script>" not in text


@pytest.mark.nightly
def test_what_is_wrong_between_fields_is_said_at_one_of_them(project, browser):
    with serving(project, model="ecsfm") as server:
        page = browser.new_page(base_url=str(server.client.base_url))
        page.goto("/")
        page.locator("#field-E_V").fill("0.3, 0.2, 0.1")
        page.locator("#field-i_A").fill("1e-6, 2e-6")
        page.locator("#field-i_A").press("Enter")
        page.locator("#wrong-E_V", has_text="as many numbers").wait_for()
        assert "either radius_mm or area_mm2" in page.locator("#wrong-radius_mm").inner_text()
        assert "either t_s or" in page.locator("#wrong-t_s").inner_text()
        page.close()


@pytest.mark.nightly
def test_a_person_trains_a_model_to_its_end_and_has_its_version_in_staging_and_no_further(page):
    page.goto("/modeling?model=untrained")
    page.get_by_role("button", name="Train model").click()
    page.locator("#status", has_text="It is done.").wait_for(timeout=900_000)
    page.locator("#said", has_text="It made version 1.").wait_for()
    assert move(page, "Staging", "it learns", "untrained").startswith("MOVED")
    assert move(page, "Production", "it learns", "untrained").startswith("REFUSED")
    assert "there is no certificate" in page.locator("#promoted li").first.inner_text()
    page.goto("/monitor")
    page.get_by_role("region", name="Runs").get_by_text("untrained").first.wait_for()


@pytest.mark.nightly
def test_a_person_is_refused_a_version_that_answers_otherwise_than_it_did(page):
    said = move(page, "Staging", "it looks fine")
    assert said.startswith("REFUSED: interface version 1")
    assert page.locator("#promoted li").all_inner_texts() == ["the canary gets another answer"]


@pytest.mark.nightly
def test_a_person_brings_a_release_to_production(page, server, tmp_path):
    released = checkpoints.find(MODEL, Results(tmp_path)).checkpoint
    shutil.copytree(released, tmp_path / "copy")
    (tmp_path / "copy/notes.csv").write_text("another digest than that of the version of before")
    manifest = artifacts.read_json(released / artifacts.MANIFEST)
    names = [*manifest["files"], "notes.csv"]
    artifacts.write_manifest(tmp_path / "copy", names, manifest["settings"], manifest["lineage"])
    page.goto(f"/modeling?model={MODEL}")
    said = uploading(page, {file.name: file.read_bytes() for file in (tmp_path / "copy").iterdir()})
    assert said.startswith("ADDED: Version 2 is kept, with the digest ")
    row = page.get_by_role("region", name="History of stages").locator("tbody tr").first
    assert row.inner_text().split("\t")[1:] == ["2", "None", "Ada", "from another machine"]
    for stage in ("Staging", "Production"):
        said = move(page, stage, "its certificate passes")
        assert said == f"MOVED: Version 2 is at {stage} now."
    row = page.get_by_role("region", name="Versions").locator("tbody tr").first
    assert row.inner_text().split("\t")[:3] == ["2", "Production", "production, latest"]
