"""Photographs found again in drawn images whose source is known by construction; the audit."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from known_maps import MAPS, augmented, corner_error, crop
from PIL import Image

from wbc_helpers.__main__ import main
from wbc_helpers.audit import origins, overlaps
from wbc_helpers.data import catalog, sample, splits
from wbc_helpers.errors import DataMismatch, DataNotFound, InvalidParameter
from wbc_helpers.pixels import stain


def test_every_image_of_the_sample_finds_its_photograph(sample_folder, report):
    both = sample.truth(sample_folder).merge(report.images, on="file", suffixes=("_true", ""))
    assert len(both) == len(report.images) == 2 * 48 + 16
    assert (both["source_id"] == both["source_id_true"]).all()
    assert not both["ambiguous"].any()
    true_maps = both[[f"{name}_true" for name in sample.AFFINE]].to_numpy()
    maps = both[sample.AFFINE].to_numpy()
    errors = [corner_error(*pair) for pair in zip(maps, true_maps, strict=True)]
    assert np.median(errors) < 0.15
    assert max(errors) < 1
    # Evidence: another field never comes near the number that counts as found.
    other_field = both["runner_up_residual"].isna()
    assert both.loc[other_field, "runner_up_inliers"].max() < origins.RIVAL_INLIERS
    assert both["inliers"].min() >= overlaps.MIN_INLIERS


def test_label_and_file_name_play_no_part(sample_catalog, photographs):
    some = sample_catalog.sample(12, random_state=0).reset_index(drop=True)
    shuffled = some.assign(file=[f"TRAIN/MONOCYTE/{i}.jpeg" for i in range(12)], cell_type="?")
    by_name = origins.assign_sources(some, photographs, progress=False)
    without = origins.assign_sources(shuffled, photographs, progress=False)
    pd.testing.assert_frame_equal(by_name.drop(columns="file"), without.drop(columns="file"))


def test_images_of_a_missing_photograph_are_one_group(sample_folder, sample_catalog, photographs):
    truth = sample.truth(sample_folder).set_index("file")["source_id"]
    sources = truth[sample_catalog["file"]].to_numpy()
    paired = {name for pair in _pairs(sample_folder) for name in pair}
    train = (sample_catalog["split"] == "TRAIN").to_numpy()
    missing, present = [name for name in sorted(set(sources[train])) if name not in paired][:2]
    some = sample_catalog[np.isin(sources, [missing, present])].reset_index(drop=True)
    left = {name: pixels for name, pixels in photographs.items() if name != missing}
    found = origins.assign_sources(some, left, progress=False)
    expected = truth[some["file"]].replace(missing, "missing_1")
    assert (expected == "missing_1").sum() >= 4
    assert found["source_id"].tolist() == expected.tolist()
    unknown = found["source_id"] == "missing_1"
    assert found.loc[unknown, sample.AFFINE].isna().all(axis=None)
    assert (found.loc[unknown, "inliers"] >= overlaps.MIN_INLIERS).all()


def _pairs(folder) -> list[list[str]]:
    return [
        pair["photographs"] for pair in json.loads((folder / "sample.json").read_text())["overlaps"]
    ]


def test_an_image_of_nothing_known_stays_unknown(tmp_path, photographs):
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    one = pd.DataFrame({"path": [str(tmp_path / "noise.png")], "file": ["noise.png"]})
    few = dict(list(photographs.items())[:4])
    (row,) = origins.assign_sources(one, few, progress=False).itertuples()
    assert row.source_id is pd.NA
    assert not row.ambiguous
    assert np.isnan(row.m00)


def test_two_equal_photographs_make_an_image_ambiguous(tmp_path, photographs):
    name, photograph = next(iter(photographs.items()))
    Image.fromarray(augmented(photograph, MAPS["and mirrored"])).save(tmp_path / "image.png")
    one = pd.DataFrame({"path": [str(tmp_path / "image.png")], "file": ["image.png"]})
    twice = {**dict(list(photographs.items())[:4]), "copy": photograph}
    (row,) = origins.assign_sources(one, twice, progress=False).itertuples()
    assert row.ambiguous
    assert row.source_id is pd.NA
    assert row.runner_up_id in (name, "copy")
    assert row.runner_up_inliers >= overlaps.MIN_INLIERS


def test_a_table_agrees_with_itself_and_changes_are_named():
    table = splits.shipped().head(50)
    assert origins.compare(table, table).empty
    changed = table.copy()
    changed.loc[3, "source_id"] = "BloodImage_99999"
    changed.loc[7, "m02"] += 5
    changed.loc[9, "m02"] += 0.5  # within what a fit may differ
    changed = changed.drop(index=20)
    differing = origins.compare(changed, table).set_index("file")
    assert set(differing.index) == set(table.loc[[3, 7, 20], "file"])
    assert differing.loc[table.loc[7, "file"], "displacement"] == pytest.approx(5)
    assert differing.loc[table.loc[20, "file"], "source_id"] is pd.NA


def test_tables_that_cannot_be_compared():
    table = splits.shipped().head(5)
    with pytest.raises(InvalidParameter, match="m12"):
        origins.compare(table.drop(columns="m12"), table)
    with pytest.raises(InvalidParameter, match="twice"):
        origins.compare(pd.concat([table, table]), table)
    with pytest.raises(DataMismatch, match="no file name"):
        origins.compare(table.assign(file=list("abcde")), table)


def test_audit_of_the_sample(report):
    counts = report.photographs.drop(columns="all")
    for split, numbers in sample.PHOTOGRAPHS.items():
        made = report.images[report.images["split"] == split]
        assert made["cell_type"].value_counts().to_dict() == {
            name: 2 * number for name, number in numbers.items()
        }
        assert counts.loc[split].to_dict() == numbers
    assert report.n_assigned == len(report.images)
    assert len(report.two_white_cells) == len(report.unused) == 2
    assert report.pairs_across.empty
    assert report.label_conflicts.empty
    assert report.repeated_files == ()
    assert report.deviations is None
    said = str(report)
    assert f"{len(report.images):,} of {len(report.images):,} (100.00%)" in said
    assert "describes another data set" in said


@pytest.fixture
def doctored(sample_folder, tmp_path, true_pairs):
    """A copy of the sample with every fault that an audit should find; what was done to it."""
    folder = tmp_path / "sample"
    shutil.copytree(sample_folder, folder)
    truth = sample.truth(folder)
    root = catalog.images_folder(folder)
    kept = pd.concat([  # a dozen images are enough
        rows.head(2) for _, rows in truth.groupby(truth["file"].str.rsplit("/", n=1).str[0])
    ])  # fmt: skip
    first, second = true_pairs[0]["photographs"]
    pair = [truth[truth["source_id"] == name].head(2) for name in (first, second)]
    for file in set(truth["file"]) - set(pd.concat([kept, *pair])["file"]):
        (root / file).unlink()
    # The second photograph of a field goes to TEST, into another cell type's folder.
    wrong = "MONOCYTE"
    for file in truth.loc[truth["source_id"] == second, "file"]:
        if (root / file).exists():
            (root / file).rename(root / "TEST" / wrong / f"moved{file.rsplit('/', 1)[1]}")
    twin = kept.loc[kept["file"].str.startswith("TEST/LYMPHOCYTE"), "file"].iloc[0]
    shutil.copy(root / twin, root / "TEST/LYMPHOCYTE/twin.jpeg")
    return folder, first, second, twin


def test_audit_finds_leaks_conflicts_and_repeats(doctored):
    folder, first, second, twin = doctored
    report = origins.audit(folder, progress=False)
    (pair,) = report.pairs_across.itertuples()
    assert {pair.first, pair.second} == {first, second}
    affected = report.test_images_with_train_cell
    assert set(affected["source_id"]) == {second}
    assert len(affected) >= 2
    assert affected["file"].tolist() == report.test_images_with_train_group["file"].tolist()
    (conflict,) = report.label_conflicts.itertuples()
    assert {conflict.first, conflict.second} == {first, second}
    assert "monocyte" in (conflict.first_cell_type, conflict.second_cell_type)
    assert report.repeated_files == (tuple(sorted([twin, "TEST/LYMPHOCYTE/twin.jpeg"])),)
    said = str(report)
    assert f"{first} (TRAIN)" in said
    assert f"{second} (TEST)" in said


def test_audit_tells_how_much_of_a_nucleus_is_shown(tmp_path, field):
    photograph = crop(field, 250, 130)  # its nucleus: radius 26 around 150, 120
    marked = {"a": stain.find_nuclei(photograph), "b": np.zeros((240, 320), np.int32)}
    shifts = [0, -150, -200, 100]
    table = pd.DataFrame(
        [[source, 1.0, 0.0, shift, 0.0, 1.0, 0.0] for source, shift in
         zip(["a", "a", "a", "b"], shifts, strict=True)],
        columns=["source_id", *sample.AFFINE],
    )  # fmt: skip
    judged = origins._judge_nuclei(table, marked)
    assert judged["nucleus_shown"][:3] == pytest.approx([1, 0.5, 0], abs=0.03)
    assert np.isnan(judged["nucleus_shown"][3])
    assert judged["whole_nucleus"].tolist()[:3] == [True, False, False]
    assert judged["whole_nucleus"][3] is pd.NA


def test_audit_without_photographs(tiny_folder):
    with pytest.raises(DataNotFound, match="no photographs"):
        origins.audit(tiny_folder)


def test_tables_of_an_audit_are_saved(tmp_path, report):
    origins.save(report, tmp_path / "out")
    saved = pd.read_csv(tmp_path / "out" / "provenance.csv.gz")
    assert saved["source_id"].tolist() == report.images["source_id"].tolist()
    before = (tmp_path / "out" / "provenance.csv.gz").read_bytes()
    origins.save(report, tmp_path / "out")
    assert (tmp_path / "out" / "provenance.csv.gz").read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "overlaps.csv",
        "provenance.csv.gz",
    ]


def test_audit_from_the_command_line(sample_folder, tmp_path, report, monkeypatch, capsys):
    audited = []
    monkeypatch.setattr(origins, "audit", lambda folder: audited.append(folder) or report)
    out = tmp_path / "out"
    options = ["--source", str(sample_folder), "--data-dir", str(tmp_path), "--save", str(out)]
    assert main(["audit", *options]) == 0
    assert audited == [sample_folder]
    assert capsys.readouterr().out == f"{report}\n"
    assert (out / "overlaps.csv").is_file()


@pytest.mark.slow
@pytest.mark.real_data
def test_audit_of_the_real_data(real_folder):
    report = origins.audit(real_folder, progress=False)
    assert report.n_assigned == 12_500
    assert (report.images["source_id"] == "missing_1").sum() == 15
    assert not report.images["ambiguous"].any()
    assert report.photographs["all"].to_dict() == {"TRAIN": 277, "TEST": 71, "TEST_SIMPLE": 69}
    assert report.deviations is not None
    assert report.deviations.empty, report.deviations
    pd.testing.assert_frame_equal(
        report.overlaps[["first", "second", "same_cell"]].astype({"first": str, "second": str}),
        splits.shipped_overlaps()[["first", "second", "same_cell"]].astype(
            {"first": str, "second": str}
        ),
    )
    assert len(report.repeated_files) == 2


def test_images_of_unknown_photographs_are_refused_with_their_number():
    catalog = pd.DataFrame({"source_id": ["BloodImage_00001", pd.NA, pd.NA]})
    with pytest.raises(DataNotFound, match="2 of 3"):
        origins.require_photographs(catalog)
    origins.require_photographs(catalog[:1])
