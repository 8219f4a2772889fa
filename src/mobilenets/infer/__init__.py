"""What a network means: numpy walk, image preparation, decoding, model file, other libraries' weights."""
