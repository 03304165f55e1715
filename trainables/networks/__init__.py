"""Networks: anything called (x, noise_level, labels) that returns the shape of x.

One module each; `build.build_network` finds the one that a configuration names.
"""
