"""The life of one trial, from its subset to its result, and how Ray Tune sees it (`ray_trainable`).

`result` is what the rest of the house reads; it never imports torch.
"""
