"""A project and a service in it, which a file of tests has for itself."""

import pytest
from serving import TWIN, serving, trained


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project in which models were trained."""
    return trained(tmp_path_factory)


@pytest.fixture(scope="module")
def server(project):
    """A service that makes a job of what takes some seconds."""
    with serving(project, "--deadline", "4", "--queue", "20", "--model", TWIN) as running:
        yield running
