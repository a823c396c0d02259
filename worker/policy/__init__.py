"""Pure decisions: `now` is an argument, and a decision is a value with a reason."""
