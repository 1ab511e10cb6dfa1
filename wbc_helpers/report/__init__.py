"""Run folders and executed notebooks, as pages that need no other file and no network.

In come run folders in any state; out go HTML pages that load nothing and run nothing. It may import
`runs` and what lies below; other rooms that write pages share `pages`.
"""
