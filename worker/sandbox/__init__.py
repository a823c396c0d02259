"""A local stand-in for TikTok, with a ledger of every pair it issued; it shares no code with what it tests."""
