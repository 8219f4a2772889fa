"""A folder of labelled pictures: what is in it, what is wrong with it, how it is split. Imports numpy, Pillow and `infer`."""
