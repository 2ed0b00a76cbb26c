"""Search of a space too large to run all of it: samplers, short runs first, the front run again."""
