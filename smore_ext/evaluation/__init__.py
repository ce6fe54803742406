"""Ranking metrics, and the protocol under which they are taken."""
