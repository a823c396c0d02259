"""Refreshing grants: from the permit to the stored pair."""
