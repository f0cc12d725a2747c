import dataclasses
import json

import numpy as np
import pytest
from numpy.testing import assert_allclose

from envs.regime import ACTIONS
from rlplatform.offline.coverage import (
    ALGORITHMS,
    action_coverage,
    action_labels,
    behaviour_entropy,
    capabilities,
    check_dataset,
)
from rlplatform.offline.errors import DatasetError
from rlplatform.offline.reading import read_dataset
from tests.offline.datasets import edit_line, small_dataset


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    small_dataset(folder / "pair", "pair")
    small_dataset(folder / "certain", "pair", policy="momentum", has_log_prob=False)
    small_dataset(folder / "regime", "regime", policy="uniform", shards=20)
    return folder


def usable(report):
    return {capability.algorithm: capability.usable for capability in report.capabilities}


def test_which_algorithm_can_use_which_data(datasets):
    assert usable(check_dataset(datasets / "pair")) == dict.fromkeys(ALGORITHMS, True) | {"discrete_cql": False}
    assert usable(check_dataset(datasets / "certain"))["off-policy estimators"] is False
    regime = usable(check_dataset(datasets / "regime"))
    assert (regime["discrete_cql"], regime["cql"], regime["iql"], regime["off-policy estimators"]) == (True, False, False, True)


def test_uniform_actions_cover_the_space_and_have_its_entropy(datasets):
    report = check_dataset(datasets / "regime")
    assert report.action_coverage == 1.0
    assert_allclose(report.behaviour_entropy, np.log(16), rtol=1e-6)
    assert_allclose(sum(row["share"] for row in report.actions), 1)
    assert_allclose(sum(report.regimes.values()), 1)
    assert len(report.actions) == len(ACTIONS)
    assert report.ok


def test_coverage_by_hand(datasets):
    episodes, manifest = read_dataset(datasets / "pair")
    actions = np.zeros_like(episodes.actions)
    actions[: len(actions) // 2, 0] = 0.95  # bins 5 and 9 of ten; the second entry stays in bin 5
    changed = dataclasses.replace(episodes, actions=actions)
    table, mean = action_coverage(changed, manifest)
    assert [row["visited"] for row in table] == [0.2, 0.1]
    assert_allclose(mean, 0.15)
    assert_allclose(table[0]["mean"], 0.475, rtol=1e-6)
    assert action_labels(manifest) == ["A", "B"]
    assert behaviour_entropy(dataclasses.replace(episodes, log_prob=np.full(episodes.num_rows, -2.0))) == 2.0


def test_data_without_differences_give_marwil_nothing_to_prefer(datasets):
    episodes, manifest = read_dataset(datasets / "certain")
    alike = dataclasses.replace(episodes, rewards=np.zeros_like(episodes.rewards))
    by_name = {capability.algorithm: capability for capability in capabilities(alike, manifest, 0.1)}
    assert "every reward is the same" in by_name["marwil"].why
    assert "only 10% of the action space is visited" in by_name["cql"].why


def test_problems_are_listed_and_the_rest_is_still_described(datasets, tmp_path):
    small_dataset(tmp_path / "set", "pair")
    edit_line(tmp_path / "set" / "shards" / "shard-00001.json", 2, lambda content: content.pop("rewards"))
    report = check_dataset(tmp_path / "set")
    assert not report.ok
    assert "shard-00001.json: line 2: has no column 'rewards'" in report.problems[0]
    assert report.episodes == 7
    json.dumps(report.to_dict(), allow_nan=False)


def test_a_dataset_of_which_nothing_can_be_read_is_one_problem_more(tmp_path):
    small_dataset(tmp_path / "set", "pair", shards=1)
    (tmp_path / "set" / "shards" / "shard-00000.json").write_text("nothing\n")
    report = check_dataset(tmp_path / "set")
    assert (report.ok, report.rows, report.problems[-1]) == (False, 0, "no episode can be read.")


def test_no_dataset_is_an_error_not_a_report(tmp_path):
    with pytest.raises(DatasetError, match="does not exist"):
        check_dataset(tmp_path)
