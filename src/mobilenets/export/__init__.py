"""One model as the files of other runtimes, each with how to feed it and how to read it."""
