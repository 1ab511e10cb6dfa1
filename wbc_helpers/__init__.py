"""Helpers behind the white-blood-cell notebooks.

Importing the package does nothing but define names: no download, no folder, no seed, and no
deep-learning framework. What builds, trains or explains networks takes Keras from `runs.backend`,
which chooses device and backend first; `classify.classifier` and `count.detector` load it when they
are asked.
"""

__version__ = "0.1.0"
