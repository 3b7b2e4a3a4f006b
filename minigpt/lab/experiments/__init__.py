"""The users' claims about stable training as experiments: configurations, runs, a table, a plot, a sentence."""
