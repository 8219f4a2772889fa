"""What a network costs: multiply-accumulates, parameters, bytes. Imports the standard library and `spec`."""
