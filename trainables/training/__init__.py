"""The training loop, and the door for one of the user's own. No files, no Ray."""
