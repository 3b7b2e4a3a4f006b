"""What healthy trainings of transformers have in common, where a run's own record has no normal to compare with."""

USUAL_UPDATE_RATIO = 0.015
"""||update|| / ||weights|| of a matrix in healthy runs with AdamW: .003 to .02 around the peak of the rate."""
TINY_UPDATE_RATIO = 1e-4
"""Thirty times less than healthy runs show: a learning rate is too low whatever else is wrong."""
SWAMPED = 0.7
"""Above 1/sqrt(2) an update is larger than what it was added to: the ratio, at most 1, does not say how much."""
OUTGROWN = 3.0
"""Times what they were that weights have become within the steps remembered: no healthy training makes them so much
larger so soon, and updates that look small beside them are not."""
USUAL_WEIGHT_DECAY = 0.1
USUAL_EPS = 1e-8
"""Of Adam (arXiv 1412.6980), and torch's own."""
