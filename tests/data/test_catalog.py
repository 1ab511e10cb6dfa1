import shutil

import pandas as pd
import pytest

from wbc_helpers import cells
from wbc_helpers.data import catalog
from wbc_helpers.data.splits import grouped_folds, split_validation
from wbc_helpers.errors import DataMismatch, DataNotFound, InvalidParameter


@pytest.mark.parametrize(
    "below", [".", "images", "dataset2-master/images", "dataset2-master/dataset2-master/images"]
)
def test_images_are_found_at_every_depth_at_which_people_unpack(tiny_folder, tmp_path, below):
    unpacked = tmp_path / "unpacked"
    (unpacked / below).parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(tiny_folder, unpacked / below, dirs_exist_ok=True)
    found = catalog.find_images(unpacked)
    assert len(found) == 40
    assert found.file.iloc[0] == "TRAIN/EOSINOPHIL/_0_0.jpeg"
    assert list(found.split.unique()) == ["TRAIN", "TEST"]
    assert (found.groupby("cell_type", observed=False).size() == 10).all()


def test_counts_have_totals(tiny_folder):
    counts = catalog.count_images(catalog.find_images(tiny_folder))
    assert counts.loc["TRAIN", "monocyte"] == 5
    assert counts.loc["all", "all"] == 40


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataNotFound, match="no-such-folder"):
        catalog.find_images(tmp_path / "no-such-folder")


def test_a_folder_without_classes_says_what_it_found(tmp_path):
    (tmp_path / "holiday").mkdir()
    with pytest.raises(DataNotFound, match="holiday"):
        catalog.find_images(tmp_path)


def test_missing_empty_and_extra_classes_are_all_named(tiny_folder):
    shutil.rmtree(tiny_folder / "TRAIN" / "MONOCYTE")
    for file in (tiny_folder / "TEST" / "NEUTROPHIL").iterdir():
        file.unlink()
    (tiny_folder / "TRAIN" / "BASOPHIL").mkdir()
    with pytest.raises(DataMismatch) as refusal:
        catalog.find_images(tiny_folder)
    for words in ("TRAIN/MONOCYTE is missing", "TEST/NEUTROPHIL is empty", "TRAIN/BASOPHIL"):
        assert words in str(refusal.value)


def test_hidden_files_and_other_files_are_no_images(tiny_folder):
    (tiny_folder / "TRAIN" / "MONOCYTE" / "._0_0.jpeg").write_bytes(b"macOS leaves these")
    (tiny_folder / "TRAIN" / "MONOCYTE" / "notes.txt").write_text("mine")
    assert len(catalog.find_images(tiny_folder)) == 40


def of_photographs(n_photographs: int, n_images_each: int) -> pd.DataFrame:
    rows = [
        (f"photograph {p}", cells.NAMES[p % 4])
        for p in range(n_photographs)
        for _ in range(n_images_each)
    ]
    return pd.DataFrame(rows, columns=["group_id", "cell_type"])


def test_the_papers_split_has_the_papers_sizes():
    counts = {"eosinophil": 2497, "lymphocyte": 2483, "monocyte": 2478, "neutrophil": 2499}
    training = pd.DataFrame({"cell_type": [name for name, n in counts.items() for _ in range(n)]})
    part = split_validation(training, "random", 0.1, seed=0)
    assert part.value_counts().to_dict() == {"train": 8961, "validation": 996}
    # Stratified: each type gives a tenth, to the nearest image.
    by_type = part.eq("validation").groupby(training.cell_type).sum()
    assert all(abs(by_type[name] - n / 10) < 1 for name, n in counts.items())


def test_a_split_repeats_with_its_seed_and_changes_with_another():
    training = of_photographs(20, 10)
    splits = [split_validation(training, "random", 0.2, seed) for seed in (1, 1, 2)]
    assert splits[0].equals(splits[1])
    assert not splits[0].equals(splits[2])


def test_a_random_split_leaks_and_a_grouped_one_does_not():
    training = of_photographs(40, 10)
    sides = {
        how: split_validation(training, how, 0.2, seed=0).groupby(training.group_id).nunique()
        for how in ("random", "grouped")
    }
    assert sides["random"].max() == 2
    assert sides["grouped"].max() == 1
    grouped = split_validation(training, "grouped", 0.2, seed=0)
    assert grouped.eq("validation").sum() == 80


def test_folds_divide_no_photograph_and_hold_every_image_once():
    training = of_photographs(40, 10)
    folds = grouped_folds(training, n_folds=5, seed=0)
    assert folds.groupby(training.group_id).nunique().max() == 1
    assert folds.value_counts().to_dict() == dict.fromkeys(range(5), 80)
    # Forty photographs of four types: two of each type a fold.
    assert (pd.crosstab(folds, training.cell_type) == 20).all(axis=None)
    with pytest.raises(InvalidParameter, match="folds"):
        grouped_folds(training, n_folds=1)


@pytest.mark.parametrize("fraction", [0.0, 1.0, 0.001])
def test_a_fraction_that_leaves_a_side_empty_is_refused(fraction):
    with pytest.raises(InvalidParameter, match="cannot be set aside"):
        split_validation(of_photographs(4, 2), "random", fraction)


def test_a_grouped_split_of_unknown_photographs_is_refused():
    training = of_photographs(8, 5).drop(columns="group_id")
    with pytest.raises(InvalidParameter, match="not known which photographs"):
        split_validation(training, "grouped", 0.2)


@pytest.mark.real_data
def test_the_real_archive_has_its_published_counts(real_folder):
    counts = catalog.count_images(catalog.find_images(real_folder))
    assert counts.loc["TRAIN"].tolist() == [2497, 2483, 2478, 2499, 9957]
    assert counts.loc["TEST"].tolist() == [623, 620, 620, 624, 2487]
    assert counts.loc["TEST_SIMPLE"].tolist() == [13, 6, 4, 48, 71]
