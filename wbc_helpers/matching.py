"""Finding a picture again in another one that was rotated, shifted, sheared or mirrored.

Local features (ORB [1]_) of two pictures are compared, and a match counts only if many of them
agree on one affine map (RANSAC); tracking small patches [2]_ then makes the map exact to a tenth
of a pixel. Features are not the same in a mirror, so every picture that is searched is entered
twice, as it is and mirrored left to right; an image flipped top to bottom is found in the
mirrored one, turned by 180°.

References
----------
.. [1] E. Rublee et al., ORB: an efficient alternative to SIFT or SURF, ICCV (2011).
.. [2] J.-Y. Bouguet, Pyramidal implementation of the Lucas Kanade feature tracker, Intel (2000).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

N_FEATURES = 400
"""Features of a picture. Of images from the known data set, 38 to 319 agree with the right
photograph, and at most 11 with one that shows another field."""

MIN_INLIERS = 20
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

    Attributes
    ----------
    points : ndarray, (n, 2) float32
        x, y in pixels, (0, 0) the centre of the upper left pixel.
    descriptors : ndarray, (n, 32) uint8
        256 bits each.
    """

    points: np.ndarray
    descriptors: np.ndarray


@dataclass(frozen=True, eq=False)
class Match:
    """How well a picture was found in an image.

    Attributes
    ----------
    picture : int
        Its number in the index.
    inliers : int
        Features that agree on the affine map.
    affine : ndarray, (2, 3) float64
        From the picture to the image, in pixels; its determinant is negative if one of them is
        mirrored.
    """

    picture: int
    inliers: int
    affine: np.ndarray


def find_features(image: np.ndarray) -> Features:
    """Find the features of an image, none of them at the edge of its black fill.

    Parameters
    ----------
    image : ndarray, (height, width, 3) uint8
        RGB.

    Returns
    -------
    Features
        At most `N_FEATURES`.
    """
    allowed = 255 - cv2.dilate(_find_fill(image), np.ones((9, 9), np.uint8))
    # The smear is evenly lit and weakly stained: few corners pass the usual threshold of 20.
    detector = cv2.ORB_create(N_FEATURES, 1.2, 4, fastThreshold=5)
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    keypoints, descriptors = detector.detectAndCompute(gray, allowed)
    if descriptors is None:
        return Features(np.empty((0, 2), np.float32), np.empty((0, 32), np.uint8))
    return Features(np.float32(cv2.KeyPoint_convert(keypoints)).reshape(-1, 2), descriptors)


def _find_fill(image: np.ndarray) -> np.ndarray:
    """Mark black fill by 255: `images.is_fill`, in a twentieth of the time."""
    return cv2.inRange(image, (0, 0, 0), (15, 15, 15))


def fit_affine(picture: Features, image: Features) -> tuple[int, np.ndarray | None]:
    """Fit the affine map on which most features of two pictures agree.

    Parameters
    ----------
    picture, image : Features
        The map leads from the first to the second.

    Returns
    -------
    inliers : int
        Number of features that agree; 0 if there is no plausible map.
    affine : (2, 3) ndarray of float64, or None
        In pixels.
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
    """Pictures in which images can be found, each as it is and mirrored.

    Parameters
    ----------
    pictures : sequence of (height, width, 3) uint8 ndarray
        RGB.
    """

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
        """Find an image among the pictures.

        Parameters
        ----------
        image : Features
            Of the image.
        n_candidates : int
            Number of pictures, or their mirrored selves, that are compared feature by feature:
            those that share the most words with the image.
        without : int, optional
            Number of a picture that is passed over.

        Returns
        -------
        list of Match
            Best first, one for each picture with a plausible affine map.
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


def refine_affine(
    picture: np.ndarray, image: np.ndarray, affine: np.ndarray
) -> tuple[np.ndarray, float]:
    """Make an affine map exact by tracking where the picture's corners went.

    Parameters
    ----------
    picture, image : ndarray, (height, width, 3) uint8
        RGB.
    affine : ndarray, (2, 3)
        From the picture to the image, in pixels, right within a few of them.

    Returns
    -------
    affine : ndarray, (2, 3) float64
        The better map; the given one if tracking did not improve it.
    residual : float
        Mean absolute difference, over all pixels of the image, from what the map makes of the
        picture, black fill included, in grey levels (0–255). Brightness and contrast may differ.
        Where the fill begins counts as much as the cells, so that of two photographs of one
        field the right one is told.
    """
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    source = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    size = gray.shape[::-1]
    expected, residual = _expect(source, gray, affine)
    filled = _find_fill(image)
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
    outside = filled | cv2.inRange(expected, 0, 0)
    allowed = 255 - cv2.dilate(outside, np.ones((7, 7), np.uint8))
    corners = cv2.goodFeaturesToTrack(expected, 120, 0.005, 6, mask=allowed)
    if corners is None:
        return None
    found, tracked, _ = cv2.calcOpticalFlowPyrLK(
        expected, gray, corners, None, winSize=(15, 15), maxLevel=1
    )
    tracked = tracked.ravel() > 0
    if tracked.sum() < _LEAST_TRACKED:
        return None
    back = cv2.invertAffineTransform(affine)
    origins = corners.reshape(-1, 2)[tracked] @ back[:, :2].T + back[:, 2]
    better, _ = cv2.estimateAffine2D(
        origins.astype(np.float32), found.reshape(-1, 2)[tracked], ransacReprojThreshold=0.7
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
