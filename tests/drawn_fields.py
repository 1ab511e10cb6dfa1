"""Fields of a smear whose red cells and nuclei lie where they are drawn."""

import cv2
import numpy as np


def draw_field(red_cell, nuclei, width=640, height=480, touching=False):
    """A field of red cells on a lattice, and round nuclei at given places (x, y, radius)."""
    field = np.full((height, width, 3), (225, 220, 228), np.uint8)
    step = red_cell * (1.0 if touching else 1.35)
    for y in np.arange(red_cell, height - red_cell / 2, step):
        for x in np.arange(red_cell, width - red_cell / 2, step):
            centre = (round(x), round(y))
            if all(np.hypot(x - nx, y - ny) > radius + red_cell for nx, ny, radius in nuclei):
                cv2.circle(field, centre, round(red_cell / 2), (205, 130, 140), -1, cv2.LINE_AA)
                cv2.circle(field, centre, round(red_cell / 8), (215, 165, 170), -1, cv2.LINE_AA)
    for x, y, radius in nuclei:
        cv2.circle(field, (x, y), radius, (110, 70, 180), -1, cv2.LINE_AA)
    return field


LAMP = (230, 200, 215)


def draw_disc(size=(240, 320), lamp=LAMP, centre=(160, 120), radius=25):
    """A bluish disc on a background of one colour."""
    drawn = np.full((*size, 3), lamp, np.uint8)
    stained = tuple(
        round(level * share) for level, share in zip(lamp, (0.5, 0.3, 0.9), strict=True)
    )
    cv2.circle(drawn, centre, radius, stained, -1)
    return drawn
