"""Audit: what the images of a data set really show, against what their folders say.

A folder of images and photographs, or a cross-validation's answers, come in; out go the photograph
behind each image, overlaps, leaks, repeats and doubtful labels. It may import `data`, `pixels`,
`evaluate` and `runs`.
"""
