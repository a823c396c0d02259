"""Planning: a tool beside the daemon that computes what a quota carries and what outages cost."""
