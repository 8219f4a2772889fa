"""The engines of a race, one module each: `make` writes the file it reads, `runner` runs it in a worker."""
