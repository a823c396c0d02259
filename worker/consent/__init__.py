"""Consent: the link, the exchange, the import of pairs, and the end of a consent."""
