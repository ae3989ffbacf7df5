"""Many small networks trained as one: the parts of `prunelab.lottery.train_stacked`, one concept a file."""
