"""What learns: a network as a torch module under the names of `spec`."""
