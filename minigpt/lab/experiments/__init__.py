"""The users' claims about stable training as experiments: a grid of configurations, runs, a table, a plot, a sentence."""
