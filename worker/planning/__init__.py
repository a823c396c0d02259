"""Planning: a tool beside the daemon that computes what a quota carries and how bad days end."""
