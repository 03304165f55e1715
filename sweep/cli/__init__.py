"""The door: arguments and words of `emm`, no policy and no Ray; heavy imports stand inside the
commands.

`main` is the way in, one module each command or group of them. Nothing imports from here but `emm`
itself, and `sweep.api`, whose `run` is `emm run`.
"""
