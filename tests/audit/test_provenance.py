"""Photographs found again in drawn images whose source and map are known by construction."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from wbc_helpers import cells
from wbc_helpers.__main__ import main
from wbc_helpers.audit import origins, overlaps
from wbc_helpers.data import catalog, sample, splits
from wbc_helpers.errors import DataMismatch, DataNotFound, InvalidParameter
from wbc_helpers.pixels import white_cells

CORNERS = np.array([[0, 0, 1], [319, 0, 1], [0, 239, 1], [319, 239, 1]]).T


def corner_error(found, true) -> float:
    """Farthest distance, in pixels, between where two maps put a corner of a photograph."""
    difference = np.asarray(found, float).reshape(2, 3) - np.asarray(true, float).reshape(2, 3)
    return np.linalg.norm(difference @ CORNERS, axis=0).max()


@pytest.fixture(scope="module")
def photographs(sample_folder) -> dict[str, np.ndarray]:
    folder = catalog.photographs_folder(sample_folder)
    return overlaps.read_photographs(folder, progress=False)


@pytest.fixture(scope="module")
def report(sample_folder) -> origins.AuditReport:
    return origins.audit(sample_folder, progress=False)


@pytest.fixture(scope="module")
def true_pairs(sample_folder) -> list[dict]:
    return json.loads((sample_folder / "sample.json").read_text())["overlaps"]


def augmented(photograph: np.ndarray, affine: np.ndarray) -> np.ndarray:
    picture = sample.augment(Image.fromarray(photograph), np.vstack([affine[:2], [0, 0, 1]]))
    return np.asarray(picture)


MAPS = {
    "as it is": np.eye(3),
    "left to right": np.array([[-1, 0, 319], [0, 1, 0], [0, 0, 1.0]]),
    "top to bottom": np.array([[1, 0, 0], [0, -1, 239], [0, 0, 1.0]]),
    "both ways": np.array([[-1, 0, 319], [0, -1, 239], [0, 0, 1.0]]),
    "turned, shifted, sheared": np.array([[0.95, 0.25, -30.5], [-0.3, 0.98, 61.25], [0, 0, 1]]),
    "and mirrored": np.array([[-0.95, 0.25, 280.0], [0.3, 0.98, -20.0], [0, 0, 1]]),
}


@pytest.mark.parametrize("name", MAPS)
def test_map_is_found_and_exact(photographs, name):
    pictures = list(photographs.values())[:8]
    image = augmented(pictures[5], MAPS[name])
    index = overlaps.PictureIndex(pictures)
    best = index.find(overlaps.find_features(image))[0]
    affine, residual = overlaps.refine_affine(pictures[5], image, best.affine)
    assert best.picture == 5
    assert best.inliers >= overlaps.MIN_INLIERS
    assert corner_error(affine, MAPS[name][:2]) < 0.7
    assert residual < 1.5


def test_map_is_exact_where_contrast_was_stretched(photographs):
    photograph = next(iter(photographs.values()))
    low, high = int(photograph.min()), int(photograph.max())
    stretched = ((photograph.astype(float) - low) * 255 / (high - low)).astype(np.uint8)
    affine = MAPS["turned, shifted, sheared"]
    rough = affine[:2] + np.array([[0, 0, 1.5], [0, 0, -1.5]])
    found, _ = overlaps.refine_affine(photograph, augmented(stretched, affine), rough)
    assert corner_error(found, affine[:2]) < 0.5


def test_plain_pictures_have_no_match():
    plain = np.full((240, 320, 3), 200, np.uint8)
    index = overlaps.PictureIndex([plain, plain])
    assert index.find(overlaps.find_features(plain)) == []
    # Nothing but fill is no better.
    assert index.find(overlaps.find_features(np.zeros_like(plain))) == []


def test_every_image_of_the_sample_finds_its_photograph(sample_folder, report):
    both = sample.truth(sample_folder).merge(report.images, on="file", suffixes=("_true", ""))
    assert len(both) == len(report.images) == sample.N_IMAGES
    assert (both["source_id"] == both["source_id_true"]).all()
    assert not both["ambiguous"].any()
    true_maps = both[[f"{name}_true" for name in splits.AFFINE]].to_numpy()
    maps = both[splits.AFFINE].to_numpy()
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
    without = origins.assign_sources(shuffled, photographs, progress=False, workers=1)
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
    assert found.loc[unknown, splits.AFFINE].isna().all(axis=None)
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


def test_overlaps_are_those_drawn(report, true_pairs):
    found = report.overlaps.set_index(["first", "second"])
    expected = {tuple(sorted(pair["photographs"])): pair for pair in true_pairs}
    assert set(found.index) == set(expected)
    for names, pair in expected.items():
        moved_by = np.array(pair["shift"]) / 2  # the stage's, in pixels of the whole photograph
        if list(names) != pair["photographs"]:
            moved_by = -moved_by
        row = found.loc[names]
        np.testing.assert_allclose([row["shift_x"], row["shift_y"]], -moved_by, atol=1)
        shared = (1 - abs(moved_by[0]) / 320) * (1 - abs(moved_by[1]) / 240)
        assert row["shared"] == pytest.approx(shared, abs=0.01)
        assert row["same_cell"]


def crop(field: np.ndarray, x: int, y: int) -> np.ndarray:
    return np.ascontiguousarray(field[y : y + 240, x : x + 320])


@pytest.fixture(scope="module")
def field() -> np.ndarray:
    """A field of 700×500 half-size pixels: red cells at random, one white cell at 400, 250."""
    random = np.random.default_rng(4)
    y, x = np.mgrid[:500, :700]
    pixels = np.full((500, 700, 3), (215, 210, 215), float)
    for _ in range(260):
        cx, cy, radius = random.uniform(0, 700), random.uniform(0, 500), random.uniform(10, 26)
        stretch, tone = random.uniform(0.6, 1.6), random.uniform(0.75, 1.05)
        inside = ((x - cx) * stretch) ** 2 + (y - cy) ** 2 < radius**2
        pixels[inside] = np.array([205, 150, 150]) * tone
    pixels[(x - 400) ** 2 + (y - 250) ** 2 < 26**2] = (110, 70, 180)
    return np.clip(pixels + random.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("shift", "same_cell"), [((40, 30), True), ((-60, 25), True), ((200, 90), False)]
)
def test_shift_of_a_pair_is_exact(field, shift, same_cell):
    # What lies at x in the first lies at x - shift in the second, whose frame lies further on.
    start = (250, 130) if same_cell else (100, 40)
    first, second = crop(field, *start), crop(field, start[0] + shift[0], start[1] + shift[1])
    if not same_cell:
        second[second[..., 1] < 90] = (215, 210, 215)
    (pair,) = overlaps.find_overlaps({"a": first, "b": second}, progress=False).itertuples()
    assert (pair.shift_x, pair.shift_y) == (-shift[0], -shift[1])
    assert bool(pair.same_cell) is same_cell
    assert pair.correlation > 0.7


def test_fields_apart_do_not_overlap(field):
    apart = {"a": crop(field, 0, 0), "b": crop(field, 340, 250)}
    found = overlaps.find_overlaps(apart, progress=False)
    assert found.empty
    assert list(found) == [
        *["first", "second", "shift_x", "shift_y", "shared", "distinctness", "correlation"],
        "same_cell",
    ]


def test_photographs_of_other_sizes_are_not_compared(field):
    sizes = {"a": crop(field, 0, 0), "b": field[:300, :400].copy()}
    assert overlaps.find_overlaps(sizes, progress=False).empty


def test_groups_are_chains_of_pairs():
    pairs = pd.DataFrame({"first": ["b", "d", "x"], "second": ["c", "c", "y"]})
    groups = splits.group_sources(pairs, ["a", "b", "c", "d", "x"])
    assert groups.to_dict() == {"a": "a", "b": "b", "c": "b", "d": "b", "x": "x"}


def test_no_photographs(tmp_path):
    with pytest.raises(DataNotFound, match="JPEGImages"):
        overlaps.read_photographs(tmp_path)


# In the catalog


def test_provenance_of_the_sample_is_its_truth(sample_folder, sample_catalog, true_pairs):
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


# What ships


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


# Comparing


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


# The audit


def test_audit_of_the_sample(report):
    counts = report.photographs.drop(columns="all")
    for split, numbers in (("TRAIN", sample.COUNTS["TRAIN"]), ("TEST", sample.COUNTS["TEST"])):
        made = report.images[report.images["split"] == split]
        assert made["cell_type"].value_counts().to_dict() == dict(numbers)
        expected = made.groupby("cell_type", observed=True)["source_id"].nunique()
        assert counts.loc[split].to_dict() == expected.to_dict()
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
    nuclei = {"a": white_cells.find_nuclei(photograph), "b": np.zeros((240, 320), np.int32)}
    shifts = [0, -150, -200, 100]
    table = pd.DataFrame(
        [[source, 1.0, 0.0, shift, 0.0, 1.0, 0.0] for source, shift in
         zip(["a", "a", "a", "b"], shifts, strict=True)],
        columns=["source_id", *splits.AFFINE],
    )  # fmt: skip
    judged = origins._judge_nuclei(table, nuclei)
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


# The real data


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


@pytest.mark.real_data
def test_real_images_get_their_source_at_once(real_folder):
    known = splits.add_provenance(catalog.find_images(real_folder))
    assert known["source_id"].notna().all()
    table = splits.shipped().set_index("file")
    assert known["source_id"].tolist() == table.loc[known["file"], "source_id"].tolist()


def test_images_of_unknown_photographs_are_refused_with_their_number():
    catalog = pd.DataFrame({"source_id": ["BloodImage_00001", pd.NA, pd.NA]})
    with pytest.raises(DataNotFound, match="2 of 3"):
        origins.require_photographs(catalog)
    origins.require_photographs(catalog[:1])
