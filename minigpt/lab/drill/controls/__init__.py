"""The healthy controls, by theme: trainings that look odd, and whose user wants to be left alone."""
