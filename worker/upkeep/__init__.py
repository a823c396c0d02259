"""Upkeep: what is done from time to time, by any worker, without harm when done twice."""
