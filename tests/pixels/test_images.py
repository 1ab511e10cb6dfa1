import io
import struct
import sys

import cv2
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


def test_reduced_decoding_is_the_mean_over_areas_where_it_can_be(tmp_path):
    """Of what JPEG keeps: smooth colours, at sizes that divide the image's and that do not."""
    rng = np.random.default_rng(0)
    picture = cv2.resize(rng.integers(0, 256, (12, 16, 3), np.uint8), (320, 240), None, 0, 0, 2)
    Image.fromarray(picture).save(tmp_path / "smooth.jpeg", quality=95)
    decoded = images.read_image(tmp_path / "smooth.jpeg").astype(np.float32)
    for size, bound in (((60, 80), 0.8), ((120, 160), 0.8), ((30, 40), 0.8), ((48, 64), 1.6)):
        exact = cv2.resize(decoded, size[::-1], interpolation=cv2.INTER_AREA)
        apart = np.abs(images.read_image(tmp_path / "smooth.jpeg", size) - exact)
        assert apart.mean() < bound and apart.max() < 10 * bound


@pytest.mark.parametrize("options", [{"exif": 6}, {"mode": "CMYK"}, {"cut": True}, {"mode": "L"}])
def test_what_is_no_plain_jpeg_is_left_to_the_careful_reader(tmp_path, options):
    picture = Image.new(options.get("mode", "RGB"), (64, 48))
    exif = Image.Exif()
    if "exif" in options:
        exif[0x0112] = options["exif"]
    picture.save(tmp_path / "one.jpeg", exif=exif)
    content = (tmp_path / "one.jpeg").read_bytes()
    if "cut" in options:
        (tmp_path / "one.jpeg").write_bytes(content[:-40])
    assert images._read_reduced(tmp_path / "one.jpeg", (12, 16)) is None


def test_a_plain_jpeg_is_read_reduced(tmp_path):
    path = save(tmp_path / "plain.jpeg", (200, 40, 90), size=(64, 48))
    reduced = images._read_reduced(path, (12, 16))
    assert reduced.shape == (12, 16, 3)
    assert np.abs(reduced.astype(int) - (200, 40, 90)).max() <= 2
    # None of it would be left: the file has to be enlarged.
    assert images._read_reduced(path, (48, 64)) is None


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
    yield save(folder / "slide.jpeg", (50, 0, 0), mode="LAB", kind="TIFF"), "of mode LAB"
    yield save(folder / "grey.jpeg", 128, mode="L"), "greyscale"
    yield save(folder / "grey16.png", 128, mode="I;16", kind="PNG"), "greyscale"
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
        assert "Expected a complete colour photograph" in str(refusal.value)


# What people bring: a picture whose every corner has another colour

CORNERS = np.array([[(200, 40, 90), (30, 180, 60)], [(40, 60, 210), (230, 220, 120)]], np.uint8)
PICTURE = CORNERS.repeat(24, 0).repeat(36, 1)


def assert_shows_the_picture(photograph, tolerance=0):
    assert photograph.pixels.shape == PICTURE.shape and photograph.pixels.dtype == np.uint8
    # JPEG smears colours along the edges, so the middles of the corners are compared.
    differences = photograph.pixels.astype(int) - PICTURE
    assert np.abs(differences[12::24, 18::36]).max() <= tolerance


@pytest.mark.parametrize(
    ("kind", "name", "note", "tolerance"),
    [
        ("JPEG", "a.JPG", "", 4),
        ("JPEG", "no suffix", "", 4),
        ("PNG", "a.png", "", 0),
        ("PNG", "a.jpg", "PNG by content", 0),
        ("BMP", "a.bmp", "", 0),
        ("BMP", "a.jpeg", "BMP by content", 0),
        ("WEBP", "a.webp", "", 8),
        ("WEBP", "a.jpg", "WEBP by content", 8),
        ("GIF", "a.gif", "", 8),
        ("TIFF", "a.tif", "", 0),
        ("TIFF", "a.b.TIFF", "", 0),
        ("JPEG2000", "a.jp2", "", 8),
    ],
)
def test_a_file_is_what_its_content_says(tmp_path, kind, name, note, tolerance):
    Image.fromarray(PICTURE).save(tmp_path / name, kind, quality=95)
    photograph = images.read_photograph(tmp_path / name)
    assert_shows_the_picture(photograph, tolerance)
    assert photograph.note == note
    assert images.is_photograph(tmp_path / name) or kind == "BMP"


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressed_tiff_is_read(tmp_path, compression):
    Image.fromarray(PICTURE).save(tmp_path / "a.tif", compression=compression)
    assert_shows_the_picture(images.read_photograph(tmp_path / "a.tif"))


@pytest.mark.parametrize(
    ("kind", "name"), [("TIFF", "a.tif"), ("MPO", "a.jpg"), ("WEBP", "a.webp")]
)
def test_of_several_pictures_the_first_is_read_and_said(tmp_path, kind, name):
    other = Image.new("RGB", (72, 48), "black")
    Image.fromarray(PICTURE).save(
        tmp_path / name, kind, save_all=True, append_images=[other], quality=95
    )
    photograph = images.read_photograph(tmp_path / name)
    assert_shows_the_picture(photograph, 8)
    assert photograph.note == "the first of 2 pictures"


LYING = {  # by EXIF's number, what a camera stores of an upright picture
    1: lambda picture: picture,
    2: lambda picture: picture[:, ::-1],
    3: lambda picture: picture[::-1, ::-1],
    4: lambda picture: picture[::-1],
    5: lambda picture: picture.transpose(1, 0, 2),
    6: lambda picture: picture.transpose(1, 0, 2)[::-1],
    7: lambda picture: picture.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda picture: picture.transpose(1, 0, 2)[:, ::-1],
}


@pytest.mark.parametrize("orientation", LYING)
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp"])
def test_a_photograph_is_read_upright(tmp_path, orientation, name):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(LYING[orientation](PICTURE))
    Image.fromarray(stored).save(tmp_path / name, exif=exif, quality=95)
    assert_shows_the_picture(images.read_photograph(tmp_path / name), 8)
    small = images.read_image(tmp_path / name, (12, 18))
    assert small.shape == (12, 18, 3)
    assert np.abs(small[3::6, 4::9].astype(int) - CORNERS).max() <= 8


def write_deep(path, pixels, orientation=1):
    """Write RGB or RGBA of uint16, as OpenCV does; a TIFF with the tag of its orientation."""
    code = cv2.COLOR_RGBA2BGRA if pixels.shape[2] == 4 else cv2.COLOR_RGB2BGR
    assert cv2.imwrite(str(path), cv2.cvtColor(pixels, code))
    if path.suffix != ".tif" or orientation == 1:
        return
    content = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<I", content, 4)
    (n_tags,) = struct.unpack_from("<H", content, start)
    places = [start + 2 + 12 * place for place in range(n_tags)]
    tags = [bytes(content[place : place + 12]) for place in places]
    # In the place of SampleFormat, which says what is the default.
    tags = [tag for tag in tags if tag[:2] != struct.pack("<H", 339)]
    tags.append(struct.pack("<HHII", 0x0112, 3, 1, orientation))
    tags.sort(key=lambda tag: struct.unpack_from("<H", tag))
    for place, tag in zip(places, tags, strict=True):
        content[place : place + 12] = tag
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("n_bits", [10, 12, 14, 16])
def test_what_a_camera_stores_in_16_bits_is_read_by_its_real_range(tmp_path, name, n_bits):
    # A background near the end of the range, as any bright field has it.
    bright = np.where(PICTURE < 225, PICTURE, 254)
    write_deep(tmp_path / name, np.rint(bright * (((1 << n_bits) - 1) / 255)).astype(np.uint16))
    photograph = images.read_photograph(tmp_path / name)
    np.testing.assert_array_equal(photograph.pixels, bright)
    assert photograph.note == f"{n_bits} bits a channel brought to 8"


def test_16_bits_are_read_upright_on_white_and_whole(tmp_path):
    stored = np.ascontiguousarray(LYING[6](PICTURE)).astype(np.uint16) * 257
    write_deep(tmp_path / "a.tif", stored, orientation=6)
    assert_shows_the_picture(images.read_photograph(tmp_path / "a.tif"))
    clear = np.dstack([PICTURE, np.zeros(PICTURE.shape[:2])]).astype(np.uint16) * 257
    write_deep(tmp_path / "clear.png", clear)
    assert (images.read_image(tmp_path / "clear.png") == 255).all()
    noise = np.random.default_rng(0).integers(0, 1 << 16, (48, 72, 3), np.uint16)
    write_deep(tmp_path / "noise.png", noise)
    whole = (tmp_path / "noise.png").read_bytes()
    (tmp_path / "noise.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnreadableImage, match=r"noise\.png is damaged or cut off"):
        images.read_image(tmp_path / "noise.png")


def test_what_is_transparent_is_white(tmp_path):
    layered = np.dstack([PICTURE, np.full(PICTURE.shape[:2], 255, np.uint8)])
    Image.fromarray(layered).save(tmp_path / "opaque.png")
    photograph = images.read_photograph(tmp_path / "opaque.png")
    assert_shows_the_picture(photograph)
    assert photograph.note == ""
    layered[:24, 36:, 3] = 0
    Image.fromarray(layered).save(tmp_path / "clear.png")
    photograph = images.read_photograph(tmp_path / "clear.png")
    assert (photograph.pixels[:24, 36:] == 255).all() and "white" in photograph.note
    np.testing.assert_array_equal(photograph.pixels[24:], PICTURE[24:])


def test_palettes_and_inks_become_rgb(tmp_path):
    Image.fromarray(PICTURE).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "p.png")
    assert_shows_the_picture(images.read_photograph(tmp_path / "p.png"), 8)
    Image.fromarray(PICTURE).convert("CMYK").save(tmp_path / "inks.jpg", quality=95)
    photograph = images.read_photograph(tmp_path / "inks.jpg")
    assert_shows_the_picture(photograph, 8)
    assert photograph.note == "CMYK brought to RGB"


def heic(path):
    """Write the first bytes of what an iPhone saves; no decoder is needed to name it."""
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    return path


def test_heic_without_its_package_is_named_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for name in ("a.heic", "a.jpg", "a"):
        with pytest.raises(UnreadableImage, match=rf"{name} is in HEIC.*pip install pillow-heif"):
            images.read_image(heic(tmp_path / name))
        assert images.is_photograph(tmp_path / name)


def test_heic_is_read_where_its_package_is(tmp_path, monkeypatch):
    class Plugin:
        @staticmethod
        def register_heif_opener():
            def open_drawn(file, name):
                image = Image.fromarray(PICTURE)
                image.format, image._exclusive_fp = "HEIF", False
                return image

            Image.register_open("HEIF", open_drawn, lambda head: head[4:8] == b"ftyp")

    monkeypatch.setitem(sys.modules, "pillow_heif", Plugin)
    try:
        assert_shows_the_picture(images.read_photograph(heic(tmp_path / "a.heic")))
    finally:
        Image.OPEN.pop("HEIF", None)
        Image.ID.remove("HEIF")


def test_files_of_any_name_are_told_by_their_first_bytes(tmp_path):
    (tmp_path / "notes.txt").write_text("slide 2 is blurred")
    assert not images.is_photograph(tmp_path / "notes.txt")
    assert not images.is_photograph(tmp_path)
    assert images.is_photograph(tmp_path / "nowhere.HEIF")


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


@pytest.mark.parametrize("head", [b"P6\n255\x7f\0\0\0\0\0\0 4\n255\n", b"BM" + bytes(52)])
def test_a_damaged_header_is_named(tmp_path, head):
    (tmp_path / "a.jpg").write_bytes(head)
    for read in (images.read_image, lambda path: images.count_sizes([path])):
        with pytest.raises(UnreadableImage, match=r"a\.jpg is"):
            read(tmp_path / "a.jpg")


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
