"""What a network is: operations, nets, published tables, preprocessing. Imports the standard library only."""
