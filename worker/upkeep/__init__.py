"""Upkeep: periodic work of any worker; running it twice does no harm."""
