"""The photograph of each image, by content: of the sample, of others, and the tables that ship."""

import json

import numpy as np
import pandas as pd
import pytest

from wbc_helpers import cells
from wbc_helpers.audit import overlaps
from wbc_helpers.data import catalog, sample, splits


def test_groups_are_chains_of_pairs():
    pairs = pd.DataFrame({"first": ["b", "d", "x"], "second": ["c", "c", "y"]})
    groups = splits.group_sources(pairs, ["a", "b", "c", "d", "x"])
    assert groups.to_dict() == {"a": "a", "b": "b", "c": "b", "d": "b", "x": "x"}


def test_provenance_of_the_sample_is_its_truth(sample_folder, sample_catalog):
    true_pairs = json.loads((sample_folder / "sample.json").read_text())["overlaps"]
    known = splits.add_provenance(sample_catalog)
    truth = sample.truth(sample_folder).set_index("file")["source_id"]
    assert known["source_id"].tolist() == truth[known["file"]].tolist()
    pairs = [sorted(pair["photographs"]) for pair in true_pairs]
    groups = known.groupby("group_id")["source_id"].unique()
    assert [sorted(names) for names in groups if len(names) > 1] == sorted(pairs)
    # The sample's photographs were split before they were augmented; none overlaps across.
    assert not known["cell_in_train"].any()


def test_provenance_of_other_images_is_unknown(tiny_folder):
    tiny = catalog.find_images(tiny_folder)
    known = splits.add_provenance(tiny)
    assert len(known) == len(tiny)
    assert known[["source_id", "group_id", "cell_in_train"]].isna().all(axis=None)


def test_known_images_are_recognised_by_content(tmp_path, monkeypatch):
    (tmp_path / "renamed.jpeg").write_bytes(b"as if it were an image")
    path = str(tmp_path / "renamed.jpeg")
    table = splits.shipped().head(2).copy()
    table.loc[1, "content"] = splits.content_of([path])[0]
    monkeypatch.setattr(splits, "shipped", lambda: table)
    one = pd.DataFrame({"path": [path], "file": ["renamed.jpeg"]})
    known = splits.add_provenance(one)
    assert known["source_id"].tolist() == [table.loc[1, "source_id"]]


def test_shipped_table_is_whole():
    table = splits.shipped()
    split = table["file"].str.split("/").str[0]
    assert split.value_counts().to_dict() == {"TRAIN": 9957, "TEST": 2487, "TEST_SIMPLE": 71}
    assert not table["file"].duplicated().any()
    assert table[["source_id", "group_id", "content"]].notna().all(axis=None)
    assert table.groupby(split)["source_id"].nunique()[["TRAIN", "TEST"]].to_dict() == {
        "TRAIN": 277,
        "TEST": 71,
    }
    train, test = (set(table.loc[split == name, "source_id"]) for name in ("TRAIN", "TEST"))
    assert not train & test
    assert set(table.loc[split == "TEST_SIMPLE", "source_id"]) <= test
    missing = table[table["source_id"] == "missing_1"]
    assert len(missing) == 15
    assert missing["file"].str.startswith("TRAIN/NEUTROPHIL/").all()
    assert (table["inliers"] >= overlaps.MIN_INLIERS).all()
    # A photograph's images all lie in one class folder.
    folder = table["file"].str.split("/").str[1]
    assert (folder.groupby(table["source_id"]).nunique() == 1).all()
    assert set(folder) == set(cells.BY_FOLDER)
    # Keras rotated, sheared and flipped, and never scaled by more than the shear does.
    maps = table.loc[table["m00"].notna(), ["m00", "m01", "m10", "m11"]].to_numpy()
    area = np.linalg.det(maps.reshape(-1, 2, 2))
    assert (np.abs(area) > 0.9).all()
    assert (np.abs(area) < 1.05).all()


def test_shipped_overlaps_agree_with_the_groups():
    pairs, table = splits.shipped_overlaps(), splits.shipped()
    assert len(pairs) == 47
    assert pairs["across"].sum() == 9
    groups = table.drop_duplicates("source_id").set_index("source_id")["group_id"]
    both = pairs[pairs["first"].isin(groups.index) & pairs["second"].isin(groups.index)]
    assert len(both) > 40
    assert (both["first"].map(groups) == both["second"].map(groups)).all()
    split = table["file"].str.split("/").str[0]
    affected = table[(split == "TEST") & table["cell_in_train"]]
    across = pairs[pairs["across"] & pairs["same_cell"]]
    names = {*across["first"], *across["second"]}
    assert set(affected["source_id"]) == names & set(table.loc[split == "TEST", "source_id"])
    assert not table.loc[split == "TRAIN", "cell_in_train"].any()


@pytest.mark.slow
@pytest.mark.real_data
def test_real_images_get_their_source_at_once(real_folder):
    known = splits.add_provenance(catalog.find_images(real_folder))
    assert known["source_id"].notna().all()
    table = splits.shipped().set_index("file")
    assert known["source_id"].tolist() == table.loc[known["file"], "source_id"].tolist()
