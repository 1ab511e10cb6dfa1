"""Pixels: from image files to arrays of uint8 RGB in a standard scale, light and stain.

Files or arrays come in; out go arrays, how wide their red cells are, where their white cells lie,
crops around these, and views to train on. It may import `cells`, `errors` and `storage`, no room.
"""
