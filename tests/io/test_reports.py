"""Lineage: what it says of a file is what the file holds, however often it is asked."""

import sys

from touchstone.io import artifacts, reports
from touchstone.io.validation import jsonschema


def test_the_lineage_of_a_file_that_has_changed_is_that_of_its_new_content(tmp_path):
    data, parent = tmp_path / "data.csv", tmp_path / "report.json"
    digests, parents = [], []
    for text in ("1,2\n", "1,3\n"):
        data.write_text(text, encoding="utf-8")
        artifacts.write_json(parent, {"lineage": {"seed": len(digests)}, "value": text})
        found = reports.lineage({}, 1, {"data": data, "report": parent})
        assert found["inputs"]["data"]["sha256"] == artifacts.sha256(data)
        assert found["inputs"]["report"]["sha256"] == reports.digest(parent)
        digests.append(found["inputs"]["report"]["sha256"])
        parents.append(found["parents"])
    assert digests[0] != digests[1]
    assert parents == [{"report": {"seed": 0}}, {"report": {"seed": 1}}]


def test_what_the_validator_hides_while_it_is_imported_can_be_found_afterwards():
    jsonschema()
    for name in ("rfc3987_syntax", "isoduration"):
        assert sys.modules.get(name, sys) is not None
