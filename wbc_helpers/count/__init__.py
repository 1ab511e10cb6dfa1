"""From photographs of smears to their cells: boxes, kinds, types, counts and pages.

In come photographs, or a folder of them, and what learned to find and to name cells; out come boxes
(`detector`, `classical`), tables that can be gone on with (`smears`), the `differential` count and
`pages` to browse; `training` makes a detector of boxed photographs. The room may import all rooms
from `data` to `classify`; what answers needs Keras only when it is asked.
"""
