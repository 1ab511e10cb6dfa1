"""Labelled cells and boxed photographs of several laboratories: types, groups, origins."""

import dataclasses
import io
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from written_files import write_folder, write_tar, write_zip

from wbc_helpers.audit import overlaps
from wbc_helpers.cells import BOX
from wbc_helpers.data import annotations, archives, identity, sources, splits
from wbc_helpers.errors import DataMismatch, DataNotFound, DownloadFailed, InvalidParameter
from wbc_helpers.pixels import images


def jpeg(size, shade=0):
    file = io.BytesIO()
    Image.new("RGB", size, (40 * shade, 90, 200)).save(file, "jpeg")
    return file.getvalue()


BARCELONA = {
    "basophil/BA_1999.jpg": 1,
    "ig/PMY_2000.jpg": 2,
    "neutrophil/SNE_1001.jpg": 3,
    "neutrophil/BNE_5500.jpg": 3,
    "platelet/PLATELET_9999999.jpg": 4,
}


@pytest.fixture
def barcelona(tmp_path):
    files = {f"PBC/{name}": jpeg((36, 36), shade) for name, shade in BARCELONA.items()}
    return write_folder(tmp_path / "PBC-mine", files)


FIELDS = {
    "train/B-30_0047": "2 0.25 0.5 0.1 0.2\n0 0.5 0.5 0.1 0.2\n",
    "train/B-30_0050": "2 0.5 0.5 0.1 0.2\n",
    "valid/HF-M-8_0001": "4 0.5 0.25 0.5 0.5\n",
    "valid/HF-M-8_0002": "",
}


def fields(size=(100, 50), wrapped="WBC_Dataset-half/WBC_Samples"):
    files = {}
    for shade, (name, text) in enumerate(FIELDS.items()):
        part, stem = name.split("/")
        files[f"{wrapped}/{part}/images/{stem}.jpg"] = jpeg(size, shade)
        files[f"{wrapped}/{part}/labels/{stem}.txt"] = text.encode()
    return files


def test_class_folders_give_a_type_and_a_group_for_each_image(barcelona):
    table = splits.find_cells(sources.fetch(barcelona, "nowhere", holds="cells"))
    assert [Path(path).stem for path in table["path"]] == [
        "BA_1999", "PMY_2000", "BNE_5500", "SNE_1001", "PLATELET_9999999",
    ]  # fmt: skip
    assert list(table["cell_type"]) == ["basophil", "other", "neutrophil", "neutrophil", "other"]
    assert list(table["label"]) == ["basophil", "ig", "neutrophil", "neutrophil", "platelet"]
    assert table[BOX].isna().all(axis=None)
    # 1999 and 1001 are in one run; 5500 shows the same image as 1001.
    groups = dict(zip((Path(path).stem for path in table["path"]), table["group"], strict=True))
    assert groups["BA_1999"] == groups["SNE_1001"] == groups["BNE_5500"]
    assert len(set(groups.values())) == 3


def test_boxes_in_fields_give_a_row_each_in_pixels(tmp_path):
    folder = write_folder(tmp_path / "mine", fields())
    table = splits.find_cells(folder, "Mine")
    assert list(table["cell_type"]) == ["basophil", "neutrophil", "basophil", "monocyte"]
    assert list(table["group"]) == ["B-30", "B-30", "B-30", "HF-M-8"]
    assert table[BOX].to_numpy().tolist()[:2] == [[20, 20, 30, 30], [45, 20, 55, 30]]
    assert set(table["laboratory"]) == {"Mine"}
    assert set(splits.find_cells(folder)["laboratory"]) == {"WBC_Samples"}


def test_malformed_boxes_are_refused_by_name(tmp_path):
    files = fields() | {"WBC_Dataset-half/WBC_Samples/train/labels/B-30_0047.txt": b"2 0.5 x 1 1"}
    with pytest.raises(DataMismatch, match="B-30_0047, box 1, no numbers"):
        splits.find_cells(write_folder(tmp_path / "mine", files))
    files = fields() | {"WBC_Dataset-half/WBC_Samples/train/labels/B-30_0047.txt": b"7 1 1 1 1"}
    with pytest.raises(DataMismatch, match="number 7"):
        splits.find_cells(write_folder(tmp_path / "other", files))


def test_cells_must_be_named_and_be_there(tmp_path):
    for source in ("auto", "sample", "bccd"):
        with pytest.raises(InvalidParameter, match="Expected 'pbc', 'chula', or the path"):
            sources.fetch(source, tmp_path, holds="cells")
    with pytest.raises(DataNotFound, match="no labelled cells"):
        sources.fetch(tmp_path, tmp_path, holds="cells")


@pytest.fixture
def known_fields(tmp_path_factory, monkeypatch):
    """Chulalongkorn's data are `fields()`, as published."""
    folder = write_folder(tmp_path_factory.mktemp("known"), fields())
    manifest = folder / "manifest.csv.gz"
    identity.write_manifest(folder, manifest, "cells")
    row = dataclasses.replace(
        sources.SOURCES["cells", "chula"], manifest=manifest, size=(100, 50),
        digest=identity.identify(folder, holds="cells").digest,
    )  # fmt: skip
    monkeypatch.setitem(sources.SOURCES, ("cells", "chula"), row)
    return folder


def test_all_of_it_is_verified(known_fields):
    whole = identity.identify(known_fields, holds="cells")
    assert (whole.source.name, whole.n_photographs, whole.n_annotations) == ("chula", 4, 4)
    assert whole.deviations == ()
    assert (whole.n_published, whole.n_verified, whole.n_unknown) == (8, 8, 0)
    assert "8 of the 8 files" in str(whole) and "MIT" in str(whole) and "part" not in str(whole)
    assert whole.to_dict()["n_photographs"] == 4


def test_a_part_at_half_size_is_taken_and_named_as_such(known_fields, tmp_path):
    half = {name: data for name, data in fields((50, 25)).items() if "HF-M-8_0002" not in name}
    folder = sources.fetch(
        write_tar(tmp_path / "half.tar", half), tmp_path / "data", False, "cells"
    )
    found = identity.identify(folder, holds="cells")
    assert (found.source.name, found.n_verified, found.n_unknown) == ("chula", 3, 3)
    assert found.pixels == (50, 25) and found.deviations == ()
    assert "3 of the 8 files published are here and verified; 3 are unknown" in str(found)
    assert "part of what was published" in str(found)
    assert "0.5 times the size of those published: 50×25 of 100×50" in str(found)
    assert set(splits.find_cells(folder)["laboratory"]) == {"Chula"}


def test_files_that_are_no_part_of_it_are_named(known_fields):
    (known_fields / "WBC_Dataset-half/WBC_Samples/train/labels/extra.txt").write_text("x")
    found = identity.identify(known_fields, holds="cells")
    assert "1 file is no part of the data set" in found.deviations[0]


def test_what_kaggle_does_not_give_comes_from_the_other_address(tmp_path, monkeypatch):
    asked = []

    def refuse(dataset, place, n_bytes, progress):
        asked.append(dataset)
        raise DownloadFailed("Kaggle is away.")

    def download(address, target, largest, what_else, progress):
        asked.append(address)
        target.parent.mkdir(parents=True)
        return write_zip(target, {f"PBC/{name}": jpeg((9, 9)) for name in BARCELONA})

    monkeypatch.setattr(archives, "download_from_kaggle", refuse)
    monkeypatch.setattr(archives, "download", download)
    folder = sources.fetch("pbc", tmp_path, False, "cells")
    pbc = sources.SOURCES["cells", "pbc"]
    assert asked == [pbc.kaggle, pbc.archive]
    assert len(splits.find_cells(folder)) == len(BARCELONA)
    # It is known by where it came from, whatever is in it; and not fetched twice.
    found = identity.identify(folder, holds="cells")
    assert found.source.name == "pbc" and "CC BY 4.0" in str(found)
    assert "5 files are changed" in found.deviations[0] or "no part" in found.deviations[0]
    assert sources.fetch("pbc", tmp_path, False, "cells") == folder and len(asked) == 2


def boxed(tmp_path):
    files = {
        "TXL/labels/classes.txt": b"WBC\nRBC\nPC\n",
        "TXL/data.yaml": b"names: [WBC, RBC, Platelets]",
    }
    sizes = {"one": (640, 480), "two": (416, 416), "three": (366, 369), "four": (575, 575)}
    for part, (name, size) in zip(("train", "val", "test", "train"), sizes.items(), strict=True):
        files[f"TXL/images/{part}/{name}.jpg"] = jpeg(size)
        text = b"0 0.5 0.5 0.5 0.5\n1 0.25 0.25 0.5 0.5\n2 0.1 0.1 0.1 0.1\n"
        files[f"TXL/labels/{part}/{name}.txt"] = text
    return write_folder(tmp_path / "txl", files)


def boxes_of(folder):
    """Boxes with what is known of their photographs."""
    read = annotations.read_annotations(folder)
    known = splits.of_photographs(read).set_index("photograph")
    return read.boxes.join(known[["laboratory", "part", "original", "group"]], on="photograph")


def test_photographs_are_told_by_their_size_and_list(tmp_path):
    table = boxes_of(boxed(tmp_path))
    assert len(table) == 12
    of = table.drop_duplicates("photograph").set_index("photograph")
    assert of["laboratory"].to_dict() == {
        "one": "BCCD", "two": "BCCD", "three": "Barcelona", "four": "Raabin",
    }  # fmt: skip
    assert of["part"].to_dict() == {"one": "train", "two": "val", "three": "test", "four": "train"}
    assert table.loc[table["photograph"] == "one", BOX].to_numpy().tolist()[:2] == [
        [160, 120, 480, 360],
        [0, 0, 320, 240],
    ]
    assert (of["group"] == of.index).all()


def test_what_a_laboratory_boxes_in_part_is_told_where_the_photographs_are_known(
    tmp_path, monkeypatch
):
    folder = boxed(tmp_path)
    assert "laboratory" not in splits.read_boxed(folder).photographs
    table = pd.DataFrame(
        {"original": ["BloodImage_1", ""], "group": ["a", "a"], "original_part": ["test", ""]},
        index=pd.Index(["two", "four"], name="photograph"), dtype="string",
    )  # fmt: skip
    monkeypatch.setattr(splits, "originals", lambda: table)
    read = splits.read_boxed(folder)
    told = read.photographs.set_index("photograph")["incomplete"].to_dict()
    assert told == {"one": "", "two": "", "three": "", "four": "Platelets"}
    more = [read.photographs.iloc[[1]].assign(photograph=f"more-{n}", group=str(n), part="train")
            for n in range(8)]  # fmt: skip
    more = dataclasses.replace(read, photographs=pd.concat([read.photographs, *more]))
    parts = splits.deal(more, 1 / 3)
    # In its own test list, in BCCD's, and a photograph of the same field as that.
    assert set(parts.index[parts == "test"]) == {"three", "two", "four"}
    assert set(parts) == {"train", "val", "test"}


# The real data


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    folder = Path(os.environ.get("WBC_REAL_DATA") or "nowhere")

    def fetch(name, holds):
        if not (folder / name).is_file():
            pytest.skip(f"WBC_REAL_DATA names no folder with {name}")
        return sources.fetch(folder / name, tmp_path_factory.mktemp("real"), False, holds)

    return fetch


@pytest.mark.slow
def test_real_barcelona(real):
    folder = real("PBC-subset.tar", "cells")
    found = identity.identify(folder, holds="cells")
    assert (found.source.name, found.n_verified, found.n_unknown) == ("pbc", 2000, 0)
    table = splits.find_cells(folder)
    assert table["cell_type"].value_counts().to_dict() == {
        **dict.fromkeys(["basophil", "eosinophil", "lymphocyte", "monocyte", "neutrophil"], 320),
        "other": 400,
    }
    assert set(table["laboratory"]) == {"Barcelona"}


@pytest.mark.slow
def test_real_chula(real):
    folder = real("WBC_Dataset-half.tar", "cells")
    found = identity.identify(folder, holds="cells")
    assert (found.source.name, found.n_verified, found.n_unknown) == ("chula", 488, 500)
    assert found.pixels == (720, 450)
    table = splits.find_cells(folder)
    assert table["cell_type"].value_counts(sort=False).to_dict() == {
        "basophil": 100, "eosinophil": 100, "lymphocyte": 111, "monocyte": 88, "neutrophil": 112,
        "other": 0,
    }  # fmt: skip
    assert table["group"].nunique() == 30
    assert table["x_max"].max() <= 720 and set(table["laboratory"]) == {"Chula"}


@pytest.mark.slow
def test_real_txl(real):
    folder = real("TXL-PBC_Dataset-main.tar", "photographs")
    found = identity.identify(folder, holds="photographs")
    assert (found.source.name, found.n_verified, found.n_unknown) == ("txl", 2884, 0)
    table = boxes_of(folder)
    kinds = table["kind"].value_counts()
    # As annotated, which 38 boxes are twice.
    twice = splits.read_boxed(folder).problems
    assert set(twice["problem"]) == {"boxed twice"} and len(twice) == 38
    kinds += twice["found"].str.split().str[0].value_counts().reindex(kinds.index, fill_value=0)
    assert kinds.to_dict() == dict(sources.SOURCES["photographs", "txl"].boxes)
    assert ((table["width"] == 640) & (table["kind"] == "RBC")).sum() == 5130
    of = table.drop_duplicates("photograph")
    assert of["part"].value_counts().to_dict() == {"train": 1008, "val": 288, "test": 144}
    copies = of[of["width"] == 416]
    whole = of[of["width"] == 640].set_index("original")["group"]
    # Nearly every copy stands beside its photograph, and always in its group.
    partners = copies[copies["original"].isin(whole.index)]
    assert len(partners) > 190
    assert (partners["group"].to_numpy() == whole[partners["original"]].to_numpy()).all()
    # Its own lists part what belongs together.
    assert (of.groupby("group")["part"].nunique() > 1).sum() > 50
    assert np.isfinite(table[BOX].to_numpy()).all() and isinstance(table, pd.DataFrame)
    # What a detector learns from shows nothing of either test list.
    read = splits.read_boxed(folder)
    dealt = read.photographs.assign(dealt=splits.deal(read).to_numpy())
    assert dealt.groupby("group")["dealt"].nunique().max() == 1
    dealt = dealt.set_index("photograph")
    assert dealt["dealt"].value_counts().to_dict() == {"train": 1015, "test": 282, "val": 143}
    in_own = splits.in_own_test(dealt)
    assert dealt.loc[in_own | dealt["part"].eq("test"), "dealt"].eq("test").all()
    assert (in_own & dealt["width"].eq(640)).sum() == 40


@pytest.mark.slow
def test_real_copies_are_found_in_the_pixels(real):
    pbc = real("TXL-PBC_Dataset-main.tar", "photographs")
    known = splits.originals()["original"]
    table = annotations.read_annotations(pbc).photographs.set_index("photograph")
    copies = table[table["width"] == 416].head(6)["path"]
    twins = table[(table["width"] == 640) & table.index.isin(known.index)]
    twins = twins[known.reindex(twins.index).isin(known.reindex(copies.index)).to_numpy()]
    others = table[table["width"] == 640].tail(20)
    photographs = {
        name: images.resample(images.read_image(path), 0.5)
        for name, path in pd.concat([twins, others])["path"].items()
    }
    found = overlaps.find_originals(copies, photographs, progress=False)
    expected = copies.index[known.reindex(copies.index).isin(known.reindex(twins.index))]
    assert set(expected) <= set(found.index) and len(expected) >= 4
    assert (known.reindex(found).to_numpy() == known.reindex(found.index).to_numpy()).all()
