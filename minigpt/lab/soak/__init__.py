"""Long runs, real and simulated: does anything grow that must not?"""
