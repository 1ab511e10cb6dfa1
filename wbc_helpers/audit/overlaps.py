"""Which pictures show the same: photographs of one field, and photographs in images made of them.

A slide is moved under the microscope without turning it: two photographs of one field differ by a
shift. Every pair is correlated at every shift at once, by Fourier transform [1]_, and the best
shift is confirmed at twice the resolution.

An image may have been rotated, sheared or mirrored. Local features (ORB [2]_) are compared, and a
match counts only if many of them agree on one affine map (RANSAC); tracking small patches [3]_ then
makes the map exact to a tenth of a pixel. Features are not the same in a mirror, so every picture
that is searched is entered twice, as it is and mirrored left to right; an image flipped top to
bottom is found in the mirrored one, turned by 180°.

References
----------
.. [1] D. Padfield, Masked object registration in the Fourier domain, IEEE Trans. Image
   Process. 21(5), 2706–2718 (2012).
.. [2] E. Rublee et al., ORB: an efficient alternative to SIFT or SURF, ICCV (2011).
.. [3] J.-Y. Bouguet, Pyramidal implementation of the Lucas Kanade feature tracker, Intel (2000).
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from wbc_helpers.data import sample, sources, splits
from wbc_helpers.data.catalog import (
    digest_files,
    name_photographs,
    read_manifest,
    smears_folder,
)
from wbc_helpers.errors import DataNotFound
from wbc_helpers.pixels import images, stain
from wbc_helpers.pixels.stain import find_nuclei

SMALLEST_OVERLAP = 0.06
"""Part of the photograph that two must share. Smaller corners, often one red cell's edge, look
alike by chance."""

MIN_DISTINCTNESS = 2.0
"""Correlation at the best shift over that at any other, each times the square root of the number
of pixels that overlap. Of the known data set's 66,795 pairs, the 47 that overlap reach 2.1 to
over 10; others, if their fine detail correlates as it must, at most 1.7, and 1.8 in drawn
photographs, whose round cells fit each other in many places."""

MIN_CORRELATION = 0.7
"""Correlation of the shared part at half size, fine detail only. The 47 pairs reach 0.76 to
0.96."""

_LEAST_PEAK = 20  # of the correlation times √pixels: chance alone reaches that in most pairs
_COLUMNS = ["first", "second", "shift_x", "shift_y", "shared", "distinctness", "correlation"]


def find_smear_pairs(folder: str | Path, progress: bool = True) -> pd.DataFrame:
    """Pairs of photographs of smears that show a part of the same field.

    Of drawn smears they are known by construction, of BCCD's photographs and of TXL-PBC's from the
    tables in the package, by content and by name; of any others they are worked out from the
    pixels, see `read_photographs` and `find_overlaps`. Columns `first`, `second`, `same_cell`
    (bool; whether they show the same white cell), and where measured more.
    """
    root = smears_folder(folder)
    drawn = sample.enclosing(root)
    if drawn is not None:
        # Its fields are photographed twice so that both show the white cell.
        return sample.overlaps(drawn).assign(same_cell=True)
    manifest = sources.SOURCES["images", "kaggle"].manifest
    published = read_manifest(manifest) if manifest else {}
    digests = digest_files(root, ["JPEGImages"])
    if digests and all(published.get(file) == digest[:16] for file, digest in digests.items()):
        names = {Path(file).stem for file in digests}
        pairs = splits.shipped_overlaps()
        among = pairs["first"].isin(names) & pairs["second"].isin(names)
        return pairs[among].reset_index(drop=True)
    table = splits.originals().reset_index()
    table = table[table["photograph"].isin(list(name_photographs(root)))]
    if len(table):
        pairs = table.rename(columns={"photograph": "second"})
        firsts = pairs.groupby("group")[["second", "original"]].transform("first")
        pairs.insert(0, "first", firsts["second"])
        # Copies show what their original shows, and of no others is that certain.
        pairs["same_cell"] = (pairs["original"] == firsts["original"]).astype(bool)
        pairs = pairs[pairs["first"] != pairs["second"]]
        return pairs[["first", "second", "same_cell"]].reset_index(drop=True)
    return find_overlaps(read_photographs(root, progress), progress)


def read_photographs(folder: str | Path, progress: bool = True) -> dict[str, np.ndarray]:
    """Read all photographs of a folder at half size, that of images made from them.

    Returns RGB, (height, width, 3) uint8, averaged over 2×2 pixels, by name, see
    `catalog.name_photographs`. Raises `DataNotFound` without photographs, `UnreadableImage` if one
    is not a complete image.
    """
    paths = name_photographs(folder)
    if not paths:
        raise DataNotFound(
            f"{folder} holds no photographs. Expected JPEG files in its folder JPEGImages, as in "
            "the dataset-master part of the blood-cells archive; without them nothing can be "
            "said about where the images come from."
        )
    bar = tqdm(paths.items(), desc="photographs", unit="photograph", disable=not progress)
    return {name: images.resample(images.read_image(path), 0.5) for name, path in bar}


def find_overlaps(photographs: Mapping[str, np.ndarray], progress: bool = True) -> pd.DataFrame:
    """Find every pair of photographs, see `read_photographs`, that show a part of the same field.

    Photographs of different sizes are taken for different microscopes and not compared.

    Returns one row a pair. `first`, `second`: names. `shift_x`, `shift_y` (int): what lies at x, y
    in the first lies at x + shift_x, y + shift_y in the second, in pixels at half size. `shared`:
    part of the frame that both show, 0–1. `distinctness` and `correlation`: the evidence, see
    `MIN_DISTINCTNESS` and `MIN_CORRELATION`. `same_cell` (bool): whether a white cell's nucleus
    lies in the shared part, at the same place in both.
    """
    names = list(photographs)
    pairs = []
    for shape in sorted({photograph.shape for photograph in photographs.values()}):
        alike = [name for name in names if photographs[name].shape == shape]
        finder = _ShiftFinder([photographs[name] for name in alike])
        rows = in_threads(finder.find, range(len(alike)), "overlaps", progress, "photograph")
        pairs += [(alike[i], alike[j], *measured) for row in rows for i, j, *measured in row]
    overlaps = pd.DataFrame(sorted(pairs), columns=_COLUMNS)
    nuclei = {
        name: find_nuclei(photographs[name], _LEAST_SHOWN)
        for name in set(overlaps[["first", "second"]].stack())
    }
    overlaps["same_cell"] = [
        _share_nucleus(nuclei[first], nuclei[second], shift_x, shift_y)
        for first, second, shift_x, shift_y, *_ in sorted(pairs)
    ]
    return overlaps.astype({"same_cell": bool})


def in_threads(
    work: Callable, tasks: Sequence, what: str, progress: bool, unit: str = "image"
) -> list:
    """Do a piece of work for each task, in order: OpenCV and Pillow release Python's lock."""
    with ThreadPoolExecutor(2) as pool:
        results = pool.map(work, tasks)
        return list(tqdm(results, total=len(tasks), desc=what, unit=unit, disable=not progress))


class _ShiftFinder:
    """Correlates photographs of one size with each other."""

    def __init__(self, photographs: list[np.ndarray]) -> None:
        height, width = photographs[0].shape[:2]
        # A quarter of a photograph of 640×480; others come to the same height.
        self._scale = height / 120
        small = (round(width / self._scale), 120)
        self._padded = (240, 2 * small[0])
        ones = np.ones(small[::-1], np.float32)
        window = np.conj(np.fft.rfft2(ones, self._padded))
        n_shared = np.maximum(np.round(self._back(np.conj(window) * window)), 1)
        # Turns a sum of products into correlation × √pixels, and small overlaps into nothing.
        self._weight = np.where(n_shared >= SMALLEST_OVERLAP * ones.size, n_shared**-0.5, 0)
        self._weight = self._weight.astype(np.float32)
        self._spectra, self._inverse_rms, self._fine = [], [], []
        for photograph in photographs:
            gray = cv2.cvtColor(photograph, cv2.COLOR_RGB2GRAY).astype(np.float32)
            self._fine.append(_without_shading(gray, 8))
            coarse = _without_shading(images.resize(gray, small[::-1]), 2)
            # Compressed, so that one dark nucleus or edge does not outweigh all the rest.
            coarse = np.sign(coarse) * np.sqrt(np.abs(coarse))
            coarse = coarse / max(float(coarse.std()), 1e-6)
            self._spectra.append(np.fft.rfft2(coarse, self._padded))
            energy = self._back(np.fft.rfft2(coarse**2, self._padded) * window) / n_shared
            # An empty corner has next to no energy; its noise would correlate with anything.
            self._inverse_rms.append(1 / np.sqrt(np.maximum(energy, 0.05)))

    def _back(self, spectrum: np.ndarray) -> np.ndarray:
        """Transform a spectrum back."""
        return np.fft.irfft2(spectrum, self._padded).astype(np.float32)

    def find(self, i: int) -> list[tuple[int, int, int, int, float, float, float]]:
        """Pairs of photograph `i` with those after it: i, j, and the columns of the result."""
        pairs = []
        weight = self._weight * self._inverse_rms[i]
        spectrum = np.conj(self._spectra[i])
        for j in range(i + 1, len(self._spectra)):
            strength = self._back(self._spectra[j] * spectrum)
            # The second photograph's shared part under a shift is what the opposite shift leaves
            # of it; np.roll takes shift 0 back to the first place.
            strength *= np.roll(weight[::-1, ::-1], (1, 1), (0, 1)) * self._inverse_rms[j]
            y, x = divmod(int(strength.argmax()), self._padded[1])
            peak = float(strength[y, x])
            if peak < _LEAST_PEAK:
                continue
            around = (np.arange(y - 7, y + 8) % strength.shape[0])[:, np.newaxis]
            strength[around, np.arange(x - 7, x + 8) % strength.shape[1]] = 0
            distinctness = peak / float(strength.max())
            if distinctness < MIN_DISTINCTNESS:
                continue
            y, x = (
                (place - size if place >= size // 2 else place) * self._scale
                for place, size in zip((y, x), self._padded, strict=True)
            )
            correlation, x, y = _confirm(self._fine[i], self._fine[j], round(x), round(y))
            if correlation >= MIN_CORRELATION:
                height, width = self._fine[i].shape
                shared = (1 - abs(x) / width) * (1 - abs(y) / height)
                measured = round(shared, 3), round(distinctness, 2), round(correlation, 3)
                pairs.append((i, j, x, y, *measured))
        return pairs


def _without_shading(gray: np.ndarray, sigma: float) -> np.ndarray:
    """Detail finer than `sigma` pixels, its standard deviation 1: lamps and stains differ."""
    detail = gray - cv2.GaussianBlur(gray, (0, 0), sigma)
    return detail / max(float(detail.std()), 1e-6)


def _confirm(
    first: np.ndarray, second: np.ndarray, shift_x: int, shift_y: int
) -> tuple[float, int, int]:
    """Best correlation of the shared part within 4 pixels of a shift, and that shift."""
    (height, width), reach = first.shape, 4
    left, right = max(0, -shift_x) + reach, min(width, width - shift_x) - reach
    top, bottom = max(0, -shift_y) + reach, min(height, height - shift_y) - reach
    if right - left < 12 or bottom - top < 12:
        return -1.0, shift_x, shift_y
    around = second[
        top + shift_y - reach : bottom + shift_y + reach,
        left + shift_x - reach : right + shift_x + reach,
    ]
    scores = cv2.matchTemplate(around, first[top:bottom, left:right], cv2.TM_CCOEFF_NORMED)
    _, best, _, (x, y) = cv2.minMaxLoc(scores)
    return best, shift_x + x - reach, shift_y + y - reach


_LEAST_SHOWN, _LEAST_SHARED = 600, 150
"""Pixels of a nucleus that the frame cuts: in a photograph, and in both of a pair. What two show
at the same place may be smaller than what would be taken for a nucleus in one of them alone."""


def _share_nucleus(first: np.ndarray, second: np.ndarray, shift_x: int, shift_y: int) -> bool:
    """Whether a nucleus of the first photograph lies on one of the second."""
    moved = cv2.warpAffine(
        first.astype(np.float32),
        np.array([[1, 0, shift_x], [0, 1, shift_y]], np.float32),
        first.shape[::-1],
        flags=cv2.INTER_NEAREST,
    )
    for nucleus in range(1, first.max() + 1):
        # Half a nucleus at the edge of the frame is the same cell too.
        covered = (moved == nucleus) & (second > 0)
        if covered.sum() >= max(0.5 * (moved == nucleus).sum(), _LEAST_SHARED):
            return True
    return False


# Pictures found again in images that were rotated, shifted, sheared or mirrored

N_FEATURES = 400
"""Features of a picture. Of images from the known data set, 38 to 319 agree with the right
photograph, and at most 11 with one that shows another field."""

MIN_INLIERS = 25
"""Features that must agree on one affine map before a picture counts as found."""

TOLERANCE = 2.0
"""Pixels between a feature and where the affine map puts it, at most."""

_RATIO = 0.85  # of the distances to the best and the second best feature, after D. Lowe
_STRETCH = (0.6, 1.6)  # no augmentation in use scales more than that in any direction
_LEAST_TRACKED = 15  # corners of a picture found again in an image
# Two descriptors of one spot often share one of these words of 16 bits, others hardly ever: a
# look-up that needs no distances. Half of a descriptor's 32 bytes is enough for it.
_WORDS, _WORD_SIZE = 8, 1 << 16


@dataclass(frozen=True, eq=False)
class Features:
    """Local features of one picture.

    Of n features, `points`, (n, 2) float32, are x, y in pixels, (0, 0) the centre of the upper left
    pixel; `descriptors`, (n, 32) uint8, 256 bits each.
    """

    points: np.ndarray
    descriptors: np.ndarray


@dataclass(frozen=True, eq=False)
class Match:
    """How well a picture, by its number in the index, was found in an image.

    `inliers` features agree on the map `affine`, (2, 3) float64, from the picture to the image, in
    pixels; its determinant is negative if one of them is mirrored.
    """

    picture: int
    inliers: int
    affine: np.ndarray


def find_features(image: np.ndarray) -> Features:
    """Find at most `N_FEATURES` features of an RGB image, none at the edge of its black fill."""
    allowed = _away_from(stain.is_fill(image), 9)
    # The smear is evenly lit and weakly stained: few corners pass the usual threshold of 20.
    detector = cv2.ORB.create(N_FEATURES, 1.2, 4, fastThreshold=5)
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    keypoints, descriptors = detector.detectAndCompute(gray, allowed)
    if descriptors is None:
        return Features(np.empty((0, 2), np.float32), np.empty((0, 32), np.uint8))
    points = np.array([keypoint.pt for keypoint in keypoints], np.float32)
    return Features(points.reshape(-1, 2), descriptors)


def _away_from(outside: np.ndarray, breadth: int) -> np.ndarray:
    """Mask, for OpenCV, of what is not within half this breadth of the outside."""
    near = cv2.dilate(outside.astype(np.uint8), np.ones((breadth, breadth), np.uint8))
    return (near == 0).astype(np.uint8)


def fit_affine(picture: Features, image: Features) -> tuple[int, np.ndarray | None]:
    """Fit the affine map, (2, 3) float64 in pixels, on which most features of two pictures agree.

    The map leads from the first to the second. With it comes the number of features that agree; 0
    and None if there is no plausible map.
    """
    if min(len(picture.points), len(image.points)) < 3:
        return 0, None
    distances, nearest = cv2.batchDistance(
        image.descriptors, picture.descriptors, cv2.CV_32S, normType=cv2.NORM_HAMMING, K=2
    )
    distinct = distances[:, 0] < _RATIO * distances[:, 1]
    if distinct.sum() < 6:
        return 0, None
    affine, agree = cv2.estimateAffine2D(
        picture.points[nearest[distinct, 0]],
        image.points[distinct],
        ransacReprojThreshold=TOLERANCE,
        maxIters=1000,
    )
    if affine is None or not np.isfinite(affine).all():
        return 0, None
    stretches = np.linalg.svd(affine[:, :2], compute_uv=False)
    if stretches[1] < _STRETCH[0] or stretches[0] > _STRETCH[1]:
        return 0, None
    return int(agree.sum()), affine


class PictureIndex:
    """Pictures, (height, width, 3) uint8 RGB, in which images can be found, mirrored or not."""

    def __init__(self, pictures: Sequence[np.ndarray]) -> None:
        self._widths = [picture.shape[1] for picture in pictures]
        self._entries = [
            find_features(view)
            for picture in pictures
            for view in (picture, np.ascontiguousarray(picture[:, ::-1]))
        ]
        words = [_words(entry.descriptors) for entry in self._entries]
        keys = np.concatenate([np.empty(0, np.int64), *words])
        owners = np.repeat(np.arange(len(words), dtype=np.int32), [len(word) for word in words])
        self._owners = owners[np.argsort(keys, kind="stable")]
        counts = np.bincount(keys, minlength=_WORDS * _WORD_SIZE)
        self._starts = np.concatenate([[0], np.cumsum(counts)])

    def find(
        self, image: Features, n_candidates: int = 3, without: int | None = None
    ) -> list[Match]:
        """Find an image among the pictures: those with a plausible affine map, best first.

        `n_candidates` pictures, or their mirrored selves, that share the most words with the image
        are compared feature by feature; the one numbered `without` is passed over.
        """
        votes = self._count_votes(image.descriptors)
        if without is not None:
            votes[2 * without : 2 * without + 2] = 0
        matches: dict[int, Match] = {}
        for entry in np.argsort(-votes, kind="stable")[:n_candidates]:
            picture, mirrored = divmod(int(entry), 2)
            inliers, affine = fit_affine(self._entries[entry], image)
            if affine is None or not votes[entry]:
                continue
            if mirrored:
                mirror = [[-1, 0, self._widths[picture] - 1], [0, 1, 0], [0, 0, 1]]
                affine = affine @ np.array(mirror, float)
            if picture not in matches or inliers > matches[picture].inliers:
                matches[picture] = Match(picture, inliers, affine)
        return sorted(matches.values(), key=lambda match: -match.inliers)

    def _count_votes(self, descriptors: np.ndarray) -> np.ndarray:
        """Words that each entry shares with these descriptors, rare words counting more."""
        keys = _words(descriptors)
        first, n_owners = self._starts[keys], np.diff(self._starts)[keys]
        keep = n_owners > 0
        first, n_owners = first[keep], n_owners[keep]
        ends = np.cumsum(n_owners)
        # All ranges first[i] … first[i] + n_owners[i], one after the other.
        places = np.arange(ends[-1] if len(ends) else 0)
        places += np.repeat(first - (ends - n_owners), n_owners)
        weights = np.repeat(1 / np.sqrt(n_owners), n_owners)
        return np.bincount(self._owners[places], weights, minlength=len(self._entries))


def _words(descriptors: np.ndarray) -> np.ndarray:
    """Cut descriptors into numbered words, (n · `_WORDS`,) int64; no two places share numbers."""
    words = np.ascontiguousarray(descriptors[:, : 2 * _WORDS]).view("<u2").astype(np.int64)
    return (words + np.arange(_WORDS) * _WORD_SIZE).ravel()


def find_originals(
    copies: Mapping[str, str | Path], photographs: Mapping[str, np.ndarray], progress: bool = True
) -> pd.Series:
    """Find of which photograph each copy was made: turned, mirrored, cropped, or made square.

    `copies` gives the file of each by name; `photographs` are those of `read_photographs`. Returns
    the photograph's name by the copy's, only where `MIN_INLIERS` features or more agree.
    """
    names = list(photographs)
    index = PictureIndex(list(photographs.values()))
    originals = {}
    for name, path in tqdm(copies.items(), desc="copies", disable=not progress):
        # A quarter turn, and then pressed into a square: as wide as it was high.
        looks = [images.read_image(path, size) for size in _COPY_SIZES]
        matches = [match for look in looks for match in index.find(find_features(look))]
        best = max(matches, key=lambda match: match.inliers, default=None)
        if best is not None and best.inliers >= MIN_INLIERS:
            originals[name] = names[best.picture]
    return pd.Series(originals, name="original", dtype=object).rename_axis("photograph")


_COPY_SIZES = ((240, 320), (320, 240))


def refine_affine(
    picture: np.ndarray, image: np.ndarray, affine: np.ndarray
) -> tuple[np.ndarray, float]:
    """Make an affine map from picture to image, right within a few pixels, exact.

    By tracking where the picture's corners went; the given map stays if that does not improve it.
    With it comes the mean absolute difference, over all pixels of the image, from what the map
    makes of the picture, black fill included, in grey levels (0–255). Brightness and contrast may
    differ. Where the fill begins counts as much as the cells, so that of two photographs of one
    field the right one is told.
    """
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    source = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    size = gray.shape[::-1]
    expected, residual = _expect(source, gray, affine)
    filled = stain.is_fill(image)
    for _ in range(2):
        better = _track(expected, gray, filled, affine)
        if better is None:
            break
        expected, smaller = _expect(source, gray, better)
        if smaller >= residual:
            break
        moved = float(np.abs((better - affine) @ (*size, 1)).max())
        affine, residual = better, smaller
        # Patches are compared as they lie, not turned: the farther off, the less exact.
        if moved < 3:
            break
    return affine, residual


def _track(
    expected: np.ndarray, gray: np.ndarray, filled: np.ndarray, affine: np.ndarray
) -> np.ndarray | None:
    """Follow corners of the expected image to the real one; the map that takes them there."""
    allowed = _away_from(filled | (expected == 0), 7)
    corners = cv2.goodFeaturesToTrack(expected, 120, 0.005, 6, mask=allowed)
    if corners is None:
        return None
    moved, status, _ = cv2.calcOpticalFlowPyrLK(
        expected, gray, corners, np.empty_like(corners), winSize=(15, 15), maxLevel=1
    )
    tracked = status.ravel() > 0
    if tracked.sum() < _LEAST_TRACKED:
        return None
    back = cv2.invertAffineTransform(affine)
    origins = corners.reshape(-1, 2)[tracked] @ back[:, :2].T + back[:, 2]
    better, _ = cv2.estimateAffine2D(
        origins.astype(np.float32), moved.reshape(-1, 2)[tracked], ransacReprojThreshold=0.7
    )
    return better


def _expect(source: np.ndarray, gray: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, float]:
    """Map a grey picture, as bright as the image; and the mean absolute difference."""
    size = gray.shape[::-1]
    warped = cv2.warpAffine(source, affine, size)
    cover = cv2.warpAffine(np.full_like(source, 255), affine, size)
    inside = (cover == 255).astype(np.uint8)
    # The images were stretched to the full range of grey levels when they were written.
    (light,), (contrast,) = cv2.meanStdDev(warped, mask=inside)
    product = cv2.multiply(warped, gray, dtype=cv2.CV_32F)
    covariance = cv2.mean(product, inside)[0] - light[0] * cv2.mean(gray, inside)[0]
    gain = covariance / contrast[0] ** 2 if contrast[0] > 0 else 0.0
    offset = cv2.mean(gray, inside)[0] - gain * light[0]
    expected = cv2.addWeighted(warped, gain, cover, offset / 255, 0)
    return expected, cv2.norm(expected, gray, cv2.NORM_L1) / gray.size
