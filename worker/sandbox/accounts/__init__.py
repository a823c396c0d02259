"""Accounts that are generated on demand: every figure follows from a seed, the account's id and a moment.

Nothing is kept in memory but the traits that a test has set, so a sandbox of a million accounts costs no more than one
of ten. The calls of the open API read the figures as TikTok shows them at a moment; the truth reads them as they stand
in the end. Both use the same functions.
"""
