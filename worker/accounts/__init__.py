"""Account data: what is read from TikTok, when, and how it is kept."""
