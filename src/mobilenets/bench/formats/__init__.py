"""One network in the file formats that other runtimes read, written from its table and folded weights."""
