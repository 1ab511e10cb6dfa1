"""In comes the name of a source or a path; out go folders, catalogs, boxes and splits of them.

Whatever is fetched is told by its content, and what deviates from published data is named.
It may import `cells`, `errors` and `storage`, and no other room.
"""
