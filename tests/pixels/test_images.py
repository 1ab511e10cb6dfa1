import io

import numpy as np
import pytest
from PIL import Image

from wbc_helpers.errors import InvalidParameter, NoSpaceLeft, UnreadableImage
from wbc_helpers.pixels import images


def save(path, color="red", size=(48, 32), mode="RGB", kind="JPEG"):
    Image.new(mode, size, color).save(path, kind, quality=95)
    return path


def test_an_image_is_read_as_rgb_and_resampled(tmp_path):
    path = save(tmp_path / "cell.jpeg", (200, 40, 90))
    whole, small = images.read_image(path), images.read_image(path, (16, 24))
    assert whole.shape == (32, 48, 3) and small.shape == (16, 24, 3)
    assert whole.dtype == np.uint8
    assert np.abs(small.astype(int) - (200, 40, 90)).max() <= 2


def test_resampling_averages_areas(tmp_path):
    # Stripes one pixel wide: any method that picks single pixels would give 0 or 255.
    stripes = np.zeros((40, 40, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    small = images.read_image(tmp_path / "stripes.png", (10, 10))
    assert np.abs(small.astype(int) - 127).max() <= 1


def test_the_decoders_own_scaling_gives_the_picture_of_full_decoding(tmp_path):
    ramp = np.linspace(0, 255, 240).astype(np.uint8)
    picture = np.stack([np.tile(ramp[:, None], (1, 320))] * 3, axis=-1)
    Image.fromarray(picture).save(tmp_path / "ramp.jpeg", quality=95)
    expected = picture.reshape(60, 4, 80, 4, 3).mean((1, 3))
    assert np.abs(images.read_image(tmp_path / "ramp.jpeg", (60, 80)) - expected).max() <= 3


def bad_files(folder):
    good = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(good, "JPEG")
    files = {
        "truncated": (good.getvalue()[: len(good.getvalue()) // 2], "cut off"),
        "headless": (good.getvalue()[200:], "not an image"),
        "empty": (b"", "empty"),
        "text": (b"these are no pixels", "not an image"),
    }
    for name, (content, words) in files.items():
        (folder / f"{name}.jpeg").write_bytes(content)
        yield folder / f"{name}.jpeg", words
    yield save(folder / "picture.jpeg", kind="PNG"), "PNG"
    yield save(folder / "grey.jpeg", 128, mode="L"), "greyscale"
    yield save(folder / "print.jpeg", (0, 0, 0, 0), mode="CMYK"), "CMYK"
    yield folder / "missing.jpeg", "does not exist"
    (folder / "folder.jpeg").mkdir()
    yield folder / "folder.jpeg", "is a folder"


@pytest.mark.parametrize("index", range(9))
def test_a_bad_file_is_named_with_its_reason(tmp_path, index):
    path, words = list(bad_files(tmp_path))[index]
    for size in (None, (16, 16)):
        with pytest.raises(UnreadableImage) as refusal:
            images.read_image(path, size)
        assert str(path) in str(refusal.value) and words in str(refusal.value)
        assert "Expected a complete colour JPEG" in str(refusal.value)


def test_a_huge_image_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    # 20,000 x 20,000 white pixels compress to few bytes and would unpack to 1.2 GB.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    picture = Image.new("1", (20_000, 20_000), 1)
    picture.save(tmp_path / "huge.png")
    monkeypatch.undo()
    with pytest.raises(UnreadableImage, match=r"too large|claims"):
        images.read_image(tmp_path / "huge.png", (60, 80))


def test_all_bad_files_of_a_catalog_are_named_at_once(tmp_path):
    good = [save(tmp_path / f"{n}.jpeg") for n in range(3)]
    bad = [path for path, _ in bad_files(tmp_path)][:4]
    with pytest.raises(UnreadableImage) as refusal:
        images.decode(good + bad, (16, 16), progress=False)
    assert "4 of 7" in str(refusal.value)
    assert all(path.name in str(refusal.value) for path in bad)


def test_images_are_decoded_once_for_all_runs(tmp_path, monkeypatch):
    paths = [save(tmp_path / f"{color}.jpeg", color) for color in ("red", "blue")]
    first = images.decode(paths, (16, 24), tmp_path / "cache", progress=False)
    assert isinstance(first, np.memmap) and first.shape == (2, 16, 24, 3)
    assert first[0, 0, 0].tolist() == [254, 0, 0] and first[1, 0, 0, 2] > 250
    monkeypatch.setattr(images, "read_image", None)  # any decoding would fail now
    again = images.decode(paths, (16, 24), tmp_path / "cache", progress=False)
    assert np.array_equal(first, again)


def test_a_changed_file_is_decoded_anew(tmp_path):
    path = save(tmp_path / "cell.jpeg", "red")
    images.decode([path], (16, 16), tmp_path / "cache", progress=False)
    save(path, "blue")
    changed = images.decode([path], (16, 16), tmp_path / "cache", progress=False)
    assert changed[0, 0, 0, 2] > 250


def test_a_failed_decoding_leaves_no_cache(tmp_path):
    (tmp_path / "bad.jpeg").write_bytes(b"")
    with pytest.raises(UnreadableImage):
        images.decode([tmp_path / "bad.jpeg"], (16, 16), tmp_path / "cache", progress=False)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_full_disk_is_noticed_before_decoding(tmp_path, monkeypatch):
    path = save(tmp_path / "cell.jpeg")
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 100}))
    with pytest.raises(NoSpaceLeft, match="cache"):
        images.decode([path], (64, 64), tmp_path / "cache", progress=False)


def test_statistics_agree_with_numpy():
    pixels = np.random.default_rng(3).integers(0, 256, (50, 8, 6, 3), dtype=np.uint8)
    statistics = images.mean_and_std_image(pixels)
    assert statistics.n_images == 50 and statistics.mean.dtype == np.float32
    np.testing.assert_allclose(statistics.mean, pixels.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(statistics.std, pixels.std(axis=0), rtol=1e-5)


def test_statistics_of_files_and_of_nothing(tmp_path):
    paths = [save(tmp_path / "a.jpeg", "black"), save(tmp_path / "b.jpeg", "white")]
    statistics = images.mean_and_std_image(paths, (16, 16))
    np.testing.assert_allclose(statistics.mean, 127.5)
    np.testing.assert_allclose(statistics.std, 127.5)
    with pytest.raises(InvalidParameter, match="no images"):
        images.mean_and_std_image([])
    with pytest.raises(InvalidParameter, match="shape"):
        images.mean_and_std_image([np.zeros((2, 2, 3)), np.zeros((3, 2, 3))])


def test_brightness_leaves_black_fill_out(noise):
    table, _ = noise
    table = table.assign(split="TRAIN").iloc[:1]
    image = np.full((1, 16, 16, 3), (240, 120, 60), np.uint8)
    image[0, :4] = 3  # a quarter is fill
    measured = images.summarise(table, image).iloc[0]
    assert (measured.red, measured.green, measured.blue) == (240, 120, 60)
    assert measured.brightness == 140 and measured.fill == 0.25


def test_sizes_are_counted(tmp_path):
    paths = [save(tmp_path / f"{n}.jpeg") for n in range(3)]
    paths.append(save(tmp_path / "large.jpeg", size=(64, 64)))
    counted = images.count_sizes(paths)
    assert counted.iloc[0].tolist() == [48, 32, "RGB", 3]
    assert counted.iloc[1].tolist() == [64, 64, "RGB", 1]


@pytest.mark.parametrize("size", [3, "60x80", (60,), (60, 80, 3), (15, 80), (60.0, 80), (60, 2000)])
def test_a_wrong_size_is_refused(size):
    with pytest.raises(InvalidParameter, match="image_size"):
        images.check_size(size)


def test_a_right_size_comes_back_as_a_tuple():
    assert images.check_size([60, 80]) == (60, 80)


@pytest.mark.real_data
def test_real_images_decode_to_what_full_decoding_gives(real_folder):
    from wbc_helpers.data import catalog

    paths = catalog.find_images(real_folder).path[::1500]
    decoded = images.decode(paths, (60, 80), progress=False)
    for path, small in zip(paths, decoded, strict=True):
        full = np.asarray(Image.open(path).convert("RGB"), float).reshape(60, 4, 80, 4, 3)
        # The decoder scales in the frequency domain, which differs from averaging by rounding,
        # and, at sharp edges of black fill, by a little ringing.
        assert np.abs(small - full.mean((1, 3))).mean() < 2
