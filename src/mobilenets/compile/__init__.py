"""What a device runs: a network and its weights turned into C that was written for that one network."""
