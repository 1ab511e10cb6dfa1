"""Naming white cells: from images of cells to networks that were trained, judged and explained.

In come image files and the settings of a recipe; out go run folders, and a classifier that answers
with one of four cell types or leaves the question to a haematologist. It may import `data`,
`pixels`, `evaluate`, `runs`, `audit` and `report`; `classifier` and `inputs` load no Keras by
themselves.
"""
