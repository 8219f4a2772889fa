"""The race: one network by this package's code and by the runtimes a user could pick, timed in turns."""
