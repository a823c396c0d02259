"""Notices: messages to people and systems, and their delivery."""
