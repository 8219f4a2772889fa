"""Labelled pictures: what is there, what is wrong with it, how it is split. Imports numpy and `infer`."""
