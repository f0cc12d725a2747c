"""Every way in which a dataset can be wrong, and the one line that says so."""

import json
import logging
import re
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlplatform.files import write_json
from rlplatform.offline.errors import DatasetError
from rlplatform.offline.reading import DatasetReader, iter_episodes, read_dataset
from tests.offline.datasets import assert_same_episodes, edit_line, rehash, small_dataset


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    for case in ("portfolio", "regime"):
        small_dataset(folder / case, case)
    small_dataset(folder / "parquet", "portfolio", "parquet")
    return folder


@pytest.fixture
def dataset(originals, tmp_path):
    """A copy to spoil."""

    def copy(case="portfolio"):
        shutil.copytree(originals / case, tmp_path / case)
        return tmp_path / case

    return copy


def first_shard(directory):
    return sorted((directory / "shards").iterdir())[0]


def spoil(change):
    return lambda path: edit_line(path, 2, change)


def put(column, step, value):
    def change(content):
        content[column][step] = value

    return change


def truncate(path):
    path.write_bytes(path.read_bytes()[:-40])


def widen(content):
    content["obs"] = [[*row, 0.0] for row in content["obs"]]


def scale_rewards(content):
    content["rewards"] = [100 * r for r in content["rewards"]]


def two_episodes(content):
    content["eps_id"][-1] += 1


def repeat(path):
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[0], *lines[2:]]) + "\n")


SPOILT = {
    "a missing column": ("portfolio", spoil(lambda c: c.pop("rewards")), "line 2: has no column 'rewards'"),
    "a missing extra": ("portfolio", spoil(lambda c: c.pop("cost")), "line 2: has no column 'cost', which dataset.json"),
    "no log-probability": ("portfolio", spoil(lambda c: c.pop("action_logp")), "line 2: has no column 'action_logp'"),
    "another dtype": ("regime", spoil(put("actions", 3, 2.5)), "line 2: column 'actions' is float64; expected a whole number"),
    "text for a number": ("portfolio", spoil(put("rewards", 3, "much")), "line 2: column 'rewards' is .*; expected a number"),
    "another width": ("portfolio", spoil(widen), r"line 2: column 'obs' has shape \(7, \d+\); expected \(7, \d+\)"),
    "a ragged column": ("portfolio", spoil(lambda c: c["obs"][0].pop()), "line 2: column 'obs' is ragged"),
    "a NaN": ("portfolio", spoil(put("rewards", 3, float("nan"))), "line 2: column 'rewards' at step 3 is NaN or infinite"),
    "an action outside": ("regime", spoil(put("actions", 3, 16)), r"line 2: actions at step 3 are 16, outside Discrete\(16\)"),
    "weights that sum to 2": (
        "portfolio",
        spoil(put("actions", 1, [0.5] * 4)),
        "line 2: actions at step 1 are weights that sum to 2",
    ),
    "another reward scale": ("portfolio", spoil(scale_rewards), "line 2: rewards at step .*Another scale"),
    "an impossible drawdown": (
        "portfolio",
        spoil(put("drawdown", 2, 0.5)),
        "line 2: drawdown at step 2 is 0.5 .*expected -1 to 0",
    ),
    "an unfinished episode": ("portfolio", spoil(put("truncateds", -1, False)), "line 2: ends with neither"),
    "an end in the middle": ("portfolio", spoil(put("terminateds", 2, True)), "line 2: ends at step 2 and goes on"),
    "two episodes in a line": ("portfolio", spoil(two_episodes), "line 2: holds 2 episodes"),
    "a repeated episode": ("portfolio", repeat, "line 2: repeats episode"),
    "a cut last line": ("portfolio", truncate, "line 4: is cut off in its middle"),
    "no JSON": ("portfolio", lambda path: path.write_text("episode\n" + path.read_text()), "line 1: is no JSON"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_bad_line_is_named_even_when_the_hash_was_mended(dataset, what):
    case, change, message = SPOILT[what]
    directory = dataset(case)
    change(first_shard(directory))
    for mended in (False, True):
        if mended:
            rehash(directory)
        with pytest.raises(DatasetError, match=re.escape(str(first_shard(directory))) + ": " + message):
            read_dataset(directory)


@pytest.mark.parametrize("what", [w for w in SPOILT if w != "no JSON"])
def test_skipping_leaves_out_the_bad_line_alone_and_says_so(dataset, originals, what, caplog):
    case, change, message = SPOILT[what]
    directory = dataset(case)
    change(first_shard(directory))
    rehash(directory)
    whole = read_dataset(originals / case)[0]
    with caplog.at_level(logging.WARNING):
        episodes, manifest = read_dataset(directory, skip_bad=True)
    bad = 3 if "cut" in what else 1
    assert_same_episodes(episodes, whole.select(np.delete(np.arange(8), bad)))
    assert (manifest.episodes, manifest.rows) == (7, episodes.num_rows)
    assert "left out 1 episode(s) of 8" in caplog.text
    assert re.search(message, caplog.text)


def test_a_changed_byte_that_no_check_sees_breaks_the_hash(dataset):
    directory = dataset()
    edit_line(first_shard(directory), 2, lambda content: put("obs", 0, [0.0] * len(content["obs"][0]))(content))
    with pytest.raises(DatasetError, match=r"has sha256 .*It was changed after it was written"):
        read_dataset(directory)
    reader = DatasetReader(directory, skip_bad=True)
    assert sum(len(part) for part in reader) == 8  # nothing is wrong with any line, and still it is told
    assert "sha256" in reader.left_out[0]


def test_rewards_scaled_down_are_found_though_each_lies_in_range(dataset):
    directory = dataset()
    path = first_shard(directory)
    for line in range(1, 5):
        edit_line(path, line, lambda content: content.update(rewards=[r / 100 for r in content["rewards"]]))
    with pytest.raises(DatasetError, match=r"rewards have standard deviation .* Another scale"):
        read_dataset(directory)


def test_a_missing_shard_and_an_unlisted_one_are_told(dataset):
    directory = dataset()
    path = first_shard(directory)
    shutil.copy(path, path.with_name("shard-00009.json"))
    with pytest.raises(DatasetError, match=r"shard-00009.json is not listed in dataset.json, but RLlib would read it"):
        read_dataset(directory)
    path.with_name("shard-00009.json").unlink()
    path.unlink()
    with pytest.raises(DatasetError, match=r"shard-00000.json is missing"):
        read_dataset(directory)
    assert len(read_dataset(directory, skip_bad=True)[0]) == 4


def test_lost_lines_are_told(dataset):
    directory = dataset()
    path = first_shard(directory)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(DatasetError, match=r"holds 3 episodes of 21 rows; dataset.json says 4 of 28"):
        read_dataset(directory)


def test_parquet_names_its_rows_and_its_missing_columns(dataset):
    directory = dataset("parquet")
    path = first_shard(directory)
    table = pq.read_table(path)
    rewards = table["rewards"].to_numpy().copy()
    rewards[9] = np.inf
    at = table.column_names.index("rewards")
    pq.write_table(table.set_column(at, "rewards", pa.array(rewards)), path)
    with pytest.raises(DatasetError, match=r"rows 7 to 13: column 'rewards' at step 2 is NaN or infinite"):
        read_dataset(directory)
    pq.write_table(table.drop_columns(["rewards"]), path)
    with pytest.raises(DatasetError, match=r"has no column 'rewards'"):
        read_dataset(directory)
    pq.write_table(table.replace_schema_metadata({"env_id": "Portfolio-v1"}), path)
    with pytest.raises(DatasetError, match=r"was written for Portfolio-v1, the dataset for Portfolio-v0"):
        read_dataset(directory)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DatasetError, match=r"cannot be read as Parquet"):
        read_dataset(directory)
    assert len(read_dataset(directory, skip_bad=True)[0]) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "schema_version = 2; this version reads 1"),
        ({"env": {"id": "Portfolio-v7"}}, "written for 'Portfolio-v7'; this version has Portfolio-v0"),
        ({"colour": "red"}, r"unknown \['colour'\]"),
        ({"format": "csv"}, "format = 'csv'; expected one of json"),
    ],
)
def test_a_manifest_of_another_world_is_refused(dataset, change, message):
    path = dataset() / "dataset.json"
    write_json(path, json.loads(path.read_text()) | change)
    with pytest.raises(DatasetError, match=message):
        read_dataset(path.parent)


def test_no_dataset_at_all(tmp_path):
    with pytest.raises(DatasetError, match=r"dataset.json does not exist. Give a dataset's directory"):
        read_dataset(tmp_path)


def test_streaming_gives_the_same_episodes_shard_by_shard(originals):
    parts = list(iter_episodes(originals / "portfolio"))
    assert [len(part) for part in parts] == [4, 4]
    assert_same_episodes(parts[1], read_dataset(originals / "portfolio")[0].select(np.arange(4, 8)))


# Several datasets


def test_a_mixture_knows_both_behaviours_and_its_own_statistics(originals, tmp_path):
    small_dataset(tmp_path / "uniform", policy="uniform", format="parquet")
    episodes, manifest = read_dataset([originals / "portfolio", tmp_path / "uniform"])
    assert len(episodes) == manifest.episodes == 16
    assert [behaviour["kind"] for behaviour in manifest.behaviours] == ["momentum", "uniform"]
    assert manifest.rewards["max"] == pytest.approx(episodes.rewards.max())
    assert manifest.episode_return["mean"] == pytest.approx(episodes.returns().mean())
    assert manifest.has_log_prob


def test_datasets_of_two_environments_are_not_joined(originals):
    with pytest.raises(DatasetError, match=r"regime cannot be joined with .*portfolio: env differs in "):
        read_dataset([originals / "portfolio", originals / "regime"])


def test_a_setting_that_did_not_exist_when_a_dataset_was_collected_keeps_nobody_apart(originals, tmp_path):
    small_dataset(tmp_path / "early", policy="uniform", format="parquet")
    path = tmp_path / "early" / "dataset.json"
    content = json.loads(path.read_text())
    assert content["env"].pop("observe") == []
    path.write_text(json.dumps(content))
    assert len(read_dataset([originals / "portfolio", tmp_path / "early"])[0]) == 16


def test_columns_can_be_observed(originals):
    plain, manifest = read_dataset(originals / "portfolio")
    wider, named = read_dataset(originals / "portfolio", observe=["spread_bps", "risk_budget"])
    assert named.observation_names == (*manifest.observation_names, "spread_bps", "risk_budget")
    assert wider.obs.shape[1] == plain.obs.shape[1] + 2 == named.obs_size
