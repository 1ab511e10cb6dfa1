"""Maps of boxes that are known: what a perfect detector would answer."""

import numpy as np

from wbc_helpers.count.detector import N_KINDS, draw_maps

SIZE = (96, 128)
BOXES = np.array([[10, 20, 60, 70], [70, 10, 110, 60], [20, 76, 36, 92]], float)


def maps_of(corners, kinds, unsure=None, size=SIZE):
    corners = np.array(corners, float).reshape(-1, 4)
    unsure = np.zeros(len(corners), bool) if unsure is None else np.array(unsure)
    return draw_maps(corners, np.array(kinds, int), unsure, size)


def answer(truth):
    """Maps that are right and sure: 1 at centres, 0 elsewhere."""
    maps = truth[..., : N_KINDS + 4].copy()
    maps[..., :N_KINDS] = maps[..., :N_KINDS] == 1
    return maps
