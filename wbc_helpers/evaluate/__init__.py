"""What answers are worth: true types and probabilities, or true and predicted boxes, come in.

Scores, intervals, temperatures and thresholds go out, as numbers and tables; no network is asked.
It may import `cells`, `errors` and `storage`, and no other room.
"""
