"""cluster.yaml and the RayJob manifest: Ray's own schema, and what that lets through."""

import copy
import re
import shlex

import click
import pytest
import yaml
from jsonschema.exceptions import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start

from tests.conftest import REPOSITORY

CLUSTER = yaml.safe_load((REPOSITORY / "cluster.yaml").read_text())
JOB = yaml.safe_load((REPOSITORY / "deploy" / "kuberay-rayjob.yaml").read_text())
TYPES = CLUSTER["available_node_types"]
FLAGS = {flag for option in start.params if isinstance(option, click.Option) for flag in option.opts}
# Of boto3's create_instances; Ray's schema takes any node_config.
NODE_KEYS = {"InstanceType", "ImageId", "BlockDeviceMappings", "InstanceMarketOptions", "MetadataOptions"}


def start_commands(config=CLUSTER):
    commands = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    return [part for line in commands for part in re.findall(r"\S*ray start.*", line)]


def unknown_flags(command):
    return [word for word in shlex.split(command) if word.startswith("--") and word.split("=")[0] not in FLAGS]


def changed(**changes):
    return copy.deepcopy(CLUSTER) | changes


def test_ray_takes_the_cluster_file():
    validate_config(prepare_config(copy.deepcopy(CLUSTER)))


@pytest.mark.parametrize(
    "wrong",
    [
        changed(head_node_typ="head"),
        changed(max_workers="many"),
        changed(head_node_type="nobody"),
        changed(max_workers=-1),
    ],
    ids=["a key that is not known", "a word for a number", "a head of no type", "a negative limit"],
)
def test_rays_schema_refuses(wrong):
    with pytest.raises((ValidationError, ValueError)):
        validate_config(prepare_config(wrong))


def test_every_start_command_uses_flags_that_ray_has():
    commands = start_commands()
    assert len(commands) == 2
    assert [unknown_flags(command) for command in commands] == [[], []]


def test_a_misspelt_flag_would_be_found():
    assert unknown_flags("ray start --head --dashbord-host=127.0.0.1") == ["--dashbord-host=127.0.0.1"]


def test_node_configs_hold_what_aws_knows_and_one_image():
    assert {key for each in TYPES.values() for key in each["node_config"]} <= NODE_KEYS
    assert len({each["node_config"]["ImageId"] for each in TYPES.values()}) == 1


def test_the_limits_agree_with_each_other():
    workers = {name: each for name, each in TYPES.items() if name != CLUSTER["head_node_type"]}
    assert CLUSTER["max_workers"] == sum(each["max_workers"] for each in workers.values())
    assert all(each["min_workers"] <= each["max_workers"] for each in workers.values())
    assert [name for name, each in workers.items() if "GPU" in each["resources"]] == ["learner"]


def test_the_head_computes_nothing_and_listens_on_loopback():
    assert TYPES["head"]["resources"] == {"CPU": 0}
    (head,) = (command for command in start_commands() if "--head" in command)
    assert "--dashboard-host=127.0.0.1" in head
    assert CLUSTER["provider"]["use_internal_ips"] is True


def test_nobody_outside_reaches_anything_but_ssh():
    for rule in CLUSTER["provider"]["security_group"]["IpPermissions"]:
        assert (rule["FromPort"], rule["ToPort"]) == (22, 22)
        assert all(not each["CidrIp"].startswith("0.0.0.0") for each in rule["IpRanges"])


def test_every_node_wants_the_token():
    starts = CLUSTER["head_start_ray_commands"][-1:] + CLUSTER["worker_start_ray_commands"][-1:]
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert any("chmod 600" in command and "auth_token" in command for command in CLUSTER["setup_commands"])


def test_nodes_install_the_versions_of_ci():
    assert any("-c constraints.txt" in command for command in CLUSTER["setup_commands"])
    assert (REPOSITORY / "constraints.txt").is_file()
    pinned = re.search(r"^ray==(\S+)$", (REPOSITORY / "constraints.txt").read_text(), re.M).group(1)
    assert JOB["spec"]["rayClusterSpec"]["rayVersion"] == pinned


def test_the_rayjob_has_kuberays_fields_and_no_others():
    known = {
        "entrypoint",
        "runtimeEnvYAML",
        "submissionMode",
        "backoffLimit",
        "shutdownAfterJobFinishes",
        "ttlSecondsAfterFinished",
        "rayClusterSpec",
    }
    assert (JOB["apiVersion"], JOB["kind"], set(JOB["spec"])) == ("ray.io/v1", "RayJob", known)
    assert JOB["spec"]["submissionMode"] in ("K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode")
    assert set(yaml.safe_load(JOB["spec"]["runtimeEnvYAML"])) <= {"env_vars", "working_dir", "pip", "py_modules"}


def test_the_rayjob_is_closed_to_strangers():
    cluster = JOB["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"


def test_groups_of_the_rayjob_say_what_they_have():
    cluster = JOB["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())  # KubeRay refuses numbers
        assert {f"--{name}" for name in group["rayStartParams"]} <= FLAGS
        (container,) = group["template"]["spec"]["containers"]
        limits = container["resources"]["limits"]
        assert group["rayStartParams"]["num-cpus"] in ("0", limits["cpu"])
        assert group["rayStartParams"].get("num-gpus") == limits.get("nvidia.com/gpu")
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_the_rayjobs_command_is_one_that_the_command_line_has():
    words = shlex.split(JOB["spec"]["entrypoint"])
    assert words[:4] == ["python", "-m", "rlplatform", "train"]
    assert all("=" in word for word in words[5:])
