"""Notices: what is said to people and systems, and how it is delivered."""
