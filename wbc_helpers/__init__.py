"""Helpers behind the white-blood-cell notebooks.

Importing the package does nothing but define names: no download, no folder, no seed, and no
deep-learning framework. Only `models`, `training` and `explain` import Keras.
"""

__version__ = "0.1.0"
