"""What a network means: the numpy walk, image preparation, decoding, the model file, other libraries' weights."""
