"""What networks are shown, on the drawn sample, whose photographs and cells are known."""

import numpy as np
import pandas as pd
import pytest

from wbc_helpers.classify import inputs
from wbc_helpers.data import catalog, splits
from wbc_helpers.pixels import images, stain, views


@pytest.fixture(scope="module")
def training_images(sample_catalog):
    rows = sample_catalog[sample_catalog["split"] == "TRAIN"].reset_index(drop=True)
    return splits.add_provenance(rows)


def test_a_recipe_that_sees_images_gets_them_whole(sample_catalog):
    paths = sample_catalog["path"][:3]
    pixels = inputs.decode("paper", paths, (48, 64), progress=False)
    np.testing.assert_array_equal(pixels[0], images.read_image(paths[0], (48, 64)))
    masks = inputs.mask_cells("paper", paths, (48, 64), progress=False)
    assert masks.shape == (3, 48, 64)


def test_a_recipe_that_sees_cells_gets_them_in_the_middle_on_white(sample_catalog, tmp_path):
    paths = sample_catalog.loc[sample_catalog["split"] == "TEST_SIMPLE", "path"]
    pixels = inputs.decode("compact", paths, (64, 64), 52, tmp_path, progress=False)
    assert pixels.shape == (len(paths), 64, 64, 3)
    masks = inputs.mask_cells("compact", paths, (64, 64), progress=False)
    found = masks.any(axis=(1, 2))
    assert found.mean() > 0.8
    y, x = np.mean([np.argwhere(mask).mean(axis=0) for mask in masks[found]], axis=0)
    assert (x, y) == pytest.approx((31.5, 31.5), abs=2)
    # Where most of the crop is background, that is white.
    assert np.median(pixels.max(axis=-1)) == pytest.approx(stain.WHITE, abs=8)


def test_whole_images_and_cells_are_kept_apart_in_the_cache(sample_catalog, tmp_path):
    paths = sample_catalog["path"][:2]
    whole = inputs.decode("paper", paths, (64, 64), 52, tmp_path, progress=False)
    cell = inputs.decode("compact", paths, (64, 64), 52, tmp_path, progress=False)
    assert (np.asarray(whole) != np.asarray(cell)).any()
    assert len(list(tmp_path.glob("*.npy"))) == 2


def test_patches_are_cut_from_photographs_once_each(sample_folder, training_images):
    patches = inputs.cut_patches(
        sample_folder, training_images, "compact", (32, 32), progress=False
    )
    side = views.patch_size(32)
    assert patches.pixels.shape == (training_images["source_id"].nunique(), side, side, 3)
    truth = training_images.drop_duplicates("source_id").set_index("source_id")["cell_type"]
    assert (patches.table["cell_type"] == truth[patches.table["source_id"]].to_numpy()).all()


def test_without_photographs_the_images_stand_for_them(training_images, tmp_path):
    unknown = training_images.assign(source_id=pd.NA)[:6]
    patches = inputs.cut_patches(tmp_path, unknown, "compact", (32, 32), progress=False)
    assert patches.table["source_id"].tolist() == unknown["file"].tolist()


def test_only_recipes_that_draw_views_have_patches(sample_folder, training_images):
    assert inputs.cut_patches(sample_folder, training_images, "paper", (48, 64)) is None


def test_weights_make_types_alike_and_photographs_of_a_type_alike():
    table = pd.DataFrame(
        {
            "source_id": ["a", "b", "c", "d", "d", "d"],
            "cell_type": ["monocyte", "monocyte", "monocyte", *["lymphocyte"] * 3],
        }
    )
    weights = inputs.balanced_weights(table)
    assert weights.tolist() == pytest.approx([1 / 6] * 6)
    table.loc[5, "source_id"] = "e"
    assert inputs.balanced_weights(table).tolist() == pytest.approx(
        [1 / 6] * 3 + [1 / 8] * 2 + [1 / 4]
    )


def test_a_missing_photograph_is_replaced_by_one_of_its_images(sample_folder, training_images):
    strange = training_images.copy()
    strange.loc[0, "source_id"] = "missing_1"
    paths = inputs.photographs_of(sample_folder, strange)
    assert paths["missing_1"] == strange["path"][0]
    others = paths.drop("missing_1")
    assert catalog.photographs_folder(sample_folder).as_posix() in others.iloc[0]
