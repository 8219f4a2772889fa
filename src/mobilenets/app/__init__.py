"""The camera app: a folder of plain files that any phone or laptop opens, installs and runs offline."""
