"""The blocks of the terminal summary, each a function from the summary to its lines."""
